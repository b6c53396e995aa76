"""What editors descend on that train something: the loss of new answers after their prompts."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from palimpsest.editors.replay import Replay
from palimpsest.editors.weights import frozen
from palimpsest.lm.load import LanguageModel
from palimpsest.lm.prompts import encode_targets, fit_context

log = logging.getLogger(__name__)

Loss = Callable[[], Tensor]
"""Computes a loss anew at each call, from whatever has changed since."""


@dataclass(frozen=True, eq=False)
class TargetBatch:
    """B prompts, each with its target, of n tokens in all."""

    prompts: Sequence[Sequence[int]]
    """Token ids of each prompt."""
    targets: Sequence[Sequence[int]]
    """Token ids of each target. The last is only predicted."""

    @property
    def rows(self) -> list[list[int]]:
        """What is read of each."""
        return [[*prompt, *target[:-1]] for prompt, target in zip(self.prompts, self.targets, strict=True)]

    def scored(self, starts: Sequence[int], width: int) -> Tensor:
        """Where the next token is a target's, of ``width`` tokens from ``starts`` on: (B, width)."""
        ends = torch.tensor([len(row) - start for row, start in zip(self.rows, starts, strict=True)])[:, None]
        counts = torch.tensor([len(target) for target in self.targets])[:, None]
        place = torch.arange(width)
        return (place >= ends - counts) & (place < ends)

    def mean_loss(self, logits: Tensor) -> Tensor:
        """Mean negative log-likelihood a token of each target, averaged over the targets, so that all count the same,
        whatever their length. ``logits`` (n, V) are those where the next token is a target's."""
        wanted = torch.tensor([token for target in self.targets for token in target], device=logits.device)
        counts = torch.tensor([len(target) for target in self.targets], device=logits.device)
        shares = (1 / (counts * len(counts))).repeat_interleave(counts)
        return nn.functional.cross_entropy(logits.float(), wanted, reduction="none") @ shares


def target_batches(
    lm: LanguageModel, prompts: Sequence[str], targets: Sequence[str], batch_size: int
) -> list[TargetBatch]:
    """Prompts and targets as tokens, as :func:`palimpsest.lm.scoring.score_targets` sees them, in the order given.

    Raises ValueError if a target is empty, or does not fit the model's context with its prompt; names its index.
    """
    contexts, answers = lm.encode_prompts(prompts), encode_targets(lm, prompts, targets)
    for index, (context, answer) in enumerate(zip(contexts, answers, strict=True)):
        fit_context(lm, context, len(answer), index, "error")
    starts = range(0, len(prompts), batch_size)
    return [TargetBatch(contexts[s : s + batch_size], answers[s : s + batch_size]) for s in starts]


def target_loss(lm: LanguageModel, batch: TargetBatch, layer: int = 0, *, at_end: bool = False) -> Loss:
    """What gives, at each call, the loss of the targets after their prompts.

    Args:
        layer: the first that may change between calls, counted from 0.
        at_end: whether nothing changes before the prompts' last tokens; these are then the first of the columns that
            the layers see.
    """
    starts = [len(prompt) - 1 if at_end else 0 for prompt in batch.prompts]
    replay = Replay.of(lm, batch.rows, starts, layer)
    scored = batch.scored(starts, replay.tokens.shape[1]).to(lm.device)
    return lambda: batch.mean_loss(replay.logits(scored))


@contextmanager
def learning(model: nn.Module, weights: Sequence[Tensor]) -> Iterator[None]:
    """Only these weights ask for gradients inside, and none is left over outside."""
    with torch.enable_grad(), frozen(model):
        for weight in weights:
            weight.requires_grad_(True)
        try:
            yield
        finally:
            for weight in weights:
                weight.grad = None
                weight.requires_grad_(False)  # `frozen` gives it back to those that had it


def descend(
    optimizer: torch.optim.Optimizer,
    losses: Sequence[Loss],
    *,
    steps: int,
    enough: float,
    project: Callable[[], None] = lambda: None,
) -> None:
    """At most ``steps`` passes over the losses, a step of the optimizer for each, until their mean is below ``enough``.

    One that is itself below is passed over. ``project`` is called after every step. A model so broken (by earlier
    edits) that its loss is no number is left as it is.
    """
    for _ in range(steps):
        found = []
        for loss in losses:
            value = loss()
            found.append(value.item())
            if not math.isfinite(found[-1]):
                log.warning("the loss of an edit is %s: it is given up", found[-1])
                return
            if found[-1] >= enough:
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
                project()
        if sum(found) < enough * len(found):
            return
