"""What an addressing is: from a state of the memory to the next, and from queries to weights over slots."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor

S = TypeVar("S")


class MemoryFullError(ValueError):
    """There are more facts to write than free slots."""


class Addressing(ABC, Generic[S]):
    """The interface. K is :attr:`slots`, D :attr:`key_size`; keys, values and queries may be of any precision."""

    apart: ClassVar[bool] = True
    """Whether a key is another encoding than its value."""
    state_type: ClassVar[Any]
    """The NamedTuple of tensors that is the state."""
    identity: str
    """Names everything that shapes the weights: states of two identities never mix."""

    def __init__(self, slots: int, key_size: int, device: torch.device | str) -> None:
        if min(slots, key_size) < 1:
            raise ValueError(f"expected one slot or more and keys of one number or more, not {slots} and {key_size}")
        self.slots, self.key_size, self.device = slots, key_size, torch.device(device)

    @property
    def capacity(self) -> int:
        """How many facts, at the most, can be told apart."""
        return self.slots

    @abstractmethod
    def empty(self, value_size: int) -> S:
        """The state in which nothing is written, for values of C numbers."""

    @abstractmethod
    def write(self, state: S, keys: Tensor, values: Tensor) -> S:
        """The state with facts (N, D) → (N, C) written in addition.

        Raises:
            MemoryFullError: they do not fit.
            ValueError: values that this addressing cannot hold.
        """

    @abstractmethod
    def forget(self, state: S, keys: Tensor, values: Tensor) -> S:
        """The state as if facts had never been written; ``keys`` and ``values`` are, to the last bit, those written.

        Raises:
            NotWrittenError: they evidently were not.
        """

    @abstractmethod
    def read_weights(self, state: S, queries: Tensor) -> Tensor:
        """Addressing weights (N, K) of queries (N, D), float64."""

    @abstractmethod
    def familiarity(self, state: S, queries: Tensor) -> Tensor:
        """How much of each query (N, D) lies in what is written: (N,) from 0, nothing, to 1, float64.

        Keys that are written have 1, or a ridge less, while N is small beside K. Writing never lowers it, and
        forgetting gives back the value of before.
        """

    @abstractmethod
    def contents(self, state: S) -> Tensor:
        """The matrix (K, C), of which a read-out is a combination of rows."""

    @abstractmethod
    def used(self, state: S) -> float:
        """How many slots are taken, in effect."""

    @abstractmethod
    def conditioning(self, state: S) -> float:
        """Condition number of the system that the memory solves; forgetting loses about twice as many digits."""
