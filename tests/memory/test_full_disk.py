"""On a full disk a memory says so, loses nothing, and goes on when there is room again."""

from __future__ import annotations

import re
import resource
import signal
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from in_files import EXACT, files, open_memory

from children import Start, finished
from palimpsest.facts import Query, Triple
from palimpsest.memory import TripleMemoryError


def fill_up(connection: Connection, path: Path, limit: int) -> None:
    """Add batches until the disk is full; then there is room again."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    memory = open_memory(path, thresholds=EXACT)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    done = 0
    with suppress(TripleMemoryError):
        while done < 10_000:
            memory.add([Triple(f"s {done} {i}", "r", f"o {done} {i}" + 200 * "x") for i in range(50)])
            done += 1
    try:
        memory.add([Triple("big" * 600, "r", f"{i} {'big' * 600}") for i in range(5000)])
    except TripleMemoryError as error:
        connection.send(str(error))
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        memory.snapshot(path.with_name("snapshot.db"))
    except TripleMemoryError as error:
        connection.send(str(error))
    assert memory.query(Query("r", subject=f"s {done - 1} 7")).total == 1  # it can still be read
    assert memory.query(Query("r", subject=f"s {done} 7")).total == 0
    assert len(memory) == 50 * done
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert memory.add([Triple("after", "r", "all")]) == 1  # and written when there is room
    memory.check()
    memory.close()
    connection.send(done)


@pytest.mark.parametrize("limit", [1_000_000, 5_500_000])
def test_a_full_disk_is_told_and_nothing_is_lost(path: Path, start: Start, limit: int) -> None:
    """The smaller one stops the log, the larger one the file itself, which grows when the log is taken over."""
    ((*told, done),) = finished(start(fill_up, path, limit))
    assert all(re.search("full|disk I/O|too large", message) for message in told), told
    assert len(told) == 2
    assert done > 3
    assert [file for file in files(path.parent) if "snapshot" in file] == []
    with open_memory(path) as memory:
        memory.check()
        stored = {triple.subject for triple in (stored.triple for stored in memory)}
        assert stored == {f"s {n} {i}" for n in range(done) for i in range(50)} | {"after"}


def delete_on_a_full_disk(connection: Connection, path: Path, limit: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with open_memory(path, thresholds=EXACT) as memory:
        memory.add([Triple(f"s {i}", "r", f"o {i}" + 100 * "x") for i in range(1000)])
    memory = open_memory(path, thresholds=EXACT)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        memory.delete_entity("s 7")
        connection.send("deleted though the disk is full")
    except TripleMemoryError as error:
        connection.send(str(error))
    left = memory.query(Query("r", subject="s 7")).total
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert memory.query(Query("r", subject="s 7")).total == len(list(memory.select(subject="s 7"))) == left
    memory.check()
    assert memory.delete_entity("s 8") == 1
    assert memory.delete_entity("s 7") == left
    memory.close()


@pytest.mark.parametrize("limit", [20_000, 60_000, 150_000])
def test_deleting_on_a_full_disk_is_told_and_can_be_done_again(path: Path, start: Start, limit: int) -> None:
    """With the smallest limit nothing can be written, with the largest only rewriting the file fails."""
    ((told,),) = finished(start(delete_on_a_full_disk, path, limit))
    assert re.search("full|disk I/O|too large", told), told
    assert not [name for name, data in files(path.parent).items() if b"o 7xxx" in data]
    with open_memory(path) as memory:
        assert len(memory) == 998
        memory.check()


def close_on_a_full_disk(connection: Connection, path: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    memory = open_memory(path)
    memory.add([Triple(f"s {i}", "r", f"o {i}") for i in range(2100)])
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    with suppress(TripleMemoryError):
        memory.close()
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    memory.close()
    connection.send(sorted(file.name for file in path.parent.iterdir()))


def test_closing_on_a_full_disk_loses_at_most_the_index_file(path: Path, start: Start) -> None:
    ((left,),) = finished(start(close_on_a_full_disk, path))
    assert set(left) <= {"memory.db", "memory.db-wal", "memory.db-shm"}
    with open_memory(path) as memory:
        assert len(memory) == 2100
        memory.check()
