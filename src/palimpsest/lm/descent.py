"""Gradient descent that survives being killed: the loop that training from scratch and finetuning share."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from tqdm import tqdm

from palimpsest.lm.checkpoint import Checkpoints

Row = dict[str, float]
Log = Callable[[Row, int], None]
PRECISIONS = ("auto", "bf16", "fp32")


@dataclass(frozen=True, kw_only=True)
class Descent:
    """What any training needs to be told.

    ``clip`` bounds the gradient's norm; the ``_every`` count steps. ``precision`` is ``bf16`` (autocast), ``fp32``, or
    ``auto``: bf16 where the device has instructions for it, see :func:`multiplies_bf16`.

    Raises:
        ValueError: another precision.
    """

    epochs: float
    batch_size: int
    learning_rate: float
    weight_decay: float
    clip: float = 1.0
    precision: str = "auto"
    log_every: int = 20
    evaluate_every: int = 200
    checkpoint_every: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision {self.precision!r}: expected one of {', '.join(PRECISIONS)}")

    def factor(self, step: int, steps: int) -> float:
        """What the learning rates are multiplied by at a step, counted from 0."""
        raise NotImplementedError

    def dtype(self, device: torch.device) -> torch.dtype:
        """Of matrix products on a device; weights and optimizer stay in float32."""
        low = multiplies_bf16(device) if self.precision == "auto" else self.precision == "bf16"
        return torch.bfloat16 if low else torch.float32

    def autocast(self, device: torch.device) -> torch.autocast:
        """The context in which the model computes."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.dtype(device) == torch.bfloat16)


def multiplies_bf16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 matrices with instructions of its own.

    A processor without them (x86 before AVX512-BF16) emulates them, 50 times slower than it multiplies float32.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return any(present for name, present in capabilities.items() if name.endswith("bf16"))


def descend(
    model: nn.Module,
    optimizers: Sequence[Optimizer],
    schedule: Descent,
    *,
    steps: int,
    step: Callable[[int], tuple[float, int]],
    dev_loss: Callable[[], float],
    checkpoints: Path,
    identity: str,
    log: Log,
    main: bool = True,
) -> list[Row]:
    """Train in place, going on from a checkpoint of the same run if there is one.

    A run that is killed at any step and started again ends with the same weights, bit for bit, on the same machine
    with the same number of threads, if ``step`` is a function of its argument and of the weights.

    Args:
        model: its trainable weights at the start belong to the run's identity.
        step: leaves the gradient of a step, counted from 0; returns its loss and how many tokens it read.
        dev_loss: the loss on held-out data.
        checkpoints: a folder for the state, which is removed at the end.
        identity: of the data; a run with another one does not go on from this one's checkpoint.
        log: called with each row and its step (for tracking).
        main: whether this process writes; of several that train together one does.

    Returns:
        Rows with ``step``, ``tokens``, ``seconds`` (spent in training steps) and any of ``loss`` (mean over the steps
        since the last row), ``learning_rate``, ``gradient_norm`` and ``dev_loss``; losses in nats a token.
    """
    for group in _groups(optimizers):
        group.setdefault("initial_lr", group["lr"])
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    state = Checkpoints(checkpoints, _fingerprint(model, schedule, identity))
    first, notes = state.restore(model, optimizers)
    history: list[Row] = notes.get("history", [])
    seconds, tokens, losses = notes.get("seconds", 0.0), notes.get("tokens", 0), notes.get("losses", [])
    model.train()
    progress = tqdm(
        range(first, steps), initial=first, total=steps, desc="training", unit=" steps", mininterval=1, disable=not main
    )
    for number in progress:
        started = time.perf_counter()
        factor = schedule.factor(number, steps)
        for group in _groups(optimizers):
            group["lr"] = factor * group["initial_lr"]
        loss, count = step(number)
        norm = nn.utils.clip_grad_norm_(weights, schedule.clip)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        losses.append(loss)
        tokens += count
        seconds += time.perf_counter() - started

        done = number + 1
        row: Row = {}
        if done % schedule.log_every == 0 or done == steps:
            row = {"loss": sum(losses) / len(losses), "learning_rate": factor * schedule.learning_rate}
            row["gradient_norm"] = norm.item()
            losses = []
            progress.set_postfix(loss=f"{row['loss']:.3f}")
        if done % schedule.evaluate_every == 0 or done == steps:
            model.eval()
            with torch.no_grad():
                row["dev_loss"] = dev_loss()
            model.train()
        if row:
            row = {"step": done, "tokens": tokens, "seconds": seconds, **row}
            history.append(row)
            log(row, done)
        if main and done % schedule.checkpoint_every == 0 and done < steps:
            kept = {"history": history, "seconds": seconds, "tokens": tokens, "losses": losses}
            state.save(done, model, optimizers, kept)
    model.eval()
    return history


def _groups(optimizers: Sequence[Optimizer]) -> list[dict]:
    return [group for optimizer in optimizers for group in optimizer.param_groups]


def _fingerprint(model: nn.Module, schedule: Descent, identity: str) -> str:
    """Of all that determines the result."""
    digest = sha256(json.dumps([asdict(schedule), identity, torch.__version__], sort_keys=True).encode())
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            digest.update(name.encode())
            digest.update(_bytes(weight))
    return digest.hexdigest()


def _bytes(weight: Tensor) -> bytes:
    return weight.detach().float().cpu().numpy().tobytes()
