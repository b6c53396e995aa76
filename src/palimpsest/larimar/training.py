"""Training Larimar's model: the published three losses and their KL term, or answers from noisy values.

The published loss of a batch of texts (Larimar, section 3; z encodes a text, z′ is what the memory reads for it)::

    −log p(text | z′) − log p(text | z) − log p(text) + β KL(q(w) ‖ N(0, 1))

where the log-probabilities are means over tokens and the KL is a sum over slots, a mean over texts. β goes through
cycles: half of each at zero, a quarter rising, a quarter at the top (Fu et al., arXiv 1903.10145).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from palimpsest.larimar.model import Larimar
from palimpsest.larimar.sources import Source
from palimpsest.lm.batching import padded
from palimpsest.lm.descent import Descent, Log, Row, descend
from palimpsest.memllm.examples import Example
from palimpsest.memllm.finetune import Batches, digest

LANGUAGE = "language"
HISTORY = ["model", "step", "tokens", "seconds", "loss", "learning_rate", "gradient_norm", "dev_loss"]


@dataclass(frozen=True, kw_only=True)
class Schedule(Descent):
    """How to train: AdamW, with a rate that rises over a share ``warmup`` of the steps and then falls to nothing.

    ``batch_size`` counts texts, ``plain_size`` those of a step that are said without memory; ``beta`` is the top of
    the KL term's weight, in ``cycles`` cycles. ``decoder_rate`` multiplies the learning rate of the decoder's own
    weights, which are trained already, where the map into it is new.
    """

    warmup: float = 0.0
    plain_size: int = 16
    decoder_rate: float = 1.0
    beta: float = 0.5
    cycles: int = 10

    def factor(self, step: int, steps: int) -> float:
        rising = max(1.0, self.warmup * steps)
        return min(1.0, (step + 1) / rising, (steps - step) / max(1.0, steps - rising))

    def divergence_weight(self, step: int, steps: int) -> float:
        """β at a step, counted from 0."""
        place = step * self.cycles % steps / steps
        return self.beta * min(1.0, max(0.0, (place - 0.5) / 0.25))


@dataclass(frozen=True)
class Task:
    """Texts, and what the decoder is given to say them.

    Args:
        examples: rows of tokens; ``source`` gives their read-outs by position.
        plain: what the decoder is to say without memory, so that it stays a language model: the term ``language``. It
            is left out while the decoder is frozen, for nothing could be learnt from it.
        weights: of the terms; one unless given.
    """

    examples: Sequence[Example]
    source: Source
    plain: Sequence[Example] = ()
    weights: Mapping[str, float] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """Of all that is learnt from."""
        weights = json.dumps(dict(self.weights), sort_keys=True)
        return "/".join([self.source.identity, digest(self.examples), digest(self.plain), weights])


def train_larimar(
    model: Larimar,
    train: Task,
    dev: Task,
    schedule: Schedule,
    *,
    checkpoints: Path,
    log: Log = lambda row, step: None,
) -> list[Row]:
    """Train what is trainable in a model, in place; see :func:`palimpsest.lm.descent.descend`.

    Rows with ``dev_loss`` also have each of its terms, as ``dev_reconstruction`` and so on, in nats a token.

    Raises ValueError if there is no example to train on or to evaluate with.
    """
    if not train.examples or not dev.examples:
        counts = f"{len(train.examples)} training and {len(dev.examples)} dev examples"
        raise ValueError(f"{counts}: expected at least one of each")
    batches = Batches(train.examples, schedule.batch_size, schedule.seed)
    plain_batches = Batches(train.plain, schedule.plain_size, schedule.seed) if train.plain else None
    steps = max(1, round(schedule.epochs * batches.per_epoch))
    terms: dict[str, float] = {}

    def step(number: int) -> tuple[float, int]:
        torch.manual_seed(schedule.seed + number)  # dropout: a resumed run drops what an unbroken one would have
        generator = torch.Generator().manual_seed((schedule.seed << 32) + number)
        losses, divergence = _from_source(model, train, batches[number], schedule, generator)
        losses |= _without_memory(model, train, plain_batches[number] if plain_batches else [], schedule)
        loss = _weighted({name: values.mean() for name, values in losses.items()}, train.weights)
        loss = loss + schedule.divergence_weight(number, steps) * divergence
        loss.backward()
        return loss.item(), sum(map(len, losses.values()))

    def dev_loss() -> float:
        found = evaluate(model, dev, schedule)
        terms.update({f"dev_{name}": value for name, value in found.items()})
        return float(_weighted(found, dev.weights))

    def log_terms(row: Row, number: int) -> None:
        if "dev_loss" in row:
            row |= terms  # in place: the row is the history's own
        log(row, number)

    return descend(
        model,
        [_optimizer(model, schedule)],
        schedule,
        steps=steps,
        step=step,
        dev_loss=dev_loss,
        checkpoints=checkpoints,
        identity=f"{train.identity}/{_frozen_weights(model)}",
        log=log_terms,
    )


@torch.no_grad()
def evaluate(model: Larimar, task: Task, schedule: Schedule) -> dict[str, float]:
    """Each term of the loss on all examples of a task, in nats a token; the same noise each time."""
    generator = torch.Generator().manual_seed(schedule.seed)
    found: defaultdict[str, list[Tensor]] = defaultdict(list)
    for items in _chunks(task.examples, schedule.batch_size):
        losses, _ = _from_source(model, task, items, schedule, generator)
        for name, values in losses.items():
            found[name].append(values)
    for items in _chunks(task.plain, schedule.batch_size):
        for name, values in _without_memory(model, task, items, schedule).items():
            found[name].append(values)
    return {name: torch.cat(parts).mean().item() for name, parts in found.items()}


def _from_source(
    model: Larimar, task: Task, items: Sequence[int], schedule: Schedule, generator: torch.Generator
) -> tuple[dict[str, Tensor], Tensor]:
    """Losses (n,) of the learnt tokens given each kind of read-out, and the KL term."""
    ids, learnt = _tokens(model, [task.examples[item] for item in items])
    with schedule.autocast(model.device):
        read_outs, divergence = task.source(items, generator)
        return {name: model.decoder.losses(ids, learnt, z) for name, z in read_outs.items()}, divergence


def _without_memory(model: Larimar, task: Task, items: Sequence[int], schedule: Schedule) -> dict[str, Tensor]:
    """Losses (n,) of the learnt tokens of plain examples, if there is something to learn from them."""
    if not items or not model.tunes_decoder:
        return {}
    ids, learnt = _tokens(model, [task.plain[item] for item in items])
    with schedule.autocast(model.device):
        return {LANGUAGE: model.decoder.losses(ids, learnt)}


def _tokens(model: Larimar, examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
    """Tokens of examples, and which of them are learnt: both (B, T)."""
    ids = padded([example.ids for example in examples], model.lm.pad_id, model.device)
    return ids, padded([list(map(int, example.learnt)) for example in examples], 0, model.device).bool()


def _weighted(terms: Mapping[str, Any], weights: Mapping[str, float]) -> Any:
    return sum(weights.get(name, 1.0) * value for name, value in terms.items())


def _chunks(examples: Sequence[Example], size: int) -> list[range]:
    return [range(start, min(start + size, len(examples))) for start in range(0, len(examples), size)]


def _optimizer(model: Larimar, schedule: Schedule) -> torch.optim.Optimizer:
    decoder = {id(weight) for weight in model.decoder.model.parameters()}
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    rates = {False: schedule.learning_rate, True: schedule.learning_rate * schedule.decoder_rate}
    groups = [
        {"params": group, "lr": rate}
        for own, rate in rates.items()
        if (group := [weight for weight in weights if (id(weight) in decoder) == own])
    ]
    return torch.optim.AdamW(groups, weight_decay=schedule.weight_decay)


def _frozen_weights(model: Larimar) -> str:
    """Identifies the weights that are not trained, on which the result depends as well."""
    found = sha256()
    for name, weight in model.named_parameters():
        if not weight.requires_grad:
            found.update(name.encode())
            found.update(weight.detach().float().cpu().contiguous().numpy().data)
    return found.hexdigest()
