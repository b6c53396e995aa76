"""Log-probabilities of given continuations and texts: what every experiment measures with.

One engine, :func:`score_ids`, serves all. It sorts requests by length, fills batches up to a token budget, computes
logits only where a token is scored, and encodes a prompt once that is asked with several targets.

No row is padded on the left: rows of a batch share a prefix *length*, and the rest is padded on the right, where causal
attention cannot see it. So neither mask nor positions are passed, results do not depend on the batch, and it
holds for every architecture: learned, rotary or ALiBi positions, full or sliding attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from palimpsest.lm.batching import DEFAULT_TOKENS_PER_BATCH, length_batches, padded, tracked
from palimpsest.lm.load import LanguageModel
from palimpsest.lm.prompts import Overflow, encode_targets, fit_context

PROJECTED_ROWS = 1024  # rows of V logits normalised at a time in float32


@dataclass(frozen=True, slots=True)
class TargetScore:
    """How a model scores one target after its prompt; one entry per target token in each tuple."""

    token_ids: tuple[int, ...]
    token_logprobs: tuple[float, ...]
    """Natural-log probability of each token, given the prompt and the target's earlier tokens."""
    greedy: tuple[bool, ...]
    """Whether each token was the most probable one in its place (teacher forcing)."""

    @property
    def logprob(self) -> float:
        """Log-probability of the whole target, in nats."""
        return sum(self.token_logprobs)

    @property
    def token_accuracy(self) -> float:
        """Share of the target's tokens that were the most probable in their place."""
        return sum(self.greedy) / len(self.greedy)


@dataclass(frozen=True, eq=False)
class TextLosses:
    """Per-token losses of one text of T tokens."""

    token_ids: np.ndarray
    """(T,) int64."""
    losses: np.ndarray
    """(T,) float64: negative log-likelihood of each token, in nats."""
    offsets: np.ndarray
    """(T, 2) int64: the characters ``start`` to ``end`` (exclusive) of the text that each token covers."""

    def overlapping(self, start: int, end: int) -> np.ndarray:
        """Mask (T,) of the tokens that cover any of the characters ``start`` to ``end`` (exclusive)."""
        return np.maximum(self.offsets[:, 0], start) < np.minimum(self.offsets[:, 1], end)


def score_targets(
    lm: LanguageModel,
    prompts: Sequence[str],
    targets: Sequence[str],
    *,
    max_tokens_per_batch: int = DEFAULT_TOKENS_PER_BATCH,
    overflow: Overflow = "error",
    progress: bool = False,
) -> list[TargetScore]:
    """Score each target as the continuation of its prompt.

    How the two become tokens is told by :func:`palimpsest.lm.prompts.encode_targets`. A BOS precedes the prompt as
    ``lm.add_bos`` says; an empty prompt is at least BOS or EOS.

    Args:
        overflow: what to do with a prompt that does not fit the model's context together with its target:
            an error, or drop the prompt's oldest tokens (a BOS stays).

    Raises:
        ValueError: lengths differ, a target is empty (names its index), or something does not fit the context.
    """
    if len(prompts) != len(targets):
        raise ValueError(f"{len(prompts)} prompts but {len(targets)} targets")
    return score_ids(
        lm,
        lm.encode_prompts(prompts),
        encode_targets(lm, prompts, targets),
        max_tokens_per_batch=max_tokens_per_batch,
        overflow=overflow,
        progress=progress,
    )


@torch.no_grad()
def score_ids(
    lm: LanguageModel,
    contexts: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
    *,
    max_tokens_per_batch: int = DEFAULT_TOKENS_PER_BATCH,
    overflow: Overflow = "error",
    progress: bool = False,
) -> list[TargetScore]:
    """Score token ids given as pairs of context and target, neither of them empty; see :func:`score_targets`."""
    if lm.model.training:
        raise ValueError("the model is in training mode, where dropout would change its scores: call model.eval()")
    fitted = [
        fit_context(lm, context, len(target), index, overflow)
        for index, (context, target) in enumerate(zip(contexts, targets, strict=True))
    ]
    groups = _groups(fitted, targets, max_tokens_per_batch)
    lengths = [max(len(fitted[i]) + len(targets[i]) - 1 for i in group) for group in groups]
    # Groups that share a prefix run apart from single rows, which need no cache.
    singles = [g for g, group in enumerate(groups) if len(group) == 1]
    shared = [g for g, group in enumerate(groups) if len(group) > 1]
    batches = [
        [kind[position] for position in batch]
        for kind in (singles, shared)
        for batch in length_batches([lengths[g] for g in kind], max_tokens_per_batch, [len(groups[g]) for g in kind])
    ]
    scores: dict[int, TargetScore] = {}
    for batch in tracked(batches, "scoring", progress):
        scores |= _score_batch(lm, [groups[g] for g in batch], fitted, targets)
    return [scores[index] for index in range(len(targets))]


def token_losses(
    lm: LanguageModel,
    texts: Sequence[str],
    *,
    window: int | None = None,
    overlap: int | None = None,
    max_tokens_per_batch: int = DEFAULT_TOKENS_PER_BATCH,
    progress: bool = False,
) -> list[TextLosses]:
    """Per-token negative log-likelihoods of texts of any length.

    The first token's context is BOS or, in models that have none, EOS, which separates documents in training. A text
    longer than ``window`` is read in windows that each open with that same token and repeat the last ``overlap``
    tokens of the one before as context only: each token is scored once, and none past the first window sees fewer than
    ``overlap`` tokens of text before it.

    Args:
        window: tokens the model sees at a time, the opening one included; its whole context if not given.
        overlap: tokens of context repeated from the window before; half a window if not given.
    """
    window = lm.context_length if window is None else window
    overlap = window // 2 if overlap is None else overlap
    if not 0 <= overlap < window <= lm.context_length:
        raise ValueError(
            f"expected 0 <= overlap < window <= {lm.context_length} tokens, got window {window} and overlap {overlap}"
        )
    if not texts:
        return []
    encoded = lm.tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    spans = [(text, *span) for text, ids in enumerate(encoded.input_ids) for span in windows(len(ids), window, overlap)]
    scores = score_ids(
        lm,
        [[lm.start_id, *encoded.input_ids[text][first:start]] for text, first, start, _ in spans],
        [encoded.input_ids[text][start:end] for text, _, start, end in spans],
        max_tokens_per_batch=max_tokens_per_batch,
        progress=progress,
    )
    losses = [np.zeros(len(ids)) for ids in encoded.input_ids]
    for (text, _, start, end), score in zip(spans, scores, strict=True):
        losses[text][start:end] = np.negative(score.token_logprobs)
    return [
        TextLosses(np.array(ids, dtype=np.int64), loss, np.array(offsets, dtype=np.int64).reshape(-1, 2))
        for ids, loss, offsets in zip(encoded.input_ids, losses, encoded.offset_mapping, strict=True)
    ]


def windows(length: int, window: int, overlap: int) -> list[tuple[int, int, int]]:
    """``(first, start, end)`` triples: read tokens from ``first``, score ``start`` to ``end`` (exclusive)."""
    spans = [(0, 0, min(length, window))] if length else []
    while spans and (start := spans[-1][2]) < length:
        first = start - overlap
        spans.append((first, start, min(length, first + window)))
    return spans


def _groups(contexts: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], max_tokens: int) -> list[list[int]]:
    """Requests that are scored from one encoding of their common context; all others are groups of one.

    Sharing costs a second forward pass. It pays where the context outweighs the target.
    """
    by_context: dict[tuple[int, ...], list[int]] = {}
    for index, context in enumerate(contexts):
        by_context.setdefault(tuple(context), []).append(index)
    groups = []
    for context, members in by_context.items():
        sharing = sorted((i for i in members if len(targets[i]) <= len(context)), key=lambda i: -len(targets[i]))
        groups += [[i] for i in members if len(targets[i]) > len(context)]
        size = max(1, max_tokens // (2 * len(context)))  # a group of more rows than fit the budget is cut
        groups += [sharing[first : first + size] for first in range(0, len(sharing), size)]
    return groups


def _score_batch(
    lm: LanguageModel,
    groups: Sequence[Sequence[int]],
    contexts: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
) -> dict[int, TargetScore]:
    """Score groups of requests; the members of a group have one context."""
    members = [index for group in groups for index in group]
    cache, common = None, 0
    if len(members) > len(groups):
        # Each context's last token stays out of the cache: its logits are wanted for every target.
        common = min(len(contexts[group[0]]) for group in groups) - 1
    if common:
        cache = DynamicCache(config=lm.model.config)
        prefixes = torch.tensor([list(contexts[group[0]][:common]) for group in groups], device=lm.device)
        lm.model(input_ids=prefixes, past_key_values=cache, use_cache=True, logits_to_keep=1)
        sizes = torch.tensor([len(group) for group in groups], device=lm.device)
        cache.batch_select_indices(torch.arange(len(groups), device=lm.device).repeat_interleave(sizes))

    rows = [[*contexts[index][common:], *targets[index][:-1]] for index in members]
    input_ids = padded(rows, lm.pad_id, lm.device)
    place = torch.arange(input_ids.shape[1], device=lm.device)
    ends = torch.tensor([len(row) for row in rows], device=lm.device)[:, None]
    counts = torch.tensor([len(targets[index]) for index in members], device=lm.device)[:, None]
    keep = (place >= ends - counts) & (place < ends)  # (B, T): where the next token is a target's
    logits = lm.model(
        input_ids=input_ids, past_key_values=cache, use_cache=cache is not None, logits_to_keep=keep
    ).logits
    if logits.ndim == 3:  # a model that ignored `logits_to_keep`
        logits = logits[keep]
    wanted = torch.tensor([token for index in members for token in targets[index]], device=lm.device)
    logprobs, greedy = (values.tolist() for values in _token_scores(logits, wanted))

    scores, start = {}, 0
    for index in members:
        end = start + len(targets[index])
        scores[index] = TargetScore(tuple(targets[index]), tuple(logprobs[start:end]), tuple(greedy[start:end]))
        start = end
    return scores


def _token_scores(logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability of each token and whether it is the most probable; logits (n, V), tokens and results (n,)."""
    logprobs, greedy = [], []
    for part, wanted in zip(logits.split(PROJECTED_ROWS), tokens.split(PROJECTED_ROWS), strict=True):
        part = part.float()
        logprobs.append(part.gather(1, wanted[:, None])[:, 0] - part.logsumexp(1))
        greedy.append(part.argmax(1) == wanted)
    return torch.cat(logprobs), torch.cat(greedy)
