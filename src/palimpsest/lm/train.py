"""Training a small causal language model from scratch."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from palimpsest.lm.checkpoint import Checkpoints
from palimpsest.lm.loss import linear_cross_entropy
from palimpsest.lm.packing import PADDING, PackedTexts

Row = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """The shape of a Llama-style decoder (RMSNorm, rotary positions, SwiGLU, tied embeddings, no biases)."""

    layers: int
    width: int
    feedforward: int
    heads: int
    context_length: int
    attention: str = "sdpa"

    def build(self, tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
        """A model with random weights, the same for the same seed."""
        config = LlamaConfig(
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
            attn_implementation=self.attention,
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return LlamaForCausalLM(config)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How to train.

    Muon (momentum orthogonalised by Newton–Schulz iterations; Jordan et al. 2024) for the layers' matrices, AdamW for
    embeddings and vectors. Muon learns rare associations with fewer repetitions (Wang et al., arXiv 2509.26030), which
    is what a small model of a long-tailed world needs. Both learning rates rise over ``warmup`` steps and fall along a
    cosine to ``floor`` of themselves.

    ``epochs`` may be a fraction; ``clip`` bounds the gradient's norm; ``weight_decay`` (of AdamW, per unit of learning
    rate; Muon's matrices shrink at the same pace) is not for vectors; ``precision`` is ``bf16`` (autocast) or ``fp32``.
    """

    epochs: float
    batch_size: int
    learning_rate: float
    matrix_learning_rate: float
    warmup: int
    floor: float = 0.05
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.98
    clip: float = 1.0
    precision: str = "bf16"
    log_every: int = 20
    evaluate_every: int = 200
    checkpoint_every: int = 200
    seed: int = 0

    def factor(self, step: int, steps: int) -> float:
        """What the learning rates are multiplied by at a step, counted from 0."""
        cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
        return min(1.0, (step + 1) / self.warmup) * (self.floor + (1 - self.floor) * cosine)


def train_lm(
    model: LlamaForCausalLM,
    train: PackedTexts,
    dev: PackedTexts,
    schedule: Schedule,
    *,
    checkpoints: Path,
    log: Callable[[Row, int], None] = lambda row, step: None,
) -> list[Row]:
    """Train in place, going on from a checkpoint of the same run if there is one.

    A run that is killed at any step and started again ends with the same weights, bit for bit, on the same machine
    with the same number of threads: batches are a function of the step, and nothing else is random.

    Args:
        model: on the device to train on; its weights at the start belong to the run's identity.
        train: the training windows; dev: windows on which the loss is measured.
        schedule: how to train.
        checkpoints: a folder for the state, which is removed at the end.
        log: called with each row and its step (for tracking).

    Returns:
        Rows with ``step``, ``tokens``, ``seconds`` (spent in training steps) and any of ``loss`` (mean over the steps
        since the last row), ``learning_rate``, ``gradient_norm`` and ``dev_loss``; losses in nats a token.
    """
    optimizers = _optimizers(model, schedule)
    state = Checkpoints(checkpoints, _fingerprint(model, train, schedule))
    first, notes = state.restore(model, optimizers)
    history: list[Row] = notes.get("history", [])
    seconds, losses = notes.get("seconds", 0.0), notes.get("losses", [])
    steps = max(1, round(schedule.epochs * (len(train) // min(schedule.batch_size, len(train)))))
    model.train()
    progress = tqdm(range(first, steps), initial=first, total=steps, desc="training", unit=" steps", mininterval=1)
    for step in progress:
        started = time.perf_counter()
        factor = schedule.factor(step, steps)
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = factor * group["initial_lr"]
        batch = train.shuffled(step, schedule.batch_size, schedule.seed).to(model.device)
        loss = batch_loss(model, batch, schedule.precision)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), schedule.clip)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        seconds += time.perf_counter() - started

        done = step + 1
        row: Row = {}
        if done % schedule.log_every == 0 or done == steps:
            row = {"loss": sum(losses) / len(losses), "learning_rate": factor * schedule.learning_rate}
            row["gradient_norm"] = norm.item()
            losses = []
            progress.set_postfix(loss=f"{row['loss']:.3f}")
        if done % schedule.evaluate_every == 0 or done == steps:
            row["dev_loss"] = evaluate(model, dev, schedule)
        if row:
            row = {"step": done, "tokens": done * batch[:, 1:].numel(), "seconds": seconds, **row}
            history.append(row)
            log(row, done)
        if done % schedule.checkpoint_every == 0 and done < steps:
            state.save(done, model, optimizers, {"history": history, "seconds": seconds, "losses": losses})
    model.eval()
    return history


def batch_loss(model: LlamaForCausalLM, batch: Tensor, precision: str) -> Tensor:
    """Mean next-token loss of windows (B, T + 1), in nats; padding is neither read nor predicted."""
    targets = batch[:, 1:].flatten()
    wanted = targets != PADDING
    with torch.autocast(model.device.type, torch.bfloat16, enabled=precision == "bf16"):
        hidden = model.model(input_ids=batch[:, :-1].clamp(min=0), use_cache=False).last_hidden_state
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    return linear_cross_entropy(hidden.flatten(0, 1)[wanted].to(dtype), model.lm_head.weight, targets[wanted])


@torch.no_grad()
def evaluate(model: LlamaForCausalLM, windows: PackedTexts, schedule: Schedule) -> float:
    """Mean loss over all windows, in nats a token; a batch counts by its tokens."""
    training = model.training
    model.eval()
    total = sum(
        batch_loss(model, batch.to(model.device), schedule.precision).item() * int((batch[:, 1:] != PADDING).sum())
        for batch in windows.in_order(schedule.batch_size)
    )
    model.train(training)
    return total / windows.predicted


def _optimizers(model: LlamaForCausalLM, schedule: Schedule) -> list[torch.optim.Optimizer]:
    inner = [weight for weight in model.model.layers.parameters() if weight.ndim == 2]
    known = {id(weight) for weight in inner}
    outer = [weight for weight in model.parameters() if id(weight) not in known]
    embeddings, vectors = ([weight for weight in outer if (weight.ndim > 1) is wide] for wide in (True, False))
    groups = [{"params": embeddings, "weight_decay": schedule.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    betas = (schedule.beta1, schedule.beta2)
    rate, matrix_rate = schedule.learning_rate, schedule.matrix_learning_rate
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(inner, lr=matrix_rate, weight_decay=schedule.weight_decay * rate / matrix_rate),
        torch.optim.AdamW(groups, lr=rate, betas=betas, fused=True),
    ]
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group["initial_lr"] = group["lr"]
    return optimizers


def _fingerprint(model: nn.Module, train: PackedTexts, schedule: Schedule) -> str:
    """Of all that determines the result; a run with another one does not go on from this one's checkpoint."""
    digest = sha256(json.dumps([asdict(schedule), train.digest(), torch.__version__], sort_keys=True).encode())
    for name, weight in model.named_parameters():
        digest.update(name.encode())
        digest.update(weight.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()
