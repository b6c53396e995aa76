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

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from palimpsest.facts import Query
from palimpsest.lm.batching import DEFAULT_TOKENS_PER_BATCH, length_batches, tracked
from palimpsest.lm.load import LanguageModel
from palimpsest.lm.rows import Rows
from palimpsest.lm.scoring import TextLosses, windows
from palimpsest.memllm.calls import Malformed, ReadCall
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


def read_losses(
    lm: LanguageModel,
    tokens: CallTokens,
    texts: Sequence[TextTokens],
    calls: Sequence[Sequence[PlannedCall]],
    ask: Ask,
    gold: Gold,
    *,
    window: int,
    max_tokens_per_batch: int = DEFAULT_TOKENS_PER_BATCH,
    progress: bool = False,
) -> tuple[list[TextLosses], list[list[ScoredCall]]]:
    """Per-token negative log-likelihoods (nats) of documents, and what became of their planned calls.

    Args:
        lm: speaks with its read adapter.
        texts: the documents' tokens; ``calls``: where each could be helped, in order.
        ask: the memory.
        gold: which parts of a read are given.
        window: tokens of text that the model sees at a time; a longer document is read in windows that overlap by
            half, each token is scored once, and a call is forgotten at the end of its window. A call that does not fit
            into the model's context beside the text up to the next comes to nothing.
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
    losses = [np.zeros(len(text.ids)) for text in texts]
    scored: list[list[ScoredCall]] = [[] for _ in texts]
    batches = length_batches(
        [len(part.ids) for part in parts], max_tokens_per_batch, [1 + len(part.calls) for part in parts]
    )
    scorer = _Scorer(lm, tokens, ask, gold)
    for batch in tracked(batches, "reading", progress):
        for item, (values, records) in zip(batch, scorer.score([parts[item] for item in batch]), strict=True):
            part = parts[item]
            losses[part.document][part.start : part.end] = values[part.start - part.first :]
            scored[part.document] += records
    for records in scored:
        records.sort(key=lambda record: record.plan.place)
    return [
        TextLosses(np.array(text.ids, np.int64), loss, np.array(text.offsets, np.int64).reshape(-1, 2))
        for text, loss in zip(texts, losses, strict=True)
    ], scored


@dataclass
class _Branch:
    """One planned call of a batch, as it is worked out."""

    row: int  # its window
    place: int  # in the window
    following: int  # where the next call of the window, or its end, is
    plan: PlannedCall
    queries: tuple[Query, ...] = ()
    results: tuple[str, ...] = ()
    logprobs: Tensor | None = None  # with the results in sight, of the tokens up to `following`
    opening: float = 0.0  # log-probability of a call at `following`, with the results in sight


@dataclass(frozen=True, slots=True)
class _Scores:
    """Log-probabilities (T,) of T tokens; of the same, given that no call begins in their place; of calling there."""

    tokens: Tensor
    silent: Tensor
    opening: Tensor


class _Scorer:
    def __init__(self, lm: LanguageModel, tokens: CallTokens, ask: Ask, gold: Gold) -> None:
        self.lm, self.tokens, self.ask, self.gold = lm, tokens, ask, gold

    def score(self, parts: Sequence[_Window]) -> list[tuple[np.ndarray, list[ScoredCall]]]:
        """Losses of each window's tokens, and its calls."""
        chain = Rows(self.lm, len(parts))
        logits = chain.read([[self.tokens.start, *part.ids] for part in parts])
        plain = self._token_scores(logits, [[*part.ids, self.tokens.open] for part in parts])
        branches = [branch for row, part in enumerate(parts) for branch in _branches(row, part)]
        able = [branch for branch in branches if self._room(branch) >= len(self.tokens.read_prefix)]
        if able:
            self._question(chain, able)
            self._answer(chain, parts, [branch for branch in able if branch.results])
        return [
            self._mixed(plain[row], [branch for branch in branches if branch.row == row]) for row in range(len(parts))
        ]

    def _room(self, branch: _Branch) -> int:
        """How many tokens a call may have."""
        return self.lm.context_length - 1 - branch.following

    def _question(self, chain: Rows, branches: Sequence[_Branch]) -> None:
        """Find out what each call asks and what comes back."""
        if self.gold.query:
            for branch in branches:
                branch.queries = branch.plan.queries
        else:
            for branch, call in zip(branches, self._own_questions(chain, branches), strict=True):
                branch.queries = call.queries if isinstance(call, ReadCall) else ()
        asked = [branch for branch in branches if branch.queries]
        if self.gold.result:
            for branch in asked:
                branch.results = (branch.plan.mention.name.strip(),)
        else:
            for branch, names in zip(asked, self.ask([branch.queries for branch in asked]), strict=True):
                branch.results = tuple(names)

    def _own_questions(self, chain: Rows, branches: Sequence[_Branch]) -> list[ReadCall | Malformed]:
        prefix = self.tokens.read_prefix
        rows = chain.branch([branch.row for branch in branches], [branch.place + 1 for branch in branches])
        logits = rows.read([prefix] * len(rows)).view(len(rows), len(prefix), -1)[:, -1]
        return [call for _, call in write_questions(self.tokens, rows, logits, keep=False)]

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
                branch.logprobs, branch.opening = scores.tokens[:-1], float(scores.opening[-1])

    def _token_scores(self, logits: Tensor, wanted: Sequence[Sequence[int]]) -> list[_Scores]:
        """Scores of the wanted tokens, row by row; the logits (N, V) that predict them are used up."""
        target = torch.tensor([token for row in wanted for token in row], device=logits.device)
        logits = logits.float()
        chosen, normalizer = logits.gather(1, target[:, None])[:, 0], logits.logsumexp(1)
        opening = logits[:, self.tokens.open] - normalizer
        logits[:, self.tokens.open] = -torch.inf
        silent = chosen - logits.logsumexp(1)
        tokens = silent if self.gold.position else chosen - normalizer
        counts = [len(row) for row in wanted]
        columns = (scores.double().cpu().split(counts) for scores in (tokens, silent, opening))
        return [_Scores(*scores) for scores in zip(*columns, strict=True)]

    def _mixed(self, plain: _Scores, branches: Sequence[_Branch]) -> tuple[np.ndarray, list[ScoredCall]]:
        """Weigh both futures of each call."""
        logprobs, records = plain.tokens[:-1].clone(), []
        former: tuple[float, float] | None = None  # weight of the call before, and its log-probability of a call here
        for branch in branches:
            calling = float(plain.opening[branch.place].exp())
            if former is not None:
                calling = former[0] * float(np.exp(former[1])) + (1 - former[0]) * calling
            calling = 1.0 if self.gold.position else calling
            records.append(ScoredCall(branch.plan, calling, branch.queries, branch.results))
            here = slice(branch.place, branch.following)
            alone = plain.tokens[here].clone()
            alone[0] = plain.silent[branch.place]
            if branch.logprobs is None:
                logprobs[here], former = alone, None
                continue
            weight = torch.tensor([calling, 1 - calling], dtype=torch.double).log()
            logprobs[here] = torch.logaddexp(weight[0] + branch.logprobs, weight[1] + alone)
            former = (calling, branch.opening)
        return -logprobs.numpy(), records


def _branches(row: int, part: _Window) -> list[_Branch]:
    places = [call.place - part.first for call in part.calls]
    following = [*places, part.end - part.first][1:]
    return [_Branch(row, place, after, call) for place, after, call in zip(places, following, part.calls, strict=True)]
