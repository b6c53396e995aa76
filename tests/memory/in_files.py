"""Memories in files, with an embedder that is cheap and that other processes can make too."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from palimpsest.memory import FunctionEmbedder, Thresholds, TripleMemory

DIMENSION = 16
EXACT = Thresholds(entity=0.001, relation=0.001, pair=0.001)


def embed(names: Sequence[str]) -> np.ndarray:
    """A random direction for each name, cheaply; ``name~`` is near ``name``, at 0.04."""
    digests = b"".join(hashlib.blake2b(name.encode(), digest_size=4 * DIMENSION).digest() for name in names)
    vectors = np.frombuffer(digests, "<i4").reshape(-1, DIMENSION) / 2.0**31
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    if turned := [place for place, name in enumerate(names) if name.endswith("~")]:
        vectors[turned] = embed([names[place][:-1] for place in turned]) + 0.3 * vectors[turned]
        vectors[turned] /= np.linalg.norm(vectors[turned], axis=1, keepdims=True)
    return vectors


EMBEDDER = FunctionEmbedder(embed, "random directions", DIMENSION)


def open_memory(path: Path, **options: Any) -> TripleMemory:
    return TripleMemory.open(path, EMBEDDER, **options)


def content(memory: TripleMemory) -> tuple[Any, ...]:
    """All that can be read out of a memory, but for answers."""
    return list(memory), list(memory.history()), memory.counts()


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
