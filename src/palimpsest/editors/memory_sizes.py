"""Larimar's read-outs with memories of a given number of slots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from palimpsest.editors.larimar import LarimarEditor
from palimpsest.editors.read_outs import PUBLISHED, read_outs
from palimpsest.larimar.addressing import SpanAddressing
from palimpsest.larimar.model import Larimar


def sized_read_outs(
    models: Mapping[str, Larimar], settings: Mapping[str, Any], slots: int, *, scoped: bool
) -> dict[str, LarimarEditor]:
    """As :func:`palimpsest.editors.read_outs.read_outs` gives them, but for the slots of their memories.

    The published read-out takes the first rows of its learned prior mean M₀, and the identity's for more.
    """
    addressings = {name: {**chosen, "slots": slots} for name, chosen in settings["addressings"].items()}
    editors = read_outs(models, {**settings, "addressings": addressings}, scoped=scoped)
    editors[PUBLISHED].addressing = SpanAddressing(resized(models["published"].prior, slots))
    editors[PUBLISHED].reset()  # which begins a memory of that size
    return editors


def resized(prior: Tensor, slots: int) -> Tensor:
    """M₀ (K, C) with other slots: its first rows, and below them rows of the identity, which beyond C are zeros."""
    kept = prior.detach()[:slots]
    more = torch.eye(slots, prior.shape[1], dtype=prior.dtype, device=prior.device)[len(kept) :]
    return torch.cat([kept, more])
