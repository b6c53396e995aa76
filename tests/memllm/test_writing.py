"""Late stopping and write calls, against the rule spelled out for one row without a cache."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cache, partial

import numpy as np
import pytest
import torch
from support import CONTEXT, keen, page, trained, triples
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, LogitsProcessorList

from palimpsest.facts import Document, Triple
from palimpsest.memllm.calls import parse_write
from palimpsest.memllm.tokens import CallTokens
from palimpsest.memllm.writing import LateStopping, SentenceWrite, write_by_delay, write_calls

PAGES = [page(0, sentences=0), page(1, 6), page(), page(2, 5, 7)]
MOST = 30  # tokens of a call


def literal_rule(
    predict: Callable[[tuple[int, ...]], Tensor],
    prompt: Sequence[int],
    close: int,
    ends: Collection[int],
    delay: int,
    most: int,
) -> tuple[list[int], bool]:
    """What is left of one row after the cut, without the closing marker, and whether there was one.

    ``predict`` gives the log-probabilities of what comes next.
    """
    ids: list[int] = []
    points: dict[int, float] = {}  # by how many tokens the call would have before the marker: its mean log-probability
    total = 0.0
    while len(ids) < most and not set(ids) & set(ends):
        logprobs = predict((*prompt, *ids))
        token = int(logprobs.argmax())
        if token == close:
            best = int(np.argmax(list(points.values()))) if points else 0
            if len(points) - best >= delay:
                points = points or {len(ids): 0.0}
                break
            points[len(ids)] = (total + logprobs[close].item()) / (len(ids) + 1)
            token = int(logprobs.topk(2).indices[1])
        total += logprobs[token].item()
        ids.append(token)
    return (ids[: max(points, key=lambda point: points[point])], True) if points else (ids, False)


@torch.no_grad()
def next_logprobs(model: LlamaForCausalLM, ids: Sequence[int]) -> Tensor:
    return model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0, -1].double().log_softmax(-1)


@cache
def tiny(seed: int) -> LlamaForCausalLM:
    """A random model of 9 tokens, of which the first wants to close now and then."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=9, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64, eos_token_id=None, bos_token_id=None,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" not in name:
                weight.normal_(0, 0.5)
    return model


@cache
def tiny_predicts(seed: int, ids: tuple[int, ...]) -> Tensor:
    return next_logprobs(tiny(seed), ids)


@pytest.mark.parametrize("ends", [[], [5], [5, 6]])
@pytest.mark.parametrize("delay", [0, 1, 2, 5])
def test_generation_with_late_stopping_follows_the_rule(delay: int, ends: list[int]) -> None:
    close, most, fates = 0, 30, set()
    for seed in range(4):
        model, prompts = tiny(seed), torch.randint(1, 9, (8, 3), generator=torch.Generator().manual_seed(seed))
        stopper = LateStopping(close, delay, len(prompts), ends)
        generated = model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            logits_processor=LogitsProcessorList([stopper]),
            max_new_tokens=most,
            do_sample=False,
            eos_token_id=[close, *ends],
            pad_token_id=8,
        )[:, 3:]
        for prompt, row, best in zip(prompts.tolist(), generated.tolist(), stopper.best.tolist(), strict=True):
            expected, closed = literal_rule(partial(tiny_predicts, seed), prompt, close, ends, delay, most)
            assert (best >= 0) == closed
            assert row[: best if closed else len(expected)] == expected
            fates.add((closed, bool(set(row) & set(ends)), len(expected) > 3))
    assert (True, False, True) in fates  # the test has seen rows that close late, and rows that end otherwise
    assert not ends or delay == 0 or {(True, True, True), (False, True, True)} & fates


def test_without_delay_it_is_greedy_decoding() -> None:
    for seed in range(4):
        model, prompts = tiny(seed), torch.randint(1, 9, (8, 3), generator=torch.Generator().manual_seed(seed))
        settings = {"max_new_tokens": 20, "do_sample": False, "eos_token_id": 0, "pad_token_id": 0}
        settings["attention_mask"] = torch.ones_like(prompts)
        stopper = LateStopping(0, 0, len(prompts))
        late = model.generate(prompts, logits_processor=LogitsProcessorList([stopper]), **settings)
        plain = model.generate(prompts, **settings)
        assert late.tolist() == plain.tolist()
        lengths = [row.index(0) if 0 in row else -1 for row in plain[:, 3:].tolist()]
        assert stopper.best.tolist() == lengths


# Probabilities of the closing marker and two other tokens, step by step.
STEPS = [
    [0.5, 0.3, 0.2],  # a point: log .5 = -.69; 1 is taken
    [0.05, 0.9, 0.05],
    [0.8, 0.1, 0.1],  # a better point: log(.3 · .9 · .8) / 3 = -.51; 1 is taken
    [0.6, 0.0, 0.4],  # a worse one: log(.3 · .9 · .1 · .6) / 4 = -1.03; 2 is taken
    [0.7, 0.1, 0.2],  # with a delay of 2 this is the end; else a worse one; 2 is taken
    [0.9, 0.1, 0.0],  # with a delay of 3 this is
    [0.1, 0.2, 0.7],
]


@pytest.mark.parametrize(
    ("delay", "best", "taken"),
    [
        (0, 0, [0]),
        (1, 0, [1, 1, 0]),
        (2, 2, [1, 1, 1, 2, 0]),
        (3, 2, [1, 1, 1, 2, 2, 0]),
        (4, 2, [1, 1, 1, 2, 2, 1, 2]),
    ],
)
def test_a_row_worked_out_by_hand(delay: int, best: int, taken: list[int]) -> None:
    stopper = LateStopping(0, delay, 2)
    chosen = [int(stopper.step(torch.tensor([1]), torch.tensor([step]).log()).argmax()) for step in STEPS]
    assert chosen[: len(taken)] == taken
    assert stopper.best.tolist() == [-1, best]  # the other row took no step
    patient = LateStopping(0, 4, 2)
    for step in STEPS:
        patient.step(torch.tensor([1]), torch.tensor([step]).log())
    assert [patient.cut(row, delay) for row in (0, 1)] == [
        (place, pytest.approx(mean))
        for place, mean in zip(stopper.best.tolist(), stopper.best_mean.tolist(), strict=True)
    ]


def test_what_is_over_stays_as_it_was() -> None:
    """Row 0 takes the token 2, with which it ends; a point after that would be better than the one before."""
    stopper = LateStopping(0, 5, 2, ends=[2])
    ids = torch.zeros(2, 1, dtype=torch.long)
    for row in ([0.5, 0.4, 0.1], [0.1, 0.1, 0.8], [0.98, 0.01, 0.01]):
        stopper(ids, torch.tensor([row, [0.1, 0.8, 0.1]]).log())
    assert stopper.best.tolist() == [0, -1]


def test_a_delay_is_not_negative() -> None:
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        LateStopping(0, -1, 1)


def literal_context(tokens: CallTokens, document: Document, sentence: int, window: int) -> list[int]:
    """The text before a sentence from the beginning of its window on, and the sentence marked."""
    text = tokens.text(document.text)
    head, tail = (text.first(character) for character in document.sentence_spans()[sentence])
    start = end = first = 0
    while not start <= head < end:  # windows overlap by half; the sentence belongs where it begins
        start, first = end, max(0, end - window // 2)
        end = first + window
    return [*text.ids[first:head], *tokens.focus_start, *text.ids[head:tail], *tokens.focus_end]


@cache
def keen_predicts(keenness: float, ids: tuple[int, ...]) -> Tensor:
    """What the model with this keenness, which it has now, finds likely."""
    return next_logprobs(trained(60).lm.model, ids)


def literal_call(keenness: float, prompt: Sequence[int], delay: int) -> tuple[str, bool]:
    """What the model with this keenness, which it has now, writes, and whether it closed the call."""
    tokens = trained(60)
    context = [tokens.start, *prompt, *tokens.write_prefix]
    ends, most = {tokens.open, tokens.end}, min(MOST, CONTEXT - len(context))
    ids, closed = literal_rule(partial(keen_predicts, keenness), context, tokens.close, ends, delay, most)
    return tokens.decode([*tokens.write_prefix, *ids, *[tokens.close] * closed]), closed


def check(keenness: float, delays: Sequence[int], window: int, budget: int) -> dict[int, list[str]]:
    """Returns the calls by delay."""
    tokens = trained(60)
    settings = {"window": window, "max_new_tokens": MOST, "max_tokens_per_batch": budget}
    with keen(tokens, tokens.close, keenness):
        by_delay = write_by_delay(tokens.lm, tokens, PAGES, delays, **settings)
        assert set(by_delay) == set(delays)
        for delay, written in by_delay.items():
            check_calls(written, keenness, delay, window)
    return {delay: [call.call for call in written] for delay, written in by_delay.items()}


def check_calls(written: Sequence[SentenceWrite], keenness: float, delay: int, window: int) -> None:
    tokens = trained(60)
    assert [(call.document, call.sentence) for call in written] == [
        (index, number) for index, page in enumerate(PAGES) for number, words in enumerate(page.sentences) if words
    ]
    for call in written:
        prompt = literal_context(tokens, PAGES[call.document], call.sentence, window)
        text, closed = literal_call(keenness, prompt, delay)
        assert call.call == text
        check_parts(call, closed)


def check_parts(call: SentenceWrite, closed: bool) -> None:
    if closed:
        assert parse_write(call.call) == (list(call.triples), list(call.rejected))
    else:
        assert call.triples == ()
        assert [part.text for part in call.rejected] == [call.call]


@pytest.mark.parametrize(("window", "budget"), [(9, 1), (24, 100), (90, 8192)])
def test_sentences_are_written_as_one_by_one(window: int, budget: int) -> None:
    written = [check(keenness, delays, window, budget) for keenness, delays in ((1.5, [5, 0]), (2, [0, 1, 5]))]
    assert {len(calls) for by_delay in written for calls in by_delay.values()} == {1 + 2 * 4 + 3 * 4}
    assert any(by_delay[0] != by_delay[5] for by_delay in written)  # stopping late matters


def test_what_a_model_has_learnt_it_writes() -> None:
    tokens = trained(150)
    written = write_calls(tokens.lm, tokens, [page(3), page(6)], window=100, delay=0)
    right = [triple for call in written for triple in call.triples if triple in triples()]
    assert len(right) >= 4  # of 6
    assert not any(triple.subject == "Rain" for call in written for triple in call.triples)
    assert all(isinstance(triple, Triple) for triple in right)


def test_a_call_that_never_closes_gives_nothing() -> None:
    tokens = trained(150)
    written = write_calls(tokens.lm, tokens, [page(3)], window=100, max_new_tokens=3)
    assert [call.triples for call in written] == [()] * 4
    assert any("expected })" in part.reason for call in written for part in call.rejected)


def test_documents_without_sentences_give_nothing() -> None:
    tokens = trained(60)
    assert write_calls(tokens.lm, tokens, [], window=10) == []
    assert write_calls(tokens.lm, tokens, [page(), Document("Empty", ((), ()))], window=10) == []


def test_a_sentence_that_does_not_fit_is_named() -> None:
    tokens = trained(60)
    long = Document("Long", (("Rain", "is", "wet", "."), ("Rain", *["rain"] * CONTEXT, ".")))
    with pytest.raises(ValueError, match=f"'Long', sentence 1: .* the model's context is {CONTEXT}"):
        write_calls(tokens.lm, tokens, [PAGES[0], long], window=20)
    with pytest.raises(ValueError, match="a window of at least 1 token, got 0"):
        write_calls(tokens.lm, tokens, PAGES, window=0)
