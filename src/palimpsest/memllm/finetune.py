"""Finetuning an adapter on examples, on one device or, under ``accelerate launch``, on several at once.

Several processes share out the examples of each step, so they train what one would, up to rounding and dropout.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn.functional import cross_entropy

from palimpsest.lm.batching import length_batches, padded
from palimpsest.lm.descent import Descent, Log, Row, descend
from palimpsest.lm.load import LanguageModel
from palimpsest.memllm.examples import Example

BUCKET = 32  # batches whose examples are sorted by length together: little padding, order still mixed


@dataclass(frozen=True, kw_only=True)
class Finetuning(Descent):
    """How to finetune: AdamW, with a rate that rises over a share ``warmup`` of the steps and then falls to nothing.

    ``batch_size`` counts examples; ``tokens_per_pass`` is how many tokens, padding included, go through the model at a
    time.
    """

    warmup: float = 0.05
    tokens_per_pass: int = 8192
    beta1: float = 0.9
    beta2: float = 0.999

    def factor(self, step: int, steps: int) -> float:
        rising = max(1.0, self.warmup * steps)
        return min(1.0, (step + 1) / rising, (steps - step) / max(1.0, steps - rising))


class Batches:
    """Examples dealt out to steps: each epoch all of them, in an order of its own, lengths much alike in a batch."""

    def __init__(self, examples: Sequence[Example], batch_size: int, seed: int) -> None:
        self._lengths = np.array([len(example.ids) for example in examples])
        self.size, self._seed = min(batch_size, len(examples)), seed
        self._epoch, self._order = -1, np.empty(0, int)

    @property
    def per_epoch(self) -> int:
        """How many steps an epoch has; examples that do not fill a batch are left out of it."""
        return len(self._lengths) // self.size

    def __getitem__(self, step: int) -> list[int]:
        """Positions of the examples of a step."""
        epoch, number = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._shuffled(epoch)
        return [int(item) for item in self._order[number]]

    def _shuffled(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng((self._seed, epoch))
        order = rng.permutation(len(self._lengths))[: self.per_epoch * self.size]
        for start in range(0, len(order), BUCKET * self.size):
            bucket = order[start : start + BUCKET * self.size]
            bucket[:] = bucket[np.argsort(self._lengths[bucket], kind="stable")]
        return rng.permutation(order.reshape(self.per_epoch, self.size))


def finetune(
    lm: LanguageModel,
    train: Sequence[Example],
    dev: Sequence[Example],
    schedule: Finetuning,
    *,
    checkpoints: Path,
    log: Log = lambda row, step: None,
) -> list[Row]:
    """Train what is trainable in a language model, in place; see :func:`palimpsest.lm.descent.descend`.

    The loss is the mean over the learnt tokens of a batch, in nats. Raises ValueError if there is no example, or if a
    step has fewer of them than there are processes.
    """
    if not train or not dev:
        raise ValueError(f"{len(train)} training and {len(dev)} dev examples: expected at least one of each")
    accelerator = Accelerator(cpu=lm.device.type == "cpu")
    batches = Batches(train, schedule.batch_size, schedule.seed)
    if batches.size < accelerator.num_processes:
        raise ValueError(f"{batches.size} examples a step for {accelerator.num_processes} processes: expected one each")
    model: Any = accelerator.prepare(lm.model)
    optimizer = torch.optim.AdamW(
        [weight for weight in lm.model.parameters() if weight.requires_grad],
        lr=schedule.learning_rate,
        betas=(schedule.beta1, schedule.beta2),
        weight_decay=schedule.weight_decay,
    )

    def step(number: int) -> tuple[float, int]:
        # Dropout: a resumed run drops what an unbroken one would have, and each process something else.
        torch.manual_seed((schedule.seed + number) * accelerator.num_processes + accelerator.process_index)
        batch = [train[item] for item in batches[number]]
        learnt = sum(map(_learnt, batch))
        total = torch.zeros((), device=lm.device)
        share = batch[accelerator.process_index :: accelerator.num_processes]
        passes = list(_passes(share, schedule.tokens_per_pass))
        for index, examples in enumerate(passes):
            # Processes average their gradients, once, after the last pass: hence the factor.
            with accelerator.no_sync(model) if index + 1 < len(passes) else nullcontext():
                loss = summed_loss(lm, model, examples, schedule) / learnt
                accelerator.backward(loss * accelerator.num_processes)
            total += loss.detach()
        return float(accelerator.reduce(total, "sum")), sum(len(example.ids) for example in batch)

    def dev_loss() -> float:
        losses = (summed_loss(lm, lm.model, part, schedule).item() for part in _passes(dev, schedule.tokens_per_pass))
        return sum(losses) / sum(map(_learnt, dev))

    return descend(
        lm.model,
        [optimizer],
        schedule,
        steps=max(1, round(schedule.epochs * batches.per_epoch)),
        step=step,
        dev_loss=dev_loss,
        checkpoints=checkpoints,
        identity=digest(train),
        log=log if accelerator.is_main_process else lambda row, step: None,
        main=accelerator.is_main_process,
    )


def summed_loss(lm: LanguageModel, model: Callable[..., Any], examples: Sequence[Example], schedule: Descent) -> Tensor:
    """Cross-entropy of the learnt tokens of a few examples, summed, in nats; ``model`` is ``lm.model`` or wraps it."""
    ids = padded([example.ids for example in examples], lm.pad_id, lm.device)  # (B, T)
    learnt = padded([list(map(int, example.learnt)) for example in examples], 0, lm.device).bool()
    before = torch.zeros_like(learnt)
    before[:, :-1] = learnt[:, 1:]  # the positions that predict
    with schedule.autocast(lm.device):
        logits = model(input_ids=ids, logits_to_keep=before, use_cache=False).logits
    if logits.ndim == 3:  # a model that ignored `logits_to_keep`
        logits = logits[before]
    return cross_entropy(logits.float(), ids[:, 1:][learnt[:, 1:]], reduction="sum")


def digest(examples: Sequence[Example]) -> str:
    """Identifies examples by their content."""
    return sha256(json.dumps([(example.ids, example.learnt) for example in examples]).encode()).hexdigest()


def _learnt(example: Example) -> int:
    return sum(example.learnt[1:])


def _passes(examples: Sequence[Example], max_tokens: int) -> Iterator[list[Example]]:
    for part in length_batches([len(example.ids) for example in examples], max_tokens):
        yield [examples[item] for item in part]
