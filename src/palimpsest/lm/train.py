"""Training a small causal language model from scratch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from palimpsest.lm.attention import prefer_fast_attention
from palimpsest.lm.descent import Descent, Log, Row, descend
from palimpsest.lm.induction import add_induction_heads
from palimpsest.lm.loss import linear_cross_entropy
from palimpsest.lm.muon import Muon
from palimpsest.lm.packing import PADDING, PackedTexts


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """The shape of a Qwen2 decoder: RMSNorm, rotary positions, SwiGLU, tied embeddings, biases in queries and keys.

    ``induction`` gives it heads that copy from the start (see :mod:`palimpsest.lm.induction`).
    """

    layers: int
    width: int
    feedforward: int
    heads: int
    context_length: int
    induction: bool = True

    def build(self, tokenizer: PreTrainedTokenizerFast, seed: int) -> Qwen2ForCausalLM:
        """A model with random weights, the same for the same seed."""
        config = Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=self.width,
            intermediate_size=self.feedforward,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.heads,
            max_position_embeddings=self.context_length,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = Qwen2ForCausalLM(config)
        prefer_fast_attention(model)
        if self.induction:
            add_induction_heads(model, torch.Generator().manual_seed(seed))
        return model


@dataclass(frozen=True, kw_only=True)
class Schedule(Descent):
    """How to train.

    Muon (momentum orthogonalised by Newton–Schulz iterations; Jordan et al. 2024) for the layers' matrices, AdamW for
    embeddings and vectors. Muon learns rare associations with fewer repetitions (Wang et al., arXiv 2509.26030), which
    is what a small model of a long-tailed world needs. Both learning rates rise over ``warmup`` steps and fall along a
    cosine to ``floor`` of themselves.

    ``epochs`` may be a fraction; ``weight_decay`` (of AdamW, per unit of learning rate; Muon's matrices shrink at the
    same pace) is not for vectors.
    """

    matrix_learning_rate: float
    warmup: int
    floor: float = 0.05
    beta1: float = 0.9
    beta2: float = 0.98

    def factor(self, step: int, steps: int) -> float:
        cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
        return min(1.0, (step + 1) / self.warmup) * (self.floor + (1 - self.floor) * cosine)


def train_lm(
    model: Qwen2ForCausalLM,
    train: PackedTexts,
    dev: PackedTexts,
    schedule: Schedule,
    *,
    checkpoints: Path,
    log: Log = lambda row, step: None,
) -> list[Row]:
    """Train in place; see :func:`palimpsest.lm.descent.descend` for what is returned, and what a kill costs.

    Args:
        model: on the device to train on.
        train: the training windows; dev: windows on which the loss is measured.
        schedule: how to train.
        checkpoints: a folder for the state, which is removed at the end.
        log: called with each row and its step (for tracking).
    """

    def step(number: int) -> tuple[float, int]:
        batch = train.shuffled(number, schedule.batch_size, schedule.seed).to(model.device)
        loss = batch_loss(model, batch, schedule)
        loss.backward()
        return loss.item(), batch[:, 1:].numel()

    return descend(
        model,
        _optimizers(model, schedule),
        schedule,
        steps=max(1, round(schedule.epochs * (len(train) // min(schedule.batch_size, len(train))))),
        step=step,
        dev_loss=lambda: evaluate(model, dev, schedule),
        checkpoints=checkpoints,
        identity=train.digest(),
        log=log,
    )


def batch_loss(model: Qwen2ForCausalLM, batch: Tensor, schedule: Schedule) -> Tensor:
    """Mean next-token loss of windows (B, T + 1), in nats; padding is neither read nor predicted."""
    targets = batch[:, 1:].flatten()
    wanted = targets != PADDING
    with schedule.autocast(model.device):
        hidden = model.model(input_ids=batch[:, :-1].clamp(min=0), use_cache=False).last_hidden_state
    hidden = hidden.flatten(0, 1)[wanted].to(schedule.dtype(model.device))
    return linear_cross_entropy(hidden, model.lm_head.weight, targets[wanted])


@torch.no_grad()
def evaluate(model: Qwen2ForCausalLM, windows: PackedTexts, schedule: Schedule) -> float:
    """Mean loss over all windows, in nats a token; a batch counts by its tokens."""
    total = sum(
        batch_loss(model, batch.to(model.device), schedule).item() * int((batch[:, 1:] != PADDING).sum())
        for batch in windows.in_order(schedule.batch_size)
    )
    return total / windows.predicted


def _optimizers(model: Qwen2ForCausalLM, schedule: Schedule) -> list[torch.optim.Optimizer]:
    inner = [weight for weight in model.model.layers.parameters() if weight.ndim == 2]
    known = {id(weight) for weight in inner}
    outer = [weight for weight in model.parameters() if id(weight) not in known]
    embeddings, vectors = ([weight for weight in outer if (weight.ndim > 1) is wide] for wide in (True, False))
    groups = [{"params": embeddings, "weight_decay": schedule.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    betas = (schedule.beta1, schedule.beta2)
    rate, matrix_rate = schedule.learning_rate, schedule.matrix_learning_rate
    return [
        Muon(
            inner,
            lr=matrix_rate,
            weight_decay=schedule.weight_decay * rate / matrix_rate,
            dtype=schedule.dtype(model.device),
        ),
        torch.optim.AdamW(groups, lr=rate, betas=betas, fused=True),
    ]
