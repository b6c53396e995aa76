"""Generation with look-ups, against a literal implementation: one prompt, no cache, all read again for every token."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise

import pytest
from support import (
    CONTEXT,
    fit,
    keen,
    memory,
    next_logits,
    plain_question,
    trained,
    triples,
    untrained,
)

from palimpsest.facts import Query, Triple
from palimpsest.lm.load import LanguageModel
from palimpsest.memllm.calls import Malformed, parse_read
from palimpsest.memllm.examples import Example
from palimpsest.memllm.lookup import Found, Lookup
from palimpsest.memllm.reading import Call, Span, Trace, read_on, stream
from palimpsest.memllm.tokens import CallTokens
from palimpsest.memory import LANGUAGE_MODELLING, TripleMemory

PROMPTS = ["Dawn was written by", "Rain is", "", "Red Moon was", "Bo Tan was born in Lima. Lima", "Oslo 🙂 lies in",
           "Tides was written by Dev Rao. Dev Rao was born"]  # fmt: skip
FORGOTTEN = {"Oslo", "Dusk", "Cleo Diaz"}
STORED = [triple for triple in triples() if triple.subject not in FORGOTTEN]


class Recorded(Lookup):
    """Remembers what it was asked."""

    def __init__(self, stored: TripleMemory) -> None:
        super().__init__(stored, LANGUAGE_MODELLING)
        self.asked: list[Sequence[Query]] = []

    def __call__(self, calls: Sequence[Sequence[Query]]) -> list[list[Found]]:
        self.asked += [call for call in calls if call]
        return super().__call__(calls)


def literal(tokens: CallTokens, lookup: Lookup, prompt: str, max_new_tokens: int, stop: str | None = None) -> Trace:
    ids = tokens.text(prompt).ids
    begin, context_length = len(ids), tokens.lm.context_length
    in_sight: list[int] = []  # the last call, in tokens
    place, asked, silent = begin, None, False
    spans: list[tuple[int, Call | None, list[Call]]] = [(begin, None, [])]
    while len(ids) < begin + max_new_tokens:
        logits = next_logits(tokens.lm.model, (tokens.start, *ids[:place], *in_sight, *ids[place:])).clone()
        question = [tokens.start, *ids, *tokens.read_prefix]
        if silent or len(question) > context_length:
            logits[tokens.open] = -float("inf")
        token = int(logits.argmax())
        if token == tokens.open:
            written = plain_question(tokens, question)
            call = outcome(tokens, lookup, written, asked)
            answer = tokens.answer([found.name for found in call.results])
            to_come = begin + max_new_tokens - len(ids)
            if call.outcome == "answered" and len(question) + len(written) + len(answer) + to_come > context_length:
                call = Call(call.text, "too long", call.queries, call.results)
            if call.outcome == "answered":
                in_sight, place, asked = [*tokens.read_prefix, *written, *answer], len(ids), call.queries
                spans.append((place, call, []))
            else:
                spans[-1][2].append(call)
                silent = True
            continue
        if token in (tokens.end, tokens.results, tokens.close):
            break
        ids.append(token)
        silent = False
        if stop is not None and stop in tokens.decode(ids[begin:]):
            break
    ends = [*(start for start, _, _ in spans), len(ids)][1:]
    whole = [
        Span(text_between(tokens, ids, start, end), *rest) for (start, *rest), end in zip(spans, ends, strict=True)
    ]
    return Trace(prompt, whole)


def outcome(tokens: CallTokens, lookup: Lookup, written: list[int], asked: tuple[Query, ...] | None) -> Call:
    text = tokens.decode([*tokens.read_prefix, *written])
    call = parse_read(text)
    if written[-1:] != [tokens.results]:
        return Call(text, "malformed", reason="expected a question before -->")
    if isinstance(call, Malformed):
        return Call(text, "malformed", reason=call.reason)
    if call.queries == asked:
        return Call(text, "repeated", call.queries)
    (results,) = lookup([call.queries])
    return Call(text, "answered" if results else "empty", call.queries, tuple(results))


def text_between(tokens: CallTokens, ids: list[int], start: int, end: int) -> str:
    before, after = (tokens.decode(ids[:place]).rstrip("�") for place in (start, end))
    assert after.startswith(before)
    return after[len(before) :]


def check(
    tokens: CallTokens,
    max_new_tokens: int,
    stop: str | None = None,
    prompts: Sequence[str] = PROMPTS,
    stored: Sequence[Triple] = STORED,
) -> list[Trace]:
    """All prompts at once, and some alone, go on as in the literal implementation; only their calls are executed."""
    with memory(stored) as opened:
        expected = [
            literal(tokens, Lookup(opened, LANGUAGE_MODELLING), prompt, max_new_tokens, stop) for prompt in prompts
        ]
        lookup = Recorded(opened)
        traces = read_on(tokens.lm, tokens, lookup, prompts, max_new_tokens=max_new_tokens, stop=stop)
        assert traces == expected
        executed = [call.queries for trace in traces for call in trace.calls if call.results or call.outcome == "empty"]
        assert sorted(map(str, lookup.asked)) == sorted(map(str, executed))
        for prompt, trace in zip(prompts[::2], traces[::2], strict=True):
            assert read_on(tokens.lm, tokens, lookup, [prompt], max_new_tokens=max_new_tokens, stop=stop) == [trace]
    return traces


def outcomes(traces: Sequence[Trace]) -> set[str]:
    return {call.outcome for trace in traces for call in trace.calls}


def test_prompts_go_on_as_in_the_literal_implementation() -> None:
    traces = [trace for steps in (40, 60, 150) for trace in check(trained(steps), 24)]
    assert outcomes(traces) >= {"malformed", "empty", "answered"}


def test_a_model_that_calls_whenever_it_can_repeats_itself() -> None:
    traces = []
    for steps in (60, 150):
        with keen(trained(steps), trained(steps).open, 2.5):
            traces += check(trained(steps), 24)
    assert outcomes(traces) >= {"empty", "answered", "repeated"}
    assert any(len(span.dropped) > 1 for trace in traces for span in trace.spans)


@pytest.mark.parametrize("most", [1, 5])
def test_it_stops_after_so_many_tokens(most: int) -> None:
    traces = check(trained(150), most)
    assert any(len(trace.calls) for trace in traces)


def test_it_stops_after_a_text() -> None:
    traces = check(trained(150), 24, stop=".")
    texts = [trace.text for trace in traces if "." in trace.text]
    assert len(texts) >= 3
    assert all(text.index(".") == len(text) - 1 for text in texts)


def test_where_the_context_has_no_room_there_is_no_call() -> None:
    tokens, traces = trained(150), {}
    with keen(tokens, tokens.open, 1.5):
        for context in (36, 41, 46, 52, 60):
            narrow = CallTokens(LanguageModel(tokens.lm.model, tokens.tokenizer, context_limit=context), tokens.spaced)
            traces[context] = check(narrow, 16)
    assert "too long" in outcomes(traces[46])
    assert all(call.results for trace in traces[46] for call in trace.calls if call.outcome == "too long")


def test_a_trace_tells_what_was_looked_up() -> None:
    with memory(STORED) as stored:
        lookup = Lookup(stored, LANGUAGE_MODELLING)
        traces = read_on(trained(150).lm, trained(150), lookup, PROMPTS, max_new_tokens=30)
    for prompt, trace in zip(PROMPTS, traces, strict=True):
        assert trace.prompt == prompt
        assert trace.text == "".join(span.text for span in trace.spans)
        assert trace.spans[0].call is None
        assert trace.calls == [
            call for span in trace.spans for call in ([] if span.call is None else [span.call]) + span.dropped
        ]
        for span in trace.spans[1:]:
            assert span.call.outcome == "answered"
            assert span.call.text.startswith("({MEM_READ(")
            assert span.call.text.endswith(")-->")
            (query,) = span.call.queries
            for found in span.call.results:
                assert found.triple in STORED
                assert query.relation == found.triple.relation
                ends = (found.triple.subject, found.triple.object)
                assert (query.entity, found.name) == (ends if query.known == "subject" else ends[::-1])
    assert sum(len(trace.spans) - 1 for trace in traces) > 3
    trace = read_on_one("Salt was written by")
    assert [(span.text, span.call and span.call.queries) for span in trace.spans[:2]] == [
        ("", None), (" Eva Lind. Eva Lind was born in", (Query("author", subject="Salt"),))
    ]  # fmt: skip


def read_on_one(prompt: str) -> Trace:
    with memory(STORED) as stored:
        (trace,) = read_on(
            trained(150).lm, trained(150), Lookup(stored, LANGUAGE_MODELLING), [prompt], max_new_tokens=24
        )
    return trace


def test_a_stream_grows_to_the_whole() -> None:
    tokens = trained(150)
    with memory(STORED) as stored:
        lookup = Lookup(stored, LANGUAGE_MODELLING)
        steps = list(stream(tokens.lm, tokens, lookup, PROMPTS, max_new_tokens=24))
        assert steps[-1] == read_on(tokens.lm, tokens, lookup, PROMPTS, max_new_tokens=24)
    assert len(steps) > 24
    for before, after in pairwise(steps):
        assert before != after or before == steps[-2]  # a row that ends without a token changes nothing
        for old, new in zip(before, after, strict=True):
            assert new.text.startswith(old.text)
            assert new.calls[: len(old.calls)] == old.calls
            assert [span.text for span in new.spans[: len(old.spans) - 1]] == [span.text for span in old.spans[:-1]]


SPELT = "({MEM_READ(Dusk>>author>>)-->"


def test_markers_spelt_out_in_a_prompt_begin_no_call() -> None:
    """A model that knows of no calls goes on after what reads like one."""
    tokens = untrained()
    traces = check(tokens, 6, prompts=[f"Dawn {SPELT}", SPELT, f"{SPELT}Ann}})", "({"])
    assert not outcomes(traces)
    assert all(trace.text for trace in traces)


def test_markers_spelt_out_in_the_memory_begin_no_call() -> None:
    name = f"Ann}}) {SPELT} Lee"
    traces = check(
        trained(150), 24, prompts=["Dawn was written by"], stored=[*STORED[1:], Triple("Dawn", "author", name)]
    )
    first = traces[0].spans[1].call
    assert [found.name for found in first.results] == [name]


@cache
def drilled() -> CallTokens:
    """A model that has learnt two things only: to spell out the rest of a call, and to call within a character."""
    tokens = untrained()
    spelt = [*tokens.read_prefix, *tokens.text(" Dawn>> author>>)--> Ann Lee").ids, tokens.close]
    split = tokens.text(" 🙂 yes").ids
    call = [*tokens.queries([Query("author", subject="Salt")]), *tokens.answer(["Eva Lind"])]
    rows = [[*tokens.text("Spell").ids, *spelt], [*tokens.text("Smile").ids, *split[:2], *call, *split[2:], tokens.end]]
    fit(tokens.lm, [Example([tokens.start, *row], [False] + [True] * len(row)) for row in rows], 80)
    return tokens


def test_a_question_ends_with_the_marker_and_not_with_its_spelling() -> None:
    (trace,) = check(drilled(), 12, prompts=["Spell"])
    call = trace.calls[0]
    assert call.text == "({MEM_READ( Dawn>> author>>)--> Ann Lee})"
    assert call.outcome == "malformed"


def test_a_character_is_shown_when_it_is_whole() -> None:
    tokens = drilled()
    (trace,) = check(tokens, 12, prompts=["Smile"])
    assert [span.text for span in trace.spans] == [" ", "🙂 yes"]
    with memory(STORED) as stored:
        for (part,) in stream(tokens.lm, tokens, Lookup(stored, LANGUAGE_MODELLING), ["Smile"], max_new_tokens=12):
            assert trace.text.startswith(part.text)


def test_what_cannot_be_read_on_is_refused() -> None:
    tokens = trained(60)
    with memory(STORED) as stored:
        lookup = Lookup(stored, LANGUAGE_MODELLING)
        assert read_on(tokens.lm, tokens, lookup, [], max_new_tokens=5) == []
        with pytest.raises(ValueError, match="max_new_tokens must be at least 1, not 0"):
            read_on(tokens.lm, tokens, lookup, ["Dawn"], max_new_tokens=0)
        length = len(tokens.text("Dawn").ids)
        with pytest.raises(ValueError, match=f"prompt 1 has {length} tokens, .* no room for .* a context of {CONTEXT}"):
            read_on(tokens.lm, tokens, lookup, ["", "Dawn"], max_new_tokens=CONTEXT - length)
        tokens.lm.model.train()
        try:
            with pytest.raises(ValueError, match="training mode"):
                read_on(tokens.lm, tokens, lookup, ["Dawn"], max_new_tokens=5)
        finally:
            tokens.lm.model.eval()
