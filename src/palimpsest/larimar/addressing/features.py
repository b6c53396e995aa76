"""Random features of a key as weights: a kernel regression whose size does not grow."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from palimpsest.larimar.addressing.key_map import checked_map, digest_of, mapped
from palimpsest.larimar.addressing.least_squares import RIDGE, LeastSquares
from palimpsest.larimar.algebra import State

Features = Literal["relu", "fourier"]
SHARPNESS: dict[Features, float] = {"relu": 0.0, "fourier": 1.0}


class FeatureAddressing(LeastSquares):
    """Keys and values apart; weights are K random features of the key's direction, a vector of length 1.

    ``relu``: max(0, r·k − sharpness), for keys k of length 1 and Gaussian r. ``fourier``: cos(sharpness · r·k + b),
    which makes the kernel exp(−sharpness² ‖k − k′‖² / 2).

    Args:
        slots, key_size: K and D.
        seed: of the features, which are the same on every device.
        sharpness: the larger, the less two keys share: facts are told apart, and paraphrases with them. None takes
            what serves sentence encodings: 0 for ``relu``, 1 for ``fourier``.
        ridge: relative to the squared length of weights. Facts are read back to about this; the larger it is, the
            smoother is what is read between them.
        key_map: see :func:`palimpsest.larimar.addressing.key_map.mapped`.
    """

    def __init__(
        self,
        slots: int,
        key_size: int,
        *,
        seed: int,
        kind: Features = "relu",
        sharpness: float | None = None,
        ridge: float = RIDGE,
        key_map: Tensor | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(slots, key_size, ridge, device)
        self._key_map = checked_map(key_map, key_size, self.device)
        if kind not in SHARPNESS:
            raise ValueError(f"features: expected one of {', '.join(SHARPNESS)}, not {kind}")
        self.kind = kind
        self.sharpness = SHARPNESS[kind] if sharpness is None else sharpness
        generator = torch.Generator().manual_seed(seed)
        inner = key_size if self._key_map is None else self._key_map.shape[1]
        projection = torch.randn(inner, slots, generator=generator, dtype=torch.float64)
        phases = 2 * torch.pi * torch.rand(slots, generator=generator, dtype=torch.float64)
        drawn = digest_of(projection, phases, *([] if self._key_map is None else [self._key_map]))
        self.identity = f"{kind}/{slots}x{key_size}/{self.sharpness}/{ridge}/{drawn}"
        self._projection, self._phases = projection.to(self.device), phases.to(self.device)

    def write_weights(self, keys: Tensor) -> Tensor:
        projected = mapped(keys, self._key_map) @ self._projection
        if self.kind == "relu":
            return normalize((projected - self.sharpness).relu(), dim=-1)
        return normalize((self.sharpness * projected + self._phases).cos(), dim=-1)

    def read_weights(self, state: State, queries: Tensor) -> Tensor:
        return self.write_weights(queries)

    def familiarity(self, state: State, queries: Tensor) -> Tensor:
        """The leverage of a query in the regression from keys to values, 1 − ridge · w P wᵀ for w of length 1.

        It is w Wᵀ (W Wᵀ + ridge)⁻¹ W wᵀ: how much of w the weights W of what is written make up.
        """
        weights = self.write_weights(queries)
        left = self.ridge * ((weights @ state.inverse) * weights).sum(1)
        return (weights.square().sum(1) - left).clamp(0, 1)  # of a query without any feature w is 0, not of length 1
