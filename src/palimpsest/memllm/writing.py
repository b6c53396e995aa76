"""Reading documents into a memory: sentence by sentence, what a sentence states becomes a write call's triples."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from palimpsest.facts import Document, Triple
from palimpsest.lm.batching import DEFAULT_TOKENS_PER_BATCH, length_batches, tracked
from palimpsest.lm.load import LanguageModel
from palimpsest.lm.rows import Rows, continue_greedily
from palimpsest.lm.scoring import windows
from palimpsest.memllm.calls import CLOSE, Malformed, parse_write
from palimpsest.memllm.copying import CopiedNames
from palimpsest.memllm.tokens import CallTokens

STOPPING_DELAY = 5
MAX_NEW_TOKENS = 256


class LateStopping(LogitsProcessor):
    """Greedy decoding that does not take the first chance to end a call (MemLLM, section 3.3).

    Models close a call too early. When the closing marker wins, the point and the mean log-probability of the call that
    would end there are remembered, the marker is forbidden, and decoding goes on with the second choice; once the best
    point lies ``delay`` points back, the marker is let through. The call is then to be cut at :attr:`best`. A delay of
    0 lets the first marker through. Up to where it ends a call with a shorter delay is the same, so where it would be
    cut is known as well: :meth:`cut`.

    For ``generate`` (greedy; all rows every time), or :meth:`step` by step for rows that leave the batch. ``ends`` are
    the other tokens with which a row ends: ``generate`` goes on calling for rows that are over, which change nothing.
    """

    def __init__(self, close: int, delay: int, rows: int, ends: Collection[int] = ()) -> None:
        if delay < 0:
            raise ValueError(f"the stopping delay must not be negative, got {delay}")
        self.close, self.delay, self.ends = close, delay, torch.tensor(list(ends), dtype=torch.long)
        self.best = torch.full((rows,), -1)
        """How many tokens the best call of each row has before its closing marker; -1: it never closed."""
        self.best_mean = torch.full((rows,), -torch.inf, dtype=torch.double)
        """The mean log-probability, in nats a token, of that call."""
        self._points: list[list[tuple[int, float]]] = [[] for _ in range(rows)]  # each as best and its mean
        self._since = torch.zeros(rows, dtype=torch.long)  # points from the best one on, itself included
        self._total = torch.zeros(rows, dtype=torch.double)  # log-probability of the tokens so far
        self._count = torch.zeros(rows, dtype=torch.long)
        self._over = torch.zeros(rows, dtype=torch.bool)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return self.step(torch.arange(len(scores)), scores)

    def step(self, rows: Tensor, scores: Tensor, allowed: Tensor | None = None) -> Tensor:
        """Logits (R, V) of some rows with the marker forbidden where decoding is to go on; the best is then taken.

        ``allowed`` are the same logits where some other tokens are forbidden as well (minus infinity). What is taken is
        one of those; how probable it is, is told by ``scores``.
        """
        logprobs, scores = scores.float().log_softmax(-1), scores if allowed is None else allowed
        closing = (scores.argmax(-1).cpu() == self.close) & ~self._over[rows]
        ending = closing & (self._since[rows] >= self.delay)
        first = ending & (self.best[rows] < 0)  # a delay of 0
        point = (closing & ~ending) | first
        mean = (self._total[rows] + logprobs[:, self.close].double().cpu()) / (self._count[rows] + 1)
        for row, count, value in zip(
            rows[point].tolist(), self._count[rows[point]].tolist(), mean[point].tolist(), strict=True
        ):
            self._points[row].append((count, value))
        better = point & (mean > self.best_mean[rows])
        self._since[rows[point & ~better]] += 1
        for state, value in ((self.best_mean, mean[better]), (self.best, self._count[rows[better]]), (self._since, 1)):
            state[rows[better]] = value
        scores = scores.clone()
        scores[(closing & ~ending).to(scores.device), self.close] = -torch.inf
        chosen = scores.argmax(-1)
        self._total[rows] += logprobs.gather(1, chosen[:, None])[:, 0].double().cpu()
        self._count[rows] += 1
        self._over[rows] |= torch.isin(chosen.cpu(), self.ends)
        return scores

    def cut(self, row: int, delay: int) -> tuple[int, float]:
        """What :attr:`best` and :attr:`best_mean` of a row would be with a delay that is not longer."""
        best, best_mean, since = -1, -float("inf"), 0
        for count, mean in self._points[row]:
            if best >= 0 and since >= delay:
                break
            best, best_mean, since = (count, mean, 1) if mean > best_mean else (best, best_mean, since + 1)
        return best, best_mean


@dataclass(frozen=True, slots=True)
class SentenceWrite:
    """What a sentence gave: the call as generated, its triples, and its parts that were none.

    ``confidence`` is the mean log-probability of the call's tokens, in nats; minus infinity if it did not end.
    """

    document: int
    sentence: int
    call: str
    triples: tuple[Triple, ...]
    rejected: tuple[Malformed, ...]
    confidence: float = 0.0


def confident(writes: Sequence[SentenceWrite], least: float | None) -> list[SentenceWrite]:
    """The same, without the triples of calls whose confidence is below ``least``: what is unsure is not stored."""
    if least is None:
        return list(writes)
    return [write if write.confidence >= least else replace(write, triples=()) for write in writes]


def write_calls(
    lm: LanguageModel,
    tokens: CallTokens,
    documents: Sequence[Document],
    *,
    delay: int = STOPPING_DELAY,
    **settings: Any,
) -> list[SentenceWrite]:
    """The write call of every sentence of documents, in text order; see :func:`write_by_delay`."""
    return write_by_delay(lm, tokens, documents, [delay], **settings)[delay]


def write_by_delay(
    lm: LanguageModel,
    tokens: CallTokens,
    documents: Sequence[Document],
    delays: Collection[int],
    *,
    window: int,
    copied: bool = False,
    max_new_tokens: int = MAX_NEW_TOKENS,
    max_tokens_per_batch: int = DEFAULT_TOKENS_PER_BATCH,
    progress: bool = False,
) -> dict[int, list[SentenceWrite]]:
    """The write calls of all sentences of documents, in text order, with each of several stopping delays.

    Each document is read once; its sentences branch off from it. Calls are written once, with the longest delay, and
    cut as each of them says.

    Args:
        lm: speaks with its write adapter.
        delays: see :class:`LateStopping`.
        window: tokens of text before a sentence that the model sees at the most.
        copied: whether subjects and objects must be copied from what the model sees of the text, see
            :mod:`palimpsest.memllm.copying`.
        max_new_tokens: a call that has not closed by then is given up.

    Raises:
        ValueError: a sentence, with the text before it, does not fit into the model's context; or the window is empty.
    """
    if window < 1:
        raise ValueError(f"expected a window of at least 1 token, got {window}")
    parts = [part for index, document in enumerate(documents) for part in _parts(index, document, tokens, window)]
    for part in parts:
        for number, place, prompt in zip(part.sentences, part.places, part.prompts, strict=True):
            if (length := 1 + place + len(prompt)) > lm.context_length:
                raise ValueError(
                    f"{documents[part.document].title!r}, sentence {number}: {length} tokens with the text before it, "
                    f"but the model's context is {lm.context_length}; a smaller window than {window} may help"
                )
    written: dict[int, list[SentenceWrite]] = {delay: [] for delay in delays}
    sizes = [len(part.context) + sum(map(len, part.prompts)) for part in parts]
    for batch in tracked(length_batches(sizes, max_tokens_per_batch), "writing", progress):
        members = [parts[item] for item in batch]
        for delay, calls in _write_batch(lm, tokens, members, delays, copied, max_new_tokens).items():
            written[delay] += calls
    return {delay: sorted(calls, key=lambda call: (call.document, call.sentence)) for delay, calls in written.items()}


@dataclass(frozen=True, slots=True)
class _Part:
    """A window of a document: its tokens, and where the sentences that start in it stand, with what is read there."""

    document: int
    context: list[int]
    sentences: list[int]
    places: list[int]
    prompts: list[list[int]]
    ends: list[int]
    text: list[int]

    def seen(self, item: int) -> list[int]:
        """The tokens of the text up to the end of a sentence."""
        return self.text[: self.ends[item]]


def _parts(index: int, document: Document, tokens: CallTokens, window: int) -> list[_Part]:
    text = tokens.text(document.text)
    spans = [(text.first(start), text.first(end)) for start, end in document.sentence_spans()]
    parts = []
    for first, start, end in windows(len(text.ids), window, window // 2):
        chosen = [number for number, (head, tail) in enumerate(spans) if start <= head < end and head < tail]
        prompts = [
            [*tokens.focus_start, *text.ids[head:tail], *tokens.focus_end, *tokens.write_prefix]
            for head, tail in (spans[number] for number in chosen)
        ]
        places = [spans[number][0] - first for number in chosen]
        if chosen:
            ends, whole = [spans[number][1] - first for number in chosen], text.ids[first:]
            parts.append(_Part(index, whole[: max(places)], chosen, places, prompts, ends, whole[: max(ends)]))
    return parts


def _write_batch(
    lm: LanguageModel,
    tokens: CallTokens,
    parts: Sequence[_Part],
    delays: Collection[int],
    copied: bool,
    max_new_tokens: int,
) -> dict[int, list[SentenceWrite]]:
    chain = Rows(lm, len(parts))
    chain.read([[tokens.start, *part.context] for part in parts])
    sentences = [(row, item) for row, part in enumerate(parts) for item in range(len(part.sentences))]
    rows = chain.branch([row for row, _ in sentences], [1 + parts[row].places[item] for row, item in sentences])
    prompts = [parts[row].prompts[item] for row, item in sentences]
    ends = torch.tensor([len(prompt) for prompt in prompts]).cumsum(0) - 1
    logits = rows.read(prompts)[ends]
    stopper = LateStopping(tokens.close, max(delays), len(rows))
    names = CopiedNames(tokens, [parts[row].seen(item) for row, item in sentences]) if copied else None

    def choose(live: list[int], logits: Tensor) -> Tensor:
        allowed = names.restrict(live, logits) if names else None
        chosen = stopper.step(torch.tensor(live), logits, allowed).argmax(1)
        if names:
            names.add(live, chosen.tolist())
        return chosen

    ids = continue_greedily(
        rows,
        logits,
        stop={tokens.close, tokens.open, tokens.end},
        max_new_tokens=max_new_tokens,
        choose=choose,
        keep=False,
    )
    places = [(parts[row].document, parts[row].sentences[item]) for row, item in sentences]
    return {
        delay: [
            _sentence_write(tokens, *place, generated, *stopper.cut(row, delay))
            for row, (place, generated) in enumerate(zip(places, ids, strict=True))
        ]
        for delay in delays
    }


def _sentence_write(
    tokens: CallTokens, document: int, sentence: int, generated: Sequence[int], best: int, mean: float
) -> SentenceWrite:
    """What was generated, cut at its best point, if it has one."""
    closed = [*generated[:best], tokens.close] if best >= 0 else generated
    call = tokens.decode([*tokens.write_prefix, *closed])
    parsed = parse_write(call) if best >= 0 else Malformed(call, f"expected {CLOSE} in the end")
    triples, rejected = ([], [parsed]) if isinstance(parsed, Malformed) else parsed
    return SentenceWrite(document, sentence, call, tuple(triples), tuple(rejected), mean)
