"""Where a memory can be, where none can be, and where it may only be read."""

from __future__ import annotations

import os
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from by_hand import current, t, ts
from in_files import EXACT, files, open_memory

from children import Start, finished
from palimpsest.facts import Query
from palimpsest.memory import FunctionEmbedder, TripleMemory, TripleMemoryError

NOBODY = 65534


def test_a_file_may_have_any_name(tmp_path: Path, embedder: FunctionEmbedder) -> None:
    path = tmp_path / "a?mode=ro#b%41&c ü.db"
    with TripleMemory.open(path, embedder) as memory:
        memory.add(ts("a r b"))
        assert current(memory) == ts("a r b")
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    with TripleMemory.open(str(path), embedder, read_only=True) as memory:
        assert current(memory) == ts("a r b")


@pytest.mark.parametrize("where", ["file.txt/memory.db", "/proc/memory.db", "/dev/null/memory.db", "."])
@pytest.mark.parametrize("read_only", [False, True])
def test_a_place_where_nothing_can_be_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, read_only: bool
) -> None:
    (tmp_path / "file.txt").write_text("not a folder")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TripleMemoryError):
        open_memory(Path(where), read_only=read_only)
    assert files(tmp_path) == {"file.txt": b"not a folder"}


def use_without_rights(connection: Connection, folder: Path) -> None:
    if os.geteuid() == 0:  # rights do not bind root
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    for name, read_only in (("memory.db", False), ("new.db", False), ("memory.db", True), ("snapshot.db", True)):
        try:
            with open_memory(folder / name, read_only=read_only, thresholds=EXACT) as memory:
                connection.send((name, read_only, memory.query(Query("r", subject="a")).names))
                memory.add([t("c r d")])
                connection.send("written")
        except TripleMemoryError as error:
            connection.send((name, read_only, str(error)))


def test_a_read_only_folder_is_told_and_nothing_is_changed(start: Start) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with open_memory(folder / "memory.db") as memory:
            memory.add([t("a r b")])
            memory.snapshot(folder / "snapshot.db")
        for file in folder.iterdir():
            file.chmod(0o444)
        folder.chmod(0o555)
        before = files(folder)
        (messages,) = finished(start(use_without_rights, folder))
        assert files(folder) == before
        folder.chmod(0o755)
    to_write, new, to_read, *snapshot = (message for message in messages if message != ("memory.db", True, ["b"]))
    assert to_write[:2] == ("memory.db", False)
    assert isinstance(to_write[2], str)
    assert new[:2] == ("new.db", False)
    assert isinstance(new[2], str)
    assert to_read[:2] == ("memory.db", True)
    assert isinstance(to_read[2], str)
    assert snapshot[0] == ("snapshot.db", True, ["b"])
    assert "read only" in snapshot[1][2]
