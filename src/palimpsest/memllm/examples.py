"""Finetuning examples from annotated documents: what the read adapter and the write adapter learn from.

An example is a row of tokens, some of which are learnt (they count in the loss) while the others are only read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from palimpsest.facts import Document, Mention, Query
from palimpsest.memllm.targets import ReadTarget, sentence_triples
from palimpsest.memllm.tokens import CallTokens, TextTokens

MAX_TRIPLES = 31  # a sentence with more is no example

Learnt = Literal["text and calls", "first call and its results"]
"""Which tokens of read examples count: the published rule, or what the official code does (a document's first example
counts whole, results included; of the others the text after the call only)."""


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """A read call that belongs before the token ``place`` of a text, and the mention that it supplies."""

    place: int
    queries: tuple[Query, ...]
    mention: Mention


@dataclass(frozen=True, slots=True)
class Example:
    """A row of T tokens, the first of which opens the text; ``learnt`` says of each whether it is to be predicted."""

    ids: list[int]
    learnt: list[bool]

    @classmethod
    def of(cls, start: int, *parts: tuple[Sequence[int], bool], max_tokens: int) -> Example:
        """Join parts, each learnt or not, after the token ``start``; what is too long loses its oldest text."""
        ids = [token for part, _ in parts for token in part]
        learnt = [wanted for part, wanted in parts for _ in part]
        cut = max(0, len(ids) + 1 - max_tokens)
        return cls([start, *ids[cut:]], [False, *learnt[cut:]])


def read_examples(
    document: Document,
    targets: Sequence[ReadTarget],
    tokens: CallTokens,
    answers: Callable[[Sequence[Query]], Sequence[str]],
    *,
    max_tokens: int,
    learnt: Learnt = "text and calls",
) -> Iterator[Example]:
    """One example a target: the text before it without any call, the call with its results, the text up to the next.

    An example ends with the marker that opens the next call, or with the end of the text. A text without a target is
    an example without a call. Text before a document's first call is learnt in the first example only.

    Args:
        document: the annotated document, ``targets`` its targets in text order.
        tokens: encodes text and calls.
        answers: what the memory returns to the queries of one call.
        max_tokens: longer examples lose their oldest tokens.
        learnt: which tokens count.
    """
    text = tokens.text(document.text)
    calls = planned_calls(document, targets, text)
    official = learnt == "first call and its results"
    if not calls:
        yield plain_example(document, tokens, max_tokens=max_tokens)
    for number, call in enumerate(calls):
        following = calls[number + 1].place if number + 1 < len(calls) else None
        question, first = tokens.queries(call.queries), number == 0
        yield Example.of(
            tokens.start,
            (text.ids[: call.place] + question[:1], first),
            (question[1:], first or not official),
            (tokens.answer(answers(call.queries)), first and official),
            ([*text.ids[call.place : following], tokens.end if following is None else tokens.open], True),
            max_tokens=max_tokens,
        )


def planned_calls(document: Document, targets: Sequence[ReadTarget], text: TextTokens) -> list[PlannedCall]:
    """Where in a document's tokens calls belong: at its targets, but never twice at one place or twice the same.

    A target whose best query is that of the call before needs none of its own, as those results are still in sight.
    """
    calls: list[PlannedCall] = []
    for target in targets:
        place = text.first(document.span(target.mention)[0])
        if calls and (calls[-1].place == place or calls[-1].queries[0] == target.queries[0]):
            continue
        calls.append(PlannedCall(place, target.queries, target.mention))
    return calls


def write_examples(
    document: Document, labels: Mapping[str, str], tokens: CallTokens, *, max_tokens: int
) -> Iterator[Example]:
    """One example a sentence: the text up to it with the sentence marked, and the call that writes its triples.

    Only the call is learnt, and the end of text after it. Sentences with more than 31 triples are left out.
    """
    prompts = write_prompts(document, tokens)
    for prompt, triples in zip(prompts, sentence_triples(document, labels), strict=True):
        if prompt and len(triples) <= MAX_TRIPLES:
            call = [*tokens.write(triples), tokens.end]
            yield Example.of(tokens.start, (prompt, False), (call, True), max_tokens=max_tokens)


def plain_example(document: Document, tokens: CallTokens, *, max_tokens: int) -> Example:
    """The text alone: what a model finetuned without memory learns from."""
    text = tokens.text(document.text).ids
    return Example.of(tokens.start, ([*text, tokens.end], True), max_tokens=max_tokens)


def write_prompts(document: Document, tokens: CallTokens) -> list[list[int]]:
    """For each sentence, the text up to its end with the sentence marked; of an empty sentence nothing."""
    text = tokens.text(document.text)
    prompts = []
    for start, end in document.sentence_spans():
        first, last = text.first(start), text.first(end)
        focus = [*tokens.focus_start, *text.ids[first:last], *tokens.focus_end]
        prompts.append(text.ids[:first] + focus if start < end else [])
    return prompts
