"""Trained models opened for experiments that ask the same prompts of many memories."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from palimpsest.larimar.model import Larimar
from palimpsest.lm.encoder_cache import RememberingEncoder


def open_remembering(folder: Path, names: Sequence[str], device: str | torch.device) -> dict[str, Larimar]:
    """The models of a folder, frozen, by name; each text is encoded once, for all that have the same encoder.

    Raises what :meth:`palimpsest.larimar.model.Larimar.load` raises.
    """
    encoders: dict[str, RememberingEncoder] = {}
    models = {}
    for name in names:
        model = Larimar.load(folder / name, device)
        model.encoder = encoders.setdefault(model.encoder.identity, RememberingEncoder.of(model.encoder))
        models[name] = model
    return models
