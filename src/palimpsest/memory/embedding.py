"""From names to unit vectors: any embedder, with a cache before it and a check behind it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from palimpsest.memory.store import Vector

UNIT = 1e-3  # by how much the length of a unit vector may be off
CACHED = 50_000  # names


class Embedder(Protocol):
    """What makes the vectors of a memory; a :class:`~palimpsest.lm.encoder.SentenceEncoder` is one."""

    @property
    def identity(self) -> str:
        """Names everything that shapes the vectors. A memory is only opened with the embedder that made it."""

    @property
    def dimension(self) -> int:
        """Length C of the vectors."""

    def encode(self, texts: Sequence[str], /) -> Any:
        """Unit vectors (N, C) of N texts, as an array or a tensor."""


@dataclass(frozen=True, slots=True)
class FunctionEmbedder:
    """Any function from a list of N texts to unit vectors (N, C), under a name that identifies it."""

    function: Callable[[Sequence[str]], ArrayLike]
    identity: str
    dimension: int

    def encode(self, texts: Sequence[str], /) -> ArrayLike:
        return self.function(texts)


class CachedEmbedder:
    """Embeds what it has not embedded lately, in one batch."""

    def __init__(self, embedder: Embedder, capacity: int = CACHED) -> None:
        self.embedder, self.capacity = embedder, capacity
        self._cache: OrderedDict[str, Vector] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, names: Iterable[str]) -> dict[str, Vector]:
        """Unit vectors (C,), float32, by name.

        Raises:
            ValueError: the embedder gave something else: another number of vectors or another length, numbers that are
                not finite, or vectors that are not of length 1.
        """
        names = list(dict.fromkeys(names))
        with self._lock:
            new = [name for name in names if name not in self._cache]
            made = dict(zip(new, self._embed(new), strict=True)) if new else {}
            found = {name: made[name] if name in made else self._cache.pop(name) for name in names}
            self._cache |= found  # what was used last stands last
            while len(self._cache) > self.capacity:
                self._cache.popitem(last=False)
        return found

    def _embed(self, names: Sequence[str]) -> NDArray[np.float32]:
        vectors = np.asarray(self.embedder.encode(names), np.float32)
        expected = (len(names), self.embedder.dimension)
        if vectors.shape != expected:
            raise ValueError(f"{self.embedder.identity}: expected vectors {expected}, got {vectors.shape}")
        lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
        for name, length in zip(names, lengths, strict=True):
            if not abs(length - 1) <= UNIT:  # also where it is not a number
                raise ValueError(
                    f"{self.embedder.identity}: expected a unit vector for {name!r}, its length is {length}"
                )
        return vectors
