"""Training state on disk: enough to go on exactly where a killed run stopped."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

PARTIAL = ".partial"


class Checkpoints:
    """The latest training state in a folder, kept under a fingerprint of all that determines the run.

    A state is written whole under a temporary name and renamed, and the former one is removed after that, so a kill
    at any moment leaves at least one whole state. Weights and optimizer moments are safetensors: nothing is unpickled.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder = folder / fingerprint[:16]

    def save(self, step: int, model: nn.Module, optimizers: Sequence[Optimizer], notes: dict[str, Any]) -> None:
        """Write the state after ``step`` steps; ``notes`` is any JSON (losses so far, seconds spent)."""
        partial = self.folder / f"{step:09d}{PARTIAL}"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        save_file(_trained(model), partial / "model.safetensors")
        save_file(_moments(optimizers), partial / "optimizer.safetensors")
        (partial / "notes.json").write_text(json.dumps({"step": step, "notes": notes}))
        for file in partial.iterdir():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        former = self._states()
        partial.rename(self.folder / f"{step:09d}")
        for state in former:
            shutil.rmtree(state)

    def restore(self, model: nn.Module, optimizers: Sequence[Optimizer]) -> tuple[int, dict[str, Any]]:
        """Load the latest state into model and optimizers; returns its step and notes, (0, {}) where there is none."""
        states = self._states()
        if not states:
            return 0, {}
        latest = states[-1]
        model.load_state_dict(load_file(latest / "model.safetensors"), strict=False)
        states_of: list[dict[int, dict[str, Tensor]]] = [{} for _ in optimizers]
        for name, tensor in load_file(latest / "optimizer.safetensors").items():
            optimizer_index, index, moment = name.split(".")
            states_of[int(optimizer_index)].setdefault(int(index), {})[moment] = tensor
        for optimizer, state in zip(optimizers, states_of, strict=True):
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        notes = json.loads((latest / "notes.json").read_text())
        return notes["step"], notes["notes"]

    def clear(self) -> None:
        """Remove the state: the run is done and its result lies elsewhere."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _states(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("*") if path.suffix != PARTIAL)


def _trained(model: nn.Module) -> dict[str, Tensor]:
    """The trainable weights, each once (tied ones have one name here)."""
    return {name: weight.detach().contiguous() for name, weight in model.named_parameters() if weight.requires_grad}


def _moments(optimizers: Sequence[Optimizer]) -> dict[str, Tensor]:
    """Every optimizer's running averages, as ``OPTIMIZER.WEIGHT.MOMENT``."""
    return {
        f"{number}.{index}.{name}": tensor
        for number, optimizer in enumerate(optimizers)
        for index, moments in optimizer.state_dict()["state"].items()
        for name, tensor in moments.items()
    }
