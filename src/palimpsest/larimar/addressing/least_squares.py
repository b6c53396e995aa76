"""Recursive least squares, as Larimar writes and forgets, for any weights that depend on the key alone."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from palimpsest.larimar import algebra
from palimpsest.larimar.addressing.interface import Addressing
from palimpsest.larimar.algebra import State

RIDGE = 1e-3  # forgetting is then exact to about 1e-9, see palimpsest.larimar.algebra.update


class LeastSquares(Addressing[State]):
    """Writes and forgets by recursive least squares, with weights that depend on the key alone.

    A fact's equation w M = z is divided by ‖w‖, so that ``ridge`` is relative to ‖w‖² whatever the encoder's scale.
    Otherwise this matters only where facts contradict one another (N > K): relative errors count.
    """

    state_type = State

    def __init__(self, slots: int, key_size: int, ridge: float, device: torch.device | str) -> None:
        super().__init__(slots, key_size, device)
        self.ridge = ridge
        algebra.initial_state(torch.zeros(1, 1), ridge)  # says what is wrong with it

    @abstractmethod
    def write_weights(self, keys: Tensor) -> Tensor:
        """W (N, K) of keys (N, D), float64."""

    def empty(self, value_size: int) -> State:
        return algebra.initial_state(torch.zeros(self.slots, value_size, device=self.device), self.ridge)

    def write(self, state: State, keys: Tensor, values: Tensor) -> State:
        return algebra.update(state, *self._equations(keys, values))

    def forget(self, state: State, keys: Tensor, values: Tensor) -> State:
        return algebra.update(state, *self._equations(keys, values), alpha=-1)

    def _equations(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        weights = self.write_weights(keys)
        lengths = weights.norm(dim=1, keepdim=True)
        lengths = lengths.where(lengths > 0, lengths.new_ones(()))
        return weights / lengths, values.double() / lengths

    def contents(self, state: State) -> Tensor:
        return state.memory

    def used(self, state: State) -> float:
        return float(algebra.slots_used(state, self.ridge))

    def conditioning(self, state: State) -> float:
        return float(algebra.conditioning(state))
