"""The published addressing: a projection on the span of what is written."""

from __future__ import annotations

import torch
from torch import Tensor

from palimpsest.larimar import algebra
from palimpsest.larimar.addressing.key_map import digest_of
from palimpsest.larimar.addressing.least_squares import RIDGE, LeastSquares
from palimpsest.larimar.algebra import State


class SpanAddressing(LeastSquares):
    """Published: written with Z M₀⁺, read with Z_query M⁺, where Z are encodings that are keys and values at once.

    Args:
        prior: M₀ (K, C), where the identity is usual.
        ridge: of the update, relative to the squared length of weights. It changes M, not its span.
        cutoff: directions of which M has less than this part of what M₀ has in the mean are not read. The read-out
            would make a whole of the smallest trace that forgetting leaves.
    """

    apart = False

    def __init__(self, prior: Tensor, *, ridge: float = RIDGE, cutoff: float = 1e-4) -> None:
        slots, code = prior.shape
        super().__init__(slots, code, ridge, prior.device)
        prior = prior.detach().double()
        self._trace = cutoff**2 * float(prior.square().sum()) / min(slots, code)  # M is of the size of M₀, whatever Z
        self.identity = f"span/{self.slots}x{self.key_size}/{ridge}/{cutoff}/{digest_of(prior)}"
        self._inverse = algebra.address(torch.eye(self.key_size, dtype=prior.dtype, device=prior.device), prior)

    @property
    def capacity(self) -> int:
        return min(self.slots, self.key_size)

    def empty(self, value_size: int) -> State:
        if value_size != self.key_size:
            raise ValueError(f"encodings are stored as they are, {self.key_size} numbers each, not {value_size}")
        return super().empty(value_size)

    def write(self, state: State, keys: Tensor, values: Tensor) -> State:
        if not bool((keys == values).all()):
            raise ValueError("an encoding is its own key: expected the same keys and values")
        return super().write(state, keys, values)

    def write_weights(self, keys: Tensor) -> Tensor:
        return keys.double() @ self._inverse

    def read_weights(self, state: State, queries: Tensor) -> Tensor:
        return algebra.address(queries, state.memory, ridge=self._trace)

    def familiarity(self, state: State, queries: Tensor) -> Tensor:
        """‖z_read‖² / ‖z‖²: the share of a query's squared length that lies in the span of what is written.

        Past N = K, where a memory of fewer slots than C tilts its span, writing may lower it.
        """
        read = self.read_weights(state, queries) @ state.memory
        whole = queries.double().square().sum(1)
        return (read.square().sum(1) / whole.where(whole > 0, 1)).clamp(0, 1)
