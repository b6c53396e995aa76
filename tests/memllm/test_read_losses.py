"""Losses of a model that looks things up, against a literal computation: segment by segment, uncached, one row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
import pytest
import torch
from support import keen, page, plain_logits, plain_question, plan, remembered, trained

from palimpsest.facts import Query
from palimpsest.lm.load import LanguageModel
from palimpsest.lm.scoring import token_losses
from palimpsest.memllm.calls import ReadCall, parse_read
from palimpsest.memllm.examples import PlannedCall
from palimpsest.memllm.perplexity import Gold, Reading, ScoredCall, read_losses
from palimpsest.memllm.tokens import CallTokens

TOLERANCE = 1e-4
GOLDS = [Gold(position=p, query=q, result=r) for p, q, r in product([False, True], repeat=3)]
PAGES = [page(0, sentences=0), page(1, sentences=1), page(2), page(3, 4), page(5, sentences=2), page(6, 0, 1, 7)]
HALF_TRAINED = (40, 60)  # steps: calling is neither certain nor impossible, and some questions are well-formed


def answers(queries: Sequence[Query]) -> list[str]:
    """A memory that has forgotten some things and makes up others."""
    if len(queries[0].entity) % 2:
        return []
    return remembered(queries) or ["Lima", "Bo Tan"][: len(queries[0].relation) % 3]


def ask(calls: Sequence[Sequence[Query]]) -> list[list[str]]:
    return [answers(queries) for queries in calls]


@cache
def own_queries(tokens: CallTokens, before: tuple[int, ...]) -> tuple[Query, ...]:
    """What the model asks after some text, if it is well-formed."""
    written = plain_question(tokens, [tokens.start, *before, *tokens.read_prefix])
    call = parse_read(tokens.decode([*tokens.read_prefix, *written]))
    return call.queries if isinstance(call, ReadCall) and written[-1] == tokens.results else ()


class Literal:
    """The computation in plain steps, for one document that fits into a window."""

    def __init__(self, tokens: CallTokens, ids: list[int], calls: Sequence[PlannedCall], gold: Gold) -> None:
        self.tokens, self.ids, self.gold = tokens, ids, gold
        self.losses: list[float] = []
        self.calls: list[ScoredCall] = []
        places = [call.place for call in calls]
        *losses, opening = self.negative_logs([], ids[: [*places, len(ids)][0]])
        self.losses += losses
        for call, end in zip(calls, [*places, len(ids)][1:], strict=True):
            opening = self.add(call, end, opening)

    def add(self, call: PlannedCall, end: int, opening: float) -> float:
        """Score the text from a call to the next; ``opening`` is the loss of beginning a call, here and in the end."""
        before, text = self.ids[: call.place], self.ids[call.place : end]
        probability = 1.0 if self.gold.position else float(np.exp(-opening))
        without = self.negative_logs(before, text, no_call_first=True)
        queries = call.queries if self.gold.query else own_queries(self.tokens, tuple(before))
        results = [call.mention.name] if self.gold.result else answers(queries) if queries else []
        results = results if queries else []
        looked_up = [*self.tokens.queries(queries), *self.tokens.answer(results)] if results else []
        if 1 + len(before) + len(looked_up) + len(text) > self.tokens.lm.context_length:
            results = []
        self.calls.append(ScoredCall(call, probability, queries if self.fits(end) else (), tuple(results)))
        if not results:
            *losses, opening = without
        else:
            within = self.negative_logs([*before, *looked_up], text)
            *losses, opening = (
                -np.log(probability * np.exp(-one) + (1 - probability) * np.exp(-other))
                for one, other in zip(within, without, strict=True)
            )
        self.losses += losses
        return opening

    def fits(self, end: int) -> bool:
        return 1 + end + len(self.tokens.read_prefix) <= self.tokens.lm.context_length

    def negative_logs(self, context: list[int], text: list[int], no_call_first: bool = False) -> list[float]:
        """Of each token of a text after a context, and in the end of a call."""
        logits = plain_logits(self.tokens.lm.model, [self.tokens.start, *context, *text])[len(context) :]
        wanted = torch.tensor([*text, self.tokens.open])
        opening = logits.log_softmax(-1)[-1, self.tokens.open].item()
        if self.gold.position:
            logits[:, self.tokens.open] = -torch.inf
        if no_call_first:
            logits[0, self.tokens.open] = -torch.inf
        losses = -logits.log_softmax(-1)[torch.arange(len(wanted)), wanted]
        return [*losses[:-1].tolist(), -opening]


def literal_windows(
    tokens: CallTokens, ids: list[int], calls: Sequence[PlannedCall], gold: Gold, window: int
) -> tuple[list[float], list[ScoredCall]]:
    """Each window overlaps the one before by half, and knows only the calls in its own new part."""
    losses: list[float] = []
    scored: list[ScoredCall] = []
    while len(losses) < len(ids):
        start = len(losses)
        first = max(0, start - window // 2)
        end = min(len(ids), first + window)
        own = [replace(call, place=call.place - first) for call in calls if start <= call.place < end]
        part = Literal(tokens, ids[first:end], own, gold)
        losses += part.losses[start - first :]
        scored += [replace(call, plan=replace(call.plan, place=call.plan.place + first)) for call in part.calls]
    return losses, scored


def check(tokens: CallTokens, gold: Gold, window: int, *budgets: int) -> list[list[ScoredCall]]:
    """All pages score as in the literal computation, in batches of any size."""
    texts, calls = [tokens.text(document.text) for document in PAGES], [plan(tokens, document) for document in PAGES]
    expected = [
        literal_windows(tokens, text.ids, planned, gold, window) for text, planned in zip(texts, calls, strict=True)
    ]
    for budget in budgets:
        ((losses, scored),) = read_losses(
            tokens.lm, tokens, texts, calls, [Reading(ask, gold)], window=window, max_tokens_per_batch=budget
        )
        for text, loss, made, (literal, literal_calls) in zip(texts, losses, scored, expected, strict=True):
            assert loss.token_ids.tolist() == text.ids
            assert loss.offsets.tolist() == [list(span) for span in text.offsets]
            assert loss.losses == pytest.approx(np.array(literal), abs=TOLERANCE)
            assert [call.probability for call in made] == pytest.approx(
                [call.probability for call in literal_calls], abs=TOLERANCE
            )
            assert [replace(call, probability=0) for call in made] == [
                replace(call, probability=0) for call in literal_calls
            ]
    return scored


@pytest.mark.parametrize("gold", GOLDS, ids=str)
def test_documents_score_as_in_the_literal_computation(gold: Gold) -> None:
    made: list[ScoredCall] = []
    for steps in HALF_TRAINED:
        scored = check(trained(steps), gold, 120, 500)
        assert [len(calls) for calls in scored] == [0, 1, 3, 6, 2, 12]
        made += [call for calls in scored for call in calls]
    outcomes = {(bool(call.queries), bool(call.results)) for call in made}
    assert (True, True) in outcomes
    assert ((False, False) in outcomes) == (not gold.query)
    assert not gold.query or ((True, False) in outcomes) == (not gold.result)
    uncertain = any(0.05 < call.probability < 0.95 and (call.results or not gold.query) for call in made)
    assert uncertain == (not gold.position)


def test_several_ways_of_reading_are_scored_as_each_alone() -> None:
    tokens = trained(HALF_TRAINED[1])
    texts, calls = [tokens.text(document.text) for document in PAGES], [plan(tokens, document) for document in PAGES]
    forgetful = Reading(lambda calls: [[] for _ in calls])
    readings = [Reading(ask, gold) for gold in GOLDS] + [forgetful]
    together = read_losses(tokens.lm, tokens, texts, calls, readings, window=120)
    for reading, (losses, made) in zip(readings, together, strict=True):
        ((alone, made_alone),) = read_losses(tokens.lm, tokens, texts, calls, [reading], window=120)
        for calls_made, calls_alone in zip(made, made_alone, strict=True):
            for call, other in zip(calls_made, calls_alone, strict=True):
                assert call.probability == pytest.approx(other.probability, rel=1e-5)
                assert replace(call, probability=other.probability) == other
        for loss, loss_alone in zip(losses, alone, strict=True):
            assert loss.losses == pytest.approx(loss_alone.losses, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("gold", [GOLDS[0], GOLDS[2], GOLDS[5]], ids=str)
@pytest.mark.parametrize("window", [7, 21, 64])
def test_long_documents_are_read_in_windows_whatever_the_batch(window: int, gold: Gold) -> None:
    check(trained(HALF_TRAINED[1]), gold, window, 1, 200)


@pytest.mark.parametrize("gold", [GOLDS[0], GOLDS[2]], ids=str)
def test_a_call_for_which_there_is_no_room_comes_to_nothing(gold: Gold) -> None:
    tokens = trained(HALF_TRAINED[1])
    for room in (1, 20):
        narrow = CallTokens(LanguageModel(tokens.lm.model, tokens.tokenizer, context_limit=40 + room), tokens.spaced)
        check(narrow, gold, 40, 1, 8192)


def test_a_text_without_calls_loses_what_the_model_would_spend_on_calling() -> None:
    tokens = trained(HALF_TRAINED[0])
    text = PAGES[4].text
    for window in (12, 100):
        (expected,) = token_losses(tokens.lm, [text], window=window)
        readings = [Reading(ask), Reading(ask, Gold(position=True))]
        ((plain,), _), ((silent,), _) = read_losses(
            tokens.lm, tokens, [tokens.text(text)], [[]], readings, window=window
        )
        assert plain.losses == pytest.approx(expected.losses, abs=TOLERANCE)
        if window == 100:
            calling = plain_logits(tokens.lm.model, [tokens.start, *tokens.text(text).ids]).softmax(-1)[
                :-1, tokens.open
            ]
            assert calling.max() > 0.3
            assert silent.losses == pytest.approx(expected.losses + np.log1p(-calling.numpy()), abs=TOLERANCE)


def test_a_certain_call_that_comes_to_nothing_costs_nothing() -> None:
    """Even where hardly any probability is left to going on without it."""
    tokens = trained(HALF_TRAINED[0])
    text, calls = tokens.text(PAGES[1].text), plan(tokens, PAGES[1])
    with keen(tokens, tokens.open, 4):
        reading = Reading(lambda calls: [[] for _ in calls], Gold(query=True))
        (((losses,), ((call,),)),) = read_losses(tokens.lm, tokens, [text], [calls], [reading], window=100)
        logits = plain_logits(tokens.lm.model, [tokens.start, *text.ids])[call.plan.place]
    assert call.probability > 1 - 1e-6
    logits[tokens.open] = -torch.inf
    expected = -logits.log_softmax(-1)[text.ids[call.plan.place]].item()
    assert losses.losses[call.plan.place] == pytest.approx(expected, abs=TOLERANCE)


def test_nothing_to_score() -> None:
    tokens = trained(HALF_TRAINED[0])
    assert read_losses(tokens.lm, tokens, [], [], [Reading(ask)], window=10) == [([], [])]
    assert read_losses(tokens.lm, tokens, [tokens.text("")], [[]], [], window=10) == []
    (((empty,), calls),) = read_losses(tokens.lm, tokens, [tokens.text("")], [[]], [Reading(ask)], window=10)
    assert (len(empty.losses), empty.offsets.shape, calls) == (0, (0, 2), [[]])


@pytest.mark.parametrize("window", [-3, 1, 160])
def test_a_window_must_fit_the_context(window: int) -> None:
    tokens = trained(HALF_TRAINED[0])
    with pytest.raises(ValueError, match=f"expected a window of 2 to 159 tokens, got {window}"):
        read_losses(tokens.lm, tokens, [], [], [Reading(ask)], window=window)
