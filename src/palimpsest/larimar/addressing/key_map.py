"""Keys by way of a linear map, and names of the numbers that shape an addressing."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor
from torch.nn.functional import normalize


def mapped(keys: Tensor, key_map: Tensor | None) -> Tensor:
    """Directions (N, D′) of keys (N, D), float64, after a linear map (D, D′) if there is one.

    Such a map is learnt by :func:`palimpsest.larimar.keys.learn_keys`.
    """
    keys = keys.double()
    return normalize(keys if key_map is None else keys @ key_map, dim=-1)


def checked_map(key_map: Tensor | None, key_size: int, device: torch.device) -> Tensor | None:
    if key_map is None:
        return None
    if key_map.ndim != 2 or len(key_map) != key_size or not bool(key_map.isfinite().all()):
        raise ValueError(f"key_map: expected finite numbers ({key_size}, any), not of shape {tuple(key_map.shape)}")
    return key_map.detach().to(device).double()


def digest_of(*tensors: Tensor) -> str:
    """A name of some numbers: 16 hexadecimal digits of their SHA-256."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.cpu().contiguous().numpy().data)
    return digest.hexdigest()[:16]
