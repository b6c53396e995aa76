"""What editors descend on that train something: the loss of new answers after their prompts."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from palimpsest.editors.weights import frozen
from palimpsest.lm.batching import padded
from palimpsest.lm.load import LanguageModel
from palimpsest.lm.prompts import encode_targets, fit_context

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class TargetBatch:
    """B prompts, each followed by its target, as rows of T tokens; what fills them up on the right is never seen."""

    input_ids: Tensor
    """(B, T)."""
    keep: Tensor
    """(B, T): where the next token is a target's; n of them."""
    wanted: Tensor
    """(n,): those tokens."""
    shares: Tensor
    """(n,): the weight of each in the loss, so that every target counts the same, whatever its length."""
    prompt_lengths: Tensor
    """(B,): tokens of each prompt."""

    @property
    def prompt_ends(self) -> Tensor:
        """(B,): each prompt's last token, as ``row * T + place``."""
        rows, width = self.input_ids.shape
        return torch.arange(rows, device=self.input_ids.device) * width + self.prompt_lengths - 1


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
    return [_batch(lm, contexts[s : s + batch_size], answers[s : s + batch_size]) for s in starts]


def _batch(lm: LanguageModel, contexts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> TargetBatch:
    rows = [[*context, *answer[:-1]] for context, answer in zip(contexts, answers, strict=True)]
    input_ids = padded(rows, lm.pad_id, lm.device)
    ends = torch.tensor([len(row) for row in rows], device=lm.device)[:, None]
    counts = torch.tensor([len(answer) for answer in answers], device=lm.device)
    place = torch.arange(input_ids.shape[1], device=lm.device)
    return TargetBatch(
        input_ids=input_ids,
        keep=(place >= ends - counts[:, None]) & (place < ends),
        wanted=torch.tensor([token for answer in answers for token in answer], device=lm.device),
        shares=(1 / (counts * len(rows))).repeat_interleave(counts),
        prompt_lengths=torch.tensor([len(context) for context in contexts], device=lm.device),
    )


def target_loss(lm: LanguageModel, batch: TargetBatch) -> Tensor:
    """Mean negative log-likelihood a token of each target given its prompt, averaged over the targets."""
    logits = lm.model(input_ids=batch.input_ids, use_cache=False, logits_to_keep=batch.keep).logits
    if logits.ndim == 3:  # a model that ignored `logits_to_keep`
        logits = logits[batch.keep]
    return nn.functional.cross_entropy(logits.float(), batch.wanted, reduction="none") @ batch.shares


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
    loss: Callable[[TargetBatch], Tensor],
    batches: Sequence[TargetBatch],
    *,
    steps: int,
    enough: float,
    project: Callable[[], None] = lambda: None,
) -> None:
    """At most ``steps`` passes over the batches, until their mean loss is below ``enough``.

    A batch whose own loss is below is passed over. ``project`` is called after every step. A model so broken (by
    earlier edits) that its loss is no number is left as it is.
    """
    for _ in range(steps):
        losses = []
        for batch in batches:
            value = loss(batch)
            losses.append(value.item())
            if not math.isfinite(losses[-1]):
                log.warning("the loss of an edit is %s: it is given up", losses[-1])
                return
            if losses[-1] >= enough:
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
                project()
        if sum(losses) < enough * len(losses):
            return
