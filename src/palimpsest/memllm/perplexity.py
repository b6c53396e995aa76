"""How well a model that looks things up predicts annotated documents (MemLLM, section 4.1).

At each planned call of a document two futures are weighed: with probability p the model calls, reads the results and
goes on; with 1 - p it goes on as it is. A token x after the call has the probability
``p · p(x | call) + (1 - p) · p(x | no call)``, and p itself is the probability of the call's first token under the same
two futures of the call before: only the last call stays in the context. Where nothing is planned, what the model would
spend on calling is lost to it. So whatever calling costs is charged.

Gold position, query and result replace what the model would do by what the annotation says: p is 1 at planned calls and
calling impossible elsewhere; the planned queries are asked; the planned mention is the only result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from palimpsest.facts import Query
from palimpsest.lm.batching import DEFAULT_TOKENS_PER_BATCH, length_batches, tracked
from palimpsest.lm.load import LanguageModel
from palimpsest.lm.rows import Rows
from palimpsest.lm.scoring import TextLosses, windows
from palimpsest.memllm.calls import ReadCall
from palimpsest.memllm.examples import PlannedCall
from palimpsest.memllm.reading import write_questions
from palimpsest.memllm.tokens import CallTokens, TextTokens

Ask = Callable[[Sequence[Sequence[Query]]], list[list[str]]]
"""What a memory returns to each of several calls, given as their queries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gold:
    """Which parts of a read are taken from the annotation."""

    position: bool = False
    query: bool = False
    result: bool = False


@dataclass(frozen=True)
class Reading:
    """A way of reading: the memory that is asked, and what is given."""

    ask: Ask
    gold: Gold = Gold()


@dataclass(frozen=True, slots=True)
class ScoredCall:
    """What became of a planned call: how probable it was, what was asked, and what came back (nothing: no call)."""

    plan: PlannedCall
    probability: float
    queries: tuple[Query, ...]
    results: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Window:
    """Tokens ``first`` to ``end`` of a document, of which those before ``start`` are context only."""

    document: int
    first: int
    start: int
    end: int
    ids: list[int]
    calls: list[PlannedCall]


Losses = tuple[list[TextLosses], list[list[ScoredCall]]]
"""Of each document: the negative log-likelihoods (nats) of its tokens, and what became of its planned calls."""


def read_losses(
    lm: LanguageModel,
    tokens: CallTokens,
    texts: Sequence[TextTokens],
    calls: Sequence[Sequence[PlannedCall]],
    readings: Sequence[Reading],
    *,
    window: int,
    copied: bool = False,
    max_tokens_per_batch: int = DEFAULT_TOKENS_PER_BATCH,
    progress: bool = False,
) -> list[Losses]:
    """Losses of documents in each of several ways of reading; what these share is computed once.

    Args:
        lm: speaks with its read adapter.
        texts: the documents' tokens; ``calls``: where each could be helped, in order.
        readings: memories, and which parts of a read are given.
        window: tokens of text that the model sees at a time; a longer document is read in windows that overlap by
            half, each token is scored once, and a call is forgotten at the end of its window. A call that does not fit
            into the model's context beside the text up to the next comes to nothing.
        copied: whether what the model asks about must be copied from the text before, see
            :mod:`palimpsest.memllm.copying`.
    """
    if not 1 < window < lm.context_length:
        raise ValueError(f"expected a window of 2 to {lm.context_length - 1} tokens, got {window}")
    parts = [
        _Window(
            index, *span, text.ids[span[0] : span[2]], [call for call in planned if span[1] <= call.place < span[2]]
        )
        for index, (text, planned) in enumerate(zip(texts, calls, strict=True))
        for span in windows(len(text.ids), window, window // 2)
    ]
    batches = length_batches(
        [len(part.ids) for part in parts], max_tokens_per_batch, [1 + len(part.calls) for part in parts]
    )
    scorer, scored = _Scorer(lm, tokens, readings, copied), [_Collected(texts) for _ in readings]
    for batch in tracked(batches, "reading", progress):
        members = [parts[item] for item in batch]
        for collected, results in zip(scored, scorer.score(members), strict=True):
            for part, (losses, records) in zip(members, results, strict=True):
                collected.add(part, losses, records)
    return [collected.sorted() for collected in scored]


class _Collected:
    """The losses of all documents in one way of reading, as their windows come in."""

    def __init__(self, texts: Sequence[TextTokens]) -> None:
        self.texts = texts
        self.losses = [np.zeros(len(text.ids)) for text in texts]
        self.calls: list[list[ScoredCall]] = [[] for _ in texts]

    def add(self, part: _Window, losses: np.ndarray, calls: Sequence[ScoredCall]) -> None:
        self.losses[part.document][part.start : part.end] = losses[part.start - part.first :]
        self.calls[part.document] += calls

    def sorted(self) -> Losses:
        for calls in self.calls:
            calls.sort(key=lambda call: call.plan.place)
        return [
            TextLosses(np.array(text.ids, np.int64), losses, np.array(text.offsets, np.int64).reshape(-1, 2))
            for text, losses in zip(self.texts, self.losses, strict=True)
        ], self.calls


@dataclass
class _Branch:
    """One planned call of a batch, as it is worked out."""

    row: int  # its window
    place: int  # in the window
    following: int  # where the next call of the window, or its end, is
    plan: PlannedCall
    queries: tuple[Query, ...] = ()
    results: tuple[str, ...] = ()
    scores: _Scores | None = None  # with the results in sight, of the tokens up to `following` and of a call there


@dataclass(frozen=True, slots=True)
class _Scores:
    """Log-probabilities (T,) of T tokens; of the same, given that no call begins in their place; of calling there."""

    tokens: Tensor
    silent: Tensor
    opening: Tensor

    def given(self, gold: Gold) -> Tensor:
        """Of the tokens, where calls begin at planned places only if ``gold`` says so."""
        return self.silent if gold.position else self.tokens


class _Scorer:
    def __init__(self, lm: LanguageModel, tokens: CallTokens, readings: Sequence[Reading], copied: bool) -> None:
        self.lm, self.tokens, self.readings, self.copied = lm, tokens, readings, copied

    def score(self, parts: Sequence[_Window]) -> Iterator[list[tuple[np.ndarray, list[ScoredCall]]]]:
        """For each way of reading: losses of each window's tokens, and its calls."""
        chain = Rows(self.lm, len(parts))
        logits = chain.read([[self.tokens.start, *part.ids] for part in parts])
        plain = self._token_scores(logits, [[*part.ids, self.tokens.open] for part in parts])
        planned = [branch for row, part in enumerate(parts) for branch in _branches(row, part)]
        able = [index for index, branch in enumerate(planned) if self._room(branch) >= len(self.tokens.read_prefix)]
        own = {}
        if able and not all(reading.gold.query for reading in self.readings):
            own = dict(zip(able, self._own_questions(chain, parts, [planned[index] for index in able]), strict=True))
        told: dict[tuple, _Branch] = {}
        for reading in self.readings:
            branches = [replace(branch) for branch in planned]
            for index in able:
                branches[index].queries = planned[index].plan.queries if reading.gold.query else own[index]
            self._look_up(branches, reading)
            # Whoever asks the same and is told the same goes on alike.
            keys = [(index, branch.queries, branch.results) for index, branch in enumerate(branches)]
            answered = {key: branch for key, branch in zip(keys, branches, strict=True) if branch.results}
            fresh = {key: branch for key, branch in answered.items() if key not in told}
            self._answer(chain, parts, list(fresh.values()))
            told |= fresh
            branches = [told.get(key, branch) for key, branch in zip(keys, branches, strict=True)]
            yield [
                self._mixed(plain[row], [branch for branch in branches if branch.row == row], reading.gold)
                for row in range(len(parts))
            ]

    def _room(self, branch: _Branch) -> int:
        """How many tokens a call may have."""
        return self.lm.context_length - 1 - branch.following

    def _own_questions(
        self, chain: Rows, parts: Sequence[_Window], branches: Sequence[_Branch]
    ) -> list[tuple[Query, ...]]:
        """What the model asks at each place, without having seen any results; nothing if it is malformed."""
        prefix = self.tokens.read_prefix
        rows = chain.branch([branch.row for branch in branches], [branch.place + 1 for branch in branches])
        logits = rows.read([prefix] * len(rows)).view(len(rows), len(prefix), -1)[:, -1]
        texts = [parts[branch.row].ids[: branch.place] for branch in branches] if self.copied else None
        calls = [call for _, call in write_questions(self.tokens, rows, logits, keep=False, texts=texts)]
        return [call.queries if isinstance(call, ReadCall) else () for call in calls]

    def _look_up(self, branches: Sequence[_Branch], reading: Reading) -> None:
        """Find out what comes back."""
        asked = [branch for branch in branches if branch.queries]
        if reading.gold.result:
            for branch in asked:
                branch.results = (branch.plan.mention.name.strip(),)
        elif asked:
            for branch, names in zip(asked, reading.ask([branch.queries for branch in asked]), strict=True):
                branch.results = tuple(names)

    def _answer(self, chain: Rows, parts: Sequence[_Window], answered: Sequence[_Branch]) -> None:
        """Read question, results and the text up to the next call."""
        live, calls = [], []
        for branch in answered:
            call = self.tokens.queries(branch.queries) + self.tokens.answer(branch.results)
            if len(call) <= self._room(branch):
                live.append(branch)
                calls.append(call)
            else:
                branch.results = ()
        texts = [parts[branch.row].ids[branch.place : branch.following] for branch in live]
        for batch in length_batches([len(call) + len(text) for call, text in zip(calls, texts, strict=True)], 4096):
            members = [live[item] for item in batch]
            rows = chain.branch([branch.row for branch in members], [branch.place + 1 for branch in members])
            logits = rows.read([calls[item] + texts[item] for item in batch])
            counts = [len(texts[item]) + 1 for item in batch]
            ends = np.cumsum([len(calls[item]) + len(texts[item]) for item in batch])
            keep = np.concatenate([np.arange(end - count, end) for end, count in zip(ends, counts, strict=True)])
            wanted = [[*texts[item], self.tokens.open] for item in batch]
            for branch, scores in zip(members, self._token_scores(logits[torch.from_numpy(keep)], wanted), strict=True):
                branch.scores = scores

    def _token_scores(self, logits: Tensor, wanted: Sequence[Sequence[int]]) -> list[_Scores]:
        """Scores of the wanted tokens, row by row; the logits (N, V) that predict them are used up."""
        target = torch.tensor([token for row in wanted for token in row], device=logits.device)
        logits = logits.float()
        chosen, normalizer = logits.gather(1, target[:, None])[:, 0], logits.logsumexp(1)
        opening = logits[:, self.tokens.open] - normalizer
        logits[:, self.tokens.open] = -torch.inf
        silent = chosen - logits.logsumexp(1)
        counts = [len(row) for row in wanted]
        columns = (scores.double().cpu().split(counts) for scores in (chosen - normalizer, silent, opening))
        return [_Scores(*scores) for scores in zip(*columns, strict=True)]

    def _mixed(self, plain: _Scores, branches: Sequence[_Branch], gold: Gold) -> tuple[np.ndarray, list[ScoredCall]]:
        """Weigh both futures of each call."""
        logprobs, records = plain.given(gold)[:-1].clone(), []
        former: tuple[float, float] | None = None  # weight of the call before, and its log-probability of a call here
        for branch in branches:
            calling = float(plain.opening[branch.place].exp())
            if former is not None:
                calling = former[0] * float(np.exp(former[1])) + (1 - former[0]) * calling
            calling = 1.0 if gold.position else calling
            records.append(ScoredCall(branch.plan, calling, branch.queries, branch.results))
            here = slice(branch.place, branch.following)
            alone = logprobs[here].clone()
            alone[0] = plain.silent[branch.place]
            if branch.scores is None:
                logprobs[here], former = alone, None
                continue
            weight = torch.tensor([calling, 1 - calling], dtype=torch.double).log()
            within = branch.scores.given(gold)[:-1]
            logprobs[here] = torch.logaddexp(weight[0] + within, weight[1] + alone)
            former = (calling, float(branch.scores.opening[-1]))
        return -logprobs.numpy(), records


def _branches(row: int, part: _Window) -> list[_Branch]:
    places = [call.place - part.first for call in part.calls]
    following = [*places, part.end - part.first][1:]
    return [_Branch(row, place, after, call) for place, after, call in zip(places, following, part.calls, strict=True)]
