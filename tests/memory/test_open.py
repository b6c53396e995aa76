"""A memory is opened again, by others beside, to read only; and closed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from by_hand import Opened, current, objects, subjects, t, ts, whole

from palimpsest.facts import Query
from palimpsest.memory import FunctionEmbedder, Source, TripleMemory, TripleMemoryError

# -- again ---------------------------------------------------------------------------------------------------------


def test_reopening_brings_everything_back(lived_in: TripleMemory, lasting: str, opened: Opened) -> None:
    before = whole(lived_in)
    lived_in.close()
    again = opened()
    assert whole(again) == before
    again.add(ts("a r e"))
    again.close()
    assert objects(opened(), "a", "r") == ["b", "e"]


@pytest.mark.parametrize(
    ("identity", "dimension", "message"),
    [("another model", 48, "embedder.*turned directions.*another model"), ("turned directions", 47, "48.*47")],
)
def test_another_embedder_is_refused(
    lived_in: TripleMemory, lasting: str, opened: Opened, identity: str, dimension: int, message: str
) -> None:
    before = whole(lived_in)
    lived_in.close()
    other = FunctionEmbedder(lambda names: np.eye(len(names), dimension), identity, dimension)
    with pytest.raises(TripleMemoryError, match=message):
        TripleMemory.open(lasting, other)
    with pytest.raises(TripleMemoryError, match=message):
        TripleMemory.open(lasting, other, read_only=True)
    assert whole(opened()) == before


# -- by several ----------------------------------------------------------------------------------------------------


def test_a_reader_follows_the_writer(lived_in: TripleMemory, lasting: str, opened: Opened) -> None:
    reader = opened(read_only=True)
    assert objects(reader, "a", "r") == ["b"]
    lived_in.add(ts("a r new"))
    assert objects(reader, "a", "r") == ["b", "new"]


def test_two_objects_see_each_others_commits_at_once(lasting: str, opened: Opened) -> None:
    here, there = opened(), opened()
    here.add(ts("a r b"))
    assert objects(there, "a", "r") == objects(here, "a", "r") == ["b"]
    there.add(ts("a r c", "a~0.1 r d"))
    assert objects(here, "a", "r") == ["b", "c"]
    assert there.update(t("a r c")) == ts("a r b")
    assert objects(here, "a", "r") == ["c"]
    assert [old.triple for old in here.history()] == ts("a r b")
    here.delete(ts("a r c"))
    assert objects(there, "a", "r") == ["d"]  # nothing is exact any more
    assert current(there) == ts("a~0.1 r d")
    there.delete_entity("a~0.1")
    assert here.query(Query("r", subject="a")).total == 0
    here.add(ts("a r b"))  # names that have come, gone and come again
    there.add(ts("b r a"))
    assert objects(there, "a", "r") == subjects(here, "r", "a") == ["b"]
    here.check()
    there.check()


# -- to read only --------------------------------------------------------------------------------------------------

WRITES: dict[str, Callable[[TripleMemory], object]] = {
    "add": lambda memory: memory.add(ts("e r f")),
    "add what is there": lambda memory: memory.add(ts("a r b"), Source("new")),
    "update": lambda memory: memory.update(t("a r d")),
    "delete": lambda memory: memory.delete(ts("a r b")),
    "delete what is not there": lambda memory: memory.delete(ts("no no no")),
    "delete_entity": lambda memory: memory.delete_entity("a"),
    "delete_document": lambda memory: memory.delete_document("doc"),
    "erase": lambda memory: memory.erase(),
}


@pytest.mark.parametrize("write", WRITES)
def test_to_read_only_is_not_to_write(lived_in: TripleMemory, lasting: str, opened: Opened, write: str) -> None:
    before = whole(lived_in)
    lived_in.close()
    reader = opened(read_only=True)
    with pytest.raises(TripleMemoryError, match="read only"):
        WRITES[write](reader)
    assert whole(reader) == before
    reader.check()
    assert whole(opened()) == before


def test_to_read_there_has_to_be_something(where: str, embedder: FunctionEmbedder, tmp_path: Path) -> None:
    with pytest.raises(TripleMemoryError):
        TripleMemory.open(where, embedder, read_only=True)
    assert list(tmp_path.iterdir()) == []
    with TripleMemory.open(where, embedder) as memory:  # it was not made by looking
        assert len(memory) == 0


# -- closed --------------------------------------------------------------------------------------------------------

USES: dict[str, Callable[[TripleMemory], object]] = WRITES | {
    "query": lambda memory: memory.query(Query("r", subject="a")),
    "query_batch": lambda memory: memory.query_batch([Query("r", subject="a"), Query("r", object="a")]),
    "iterate": list,
    "select": lambda memory: list(memory.select(subject="a")),
    "history": lambda memory: list(memory.history()),
    "in": lambda memory: t("a r b") in memory,
    "len": len,
    "counts": lambda memory: memory.counts(),
    "check": lambda memory: memory.check(),
}


@pytest.mark.parametrize("use", USES)
def test_a_closed_memory_says_so(opened: Opened, use: str) -> None:
    with opened() as memory:
        memory.add(ts("a r b"))
    with pytest.raises(TripleMemoryError, match="closed"):
        USES[use](memory)
    memory.close()


def test_a_closed_memory_makes_no_snapshot(memory: TripleMemory, tmp_path: Path) -> None:
    memory.close()
    with pytest.raises(TripleMemoryError, match="closed"):
        memory.snapshot(tmp_path / "snapshot.db")
    assert not (tmp_path / "snapshot.db").exists()
