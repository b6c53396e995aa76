"""Attention over stored keys: one fact a slot."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from palimpsest.larimar.addressing.interface import Addressing, MemoryFullError
from palimpsest.larimar.addressing.key_map import checked_map, digest_of, mapped
from palimpsest.larimar.algebra import NotWrittenError


class Slots(NamedTuple):
    """State of :class:`NearestAddressing`; slots that are free hold zeros."""

    keys: Tensor
    """(K, D), float64."""
    values: Tensor
    """(K, C), float64."""
    used: Tensor
    """(K,), bool."""


class NearestAddressing(Addressing[Slots]):
    """One fact a slot; weights are softmax(β cos(query, key)) over the facts, or over the nearest few.

    Args:
        slots, key_size: K and D.
        inverse_temperature: β; the larger, the nearer to a look-up.
        top: how many of the nearest facts are read; None reads all.
        key_map: see :func:`palimpsest.larimar.addressing.key_map.mapped`.
    """

    state_type = Slots

    def __init__(
        self,
        slots: int,
        key_size: int,
        *,
        inverse_temperature: float = 40.0,
        top: int | None = None,
        key_map: Tensor | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(slots, key_size, device)
        self._key_map = checked_map(key_map, key_size, self.device)
        if inverse_temperature <= 0 or (top is not None and top < 1):
            raise ValueError(f"expected a positive inverse temperature and top, not {inverse_temperature} and {top}")
        self.inverse_temperature, self.top = inverse_temperature, top
        mapped = "" if self._key_map is None else f"/{digest_of(self._key_map)}"
        self.identity = f"nearest/{slots}x{key_size}/{inverse_temperature}/{top}{mapped}"

    def empty(self, value_size: int) -> Slots:
        keys, values = (
            torch.zeros(self.slots, size, dtype=torch.float64, device=self.device)
            for size in (self.key_size, value_size)
        )
        return Slots(keys, values, torch.zeros(self.slots, dtype=torch.bool, device=self.device))

    def write(self, state: Slots, keys: Tensor, values: Tensor) -> Slots:
        free = (~state.used).nonzero()[:, 0]
        if len(keys) > len(free):
            raise MemoryFullError(f"{len(keys)} facts to write, but of {self.slots} slots {len(free)} are free")
        return self._fill(state, free[: len(keys)], keys.double(), values.double(), True)

    def forget(self, state: Slots, keys: Tensor, values: Tensor) -> Slots:
        left = state.used.clone()
        for key, value in zip(keys.double(), values.double(), strict=True):
            same = (left & (state.keys == key).all(1) & (state.values == value).all(1)).nonzero()
            if not len(same):
                raise NotWrittenError("to forget takes keys and values that were written; of these, some were not")
            left[same[0]] = False
        gone = (state.used & ~left).nonzero()[:, 0]
        return self._fill(state, gone, state.keys.new_zeros(()), state.values.new_zeros(()), False)

    def _fill(self, state: Slots, slots: Tensor, keys: Tensor, values: Tensor, used: bool) -> Slots:
        new = Slots(*(tensor.clone() for tensor in state))
        new.keys[slots], new.values[slots], new.used[slots] = keys, values, used
        return new

    def read_weights(self, state: Slots, queries: Tensor) -> Tensor:
        weights = queries.new_zeros(len(queries), self.slots, dtype=torch.float64)
        taken = state.used.nonzero()[:, 0]
        if len(taken):
            nearest, places = self._cosines(state, queries).topk(min(self.top or len(taken), len(taken)))
            weights.scatter_(1, taken[places], (self.inverse_temperature * nearest).softmax(-1))
        return weights

    def familiarity(self, state: Slots, queries: Tensor) -> Tensor:
        """The largest cosine of a query and a stored key, max_k cos(q, k), where it is positive."""
        if not bool(state.used.any()):
            return queries.new_zeros(len(queries), dtype=torch.float64)
        return self._cosines(state, queries).amax(1).clamp(0, 1)

    def _cosines(self, state: Slots, queries: Tensor) -> Tensor:
        """Of queries (N, D) and the keys in slots that are used, (N, used)."""
        return mapped(queries, self._key_map) @ mapped(state.keys[state.used], self._key_map).mT

    def contents(self, state: Slots) -> Tensor:
        return state.values

    def used(self, state: Slots) -> float:
        return float(state.used.sum())

    def conditioning(self, state: Slots) -> float:
        return 1.0
