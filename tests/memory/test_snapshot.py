"""A snapshot is one state of a memory as a file of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from by_hand import objects, ts, whole

from palimpsest.memory import FunctionEmbedder, TripleMemory, TripleMemoryError


def test_a_snapshot_is_a_file_with_everything_in_it(
    lived_in: TripleMemory, tmp_path: Path, embedder: FunctionEmbedder
) -> None:
    path = tmp_path / "new folder" / "snapshot.db"
    lived_in.snapshot(path)
    before = whole(lived_in)
    lived_in.add(ts("a r later"))
    assert [file.name for file in path.parent.iterdir()] == ["snapshot.db"]
    content = path.read_bytes()
    with TripleMemory.open(path, embedder, read_only=True) as copy:
        assert whole(copy) == before
        copy.check()
        with pytest.raises(TripleMemoryError, match="read only"):
            copy.add(ts("e r f"))
        with pytest.raises(TripleMemoryError, match="is there already"):
            lived_in.snapshot(path)
    assert path.read_bytes() == content
    assert b"later" not in content
    other = FunctionEmbedder(embedder.function, "another model", embedder.dimension)
    with pytest.raises(TripleMemoryError, match="another model"):
        TripleMemory.open(path, other, read_only=True)


def test_a_snapshot_can_be_written_to_and_goes_its_own_way(
    lived_in: TripleMemory, tmp_path: Path, embedder: FunctionEmbedder
) -> None:
    before = whole(lived_in)
    lived_in.snapshot(tmp_path / "snapshot.db")
    with TripleMemory.open(tmp_path / "snapshot.db", embedder) as copy:
        copy.add(ts("a r e", "f r b"))
        copy.delete_entity("c")
        assert objects(copy, "a", "r") == ["b", "e"]
        copy.check()
        copy.snapshot(tmp_path / "another.db")
    assert whole(lived_in) == before
    with TripleMemory.open(tmp_path / "another.db", embedder) as copy:
        assert objects(copy, "a", "r") == ["b", "e"]
