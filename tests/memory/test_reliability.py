"""What a memory in a file survives: death at any moment, many processes, full disks, damage; and that it forgets."""

from __future__ import annotations

import hashlib
import os
import random
import re
import resource
import shutil
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from palimpsest.facts import Query, Triple
from palimpsest.memory import FunctionEmbedder, Source, Thresholds, TripleMemory, TripleMemoryError, sqlite
from palimpsest.memory.embedding import CachedEmbedder

KILLS = 50
SECONDS = float(os.environ.get("PALIMPSEST_CONCURRENCY_SECONDS", "20"))
"""For how long one writes and eight read."""
NOBODY = 65534
EXACT = Thresholds(entity=0.001, relation=0.001, pair=0.001)

DIMENSION = 16


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


def t(text: str) -> Triple:
    """``"a r b"`` as a triple."""
    return Triple(*text.split())


def content(memory: TripleMemory) -> tuple[Any, ...]:
    """All that can be read out of a memory."""
    return list(memory), list(memory.history()), memory.counts()


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory.db"


# -- other processes -----------------------------------------------------------------------------------------------

Start = Callable[..., tuple[BaseProcess, Connection]]


@pytest.fixture(scope="module")
def processes() -> Any:
    """Starts processes in no time: they are forked from one that has done nothing but imports."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["palimpsest.memory", "palimpsest.memory.sqlite", "pytest"])
    return context


@pytest.fixture
def start(processes: Any) -> Iterator[Start]:
    """Starts ``function(connection, *arguments)`` in a process of its own; all are gone after the test."""
    started: list[BaseProcess] = []

    def run(function: Callable[..., None], *arguments: Any) -> tuple[BaseProcess, Connection]:
        ours, theirs = processes.Pipe()
        process = processes.Process(target=function, args=(theirs, *arguments), daemon=True)
        process.start()
        theirs.close()
        started.append(process)
        return process, ours

    yield run
    for process in started:
        process.kill()
        process.join()


def received(connection: Connection) -> list[Any]:
    """What came, after the other side has gone."""
    messages = []
    with suppress(EOFError, ConnectionResetError):
        while True:
            messages.append(connection.recv())
    return messages


def finished(process: BaseProcess, connection: Connection) -> list[Any]:
    """What a process sent that ran to its end without an error."""
    messages = received(connection)
    process.join(60)
    assert process.exitcode == 0
    return messages


# -- killed --------------------------------------------------------------------------------------------------------


@dataclass
class Expected:
    """What batches 1 to ``done`` leave behind: the documents of each triple, and what was replaced by what."""

    done: int = 0
    triples: dict[Triple, set[str]] = field(default_factory=dict)
    replaced: dict[Triple, str] = field(default_factory=dict)

    def advance(self) -> None:
        """One batch more."""
        self.done = number = self.done + 1
        kind, arguments = batch(number)
        if kind == "add":
            for triple in arguments:
                self.triples.setdefault(triple, set()).add(f"doc {number}")
        elif kind == "update":
            (new,) = arguments
            for old in [old for old in self.triples if (old.subject, old.relation) == (new.subject, new.relation)]:
                del self.triples[old]
                self.replaced[old] = new.object
            self.triples[new] = {f"doc {number}"}
        elif kind == "delete_document":
            (document,) = arguments
            self.triples = {triple: said for triple, said in self.triples.items() if said - {document}}
            self.triples = {triple: said - {document} for triple, said in self.triples.items()}
        else:
            for triple in arguments:
                del self.triples[triple]

    def __eq__(self, memory: object) -> bool:
        assert isinstance(memory, TripleMemory)
        stored = {s.triple: {source.document for source in s.sources} for s in memory}
        return stored == self.triples and {old.triple: old.replaced_by for old in memory.history()} == self.replaced


def batch(number: int) -> tuple[str, list[Any]]:
    """What batch ``number``, from 1, does: five of eight add, then one updates, two delete."""
    match number % 8:
        case 5:
            return "update", [Triple(f"s {number - 4} 0", "r 0", f"new {number}")]
        case 6:
            return "delete_document", [f"doc {number - 4}"]
        case 7:
            return "delete", [Triple(f"s {number - 4} {i}", "r 1", f"o {i}") for i in (4, 7)]
    own = [Triple(f"s {number} {i}", f"r {i % 3}", f"o {i}") for i in range(12)]
    return "add", [*own, Triple("all", "say", "so"), Triple("all", "say", f"{number % 3}")]


def write_batch(memory: TripleMemory, number: int) -> None:
    kind, arguments = batch(number)
    source = Source(f"doc {number}")
    if kind == "add":
        assert memory.add(arguments, source) >= 12
    elif kind == "update":
        assert memory.update(arguments[0], source)
    elif kind == "delete_document":
        assert memory.delete_document(arguments[0]) >= 12
    else:
        assert memory.delete(arguments) == 2


def write_until_killed(connection: Connection, path: Path, done: int) -> None:
    """Write batches after ``done`` and tell each that is acknowledged; open the memory anew now and then."""
    sqlite.WORTH_SAVING = 20  # so that closing writes an index file too
    numbers = count(done + 1)
    while True:
        with open_memory(path) as memory:
            for _ in range(13):
                number = next(numbers)
                write_batch(memory, number)
                connection.send(number)


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_and_nothing_is_half_there_after_kill_9(
    path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "WORTH_SAVING", 20)
    chance = random.Random(0)
    expected, loaded, unacknowledged = Expected(), 0, 0
    for kill in range(KILLS):
        process, connection = start(write_until_killed, path, expected.done)
        if kill % 2:  # every other one dies while it writes, the rest perhaps while it opens
            assert connection.poll(60)
        time.sleep(chance.uniform(0, 0.06))
        process.kill()
        acknowledged = max(received(connection), default=expected.done)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        while expected.done < acknowledged:
            expected.advance()
        loaded += path.with_name("memory.db.index").exists()
        with open_memory(path) as memory:
            if expected != memory:
                expected.advance()  # all of it was there before it could be said
                unacknowledged += 1
                assert expected == memory
            memory.check()
            last = [triple for triple in expected.triples if triple.subject.startswith("s ")][-12:]
            answers = memory.query_batch([Query(one.relation, subject=one.subject) for one in last], EXACT)
            assert [answer.names for answer in answers] == [[triple.object] for triple in last]
    assert expected.done > 2 * KILLS
    assert loaded  # some were killed with an index file there


# -- one writes, eight read ----------------------------------------------------------------------------------------


@dataclass
class Published:
    """Numbers that all processes see."""

    written: Any
    """The last batch that was committed."""
    deleted: Any
    """The last batch whose deletion was committed."""
    counter: Any
    """The last value of the counter that was committed."""
    stop: Any


def write_and_publish(connection: Connection, path: Path, published: Published) -> None:
    with open_memory(path) as memory:
        number = 0
        while not published.stop.is_set():
            number += 1
            memory.add([Triple(f"batch {number}", "has", f"item {number} {i}") for i in range(3)], Source(f"{number}"))
            published.written.value = number
            if number % 5 == 0:
                memory.update(Triple("counter", "is", f"{number}"))
                published.counter.value = number
            if number % 20 == 0:
                assert memory.delete_document(f"{number - 19}") == 3
                published.deleted.value = number - 19
    connection.send(number)


def read_what_was_published(connection: Connection, path: Path, published: Published, seed: int) -> None:
    """Every query has to see at least what had been committed before it was asked."""
    faiss.omp_set_num_threads(1)
    chance, asked = random.Random(seed), 0
    with open_memory(path, read_only=True, thresholds=EXACT) as memory:
        while not published.stop.is_set():
            written, deleted, counter = (getattr(published, name).value for name in ("written", "deleted", "counter"))
            kept = chance.randint(1, max(2, written))
            kept += kept % 20 == 1  # those are deleted some day
            names = [f"batch {number}" for number in (written, written + 1, deleted, kept)]
            queries = [*(Query("has", subject=name) for name in names), Query("has", object=f"item {kept} 1")]
            last, following, gone, any_kept, backwards, counted = memory.query_batch(
                [*queries, Query("is", subject="counter")]
            )
            if written:
                assert last.total == 3 or written % 20 == 1, f"{written}: {last}"
            assert following.total in (0, 3), f"half of {written + 1}: {following}"
            assert gone.total == 0, f"{deleted} is deleted: {gone}"
            if kept <= written:
                assert any_kept.names == [f"item {kept} {i}" for i in range(3)], f"{kept} of {written}"
                assert backwards.names == [f"batch {kept}"]
            if counter:
                assert counted.total == 1, counted
                assert int(counted.names[0]) >= counter
            asked += 1
            if asked % 50 == 0:
                assert sum(1 for _ in memory.select(subject="counter")) <= 1
                assert len(memory) >= 3 * (written - (written + 19) // 20)
    connection.send(asked)


@pytest.mark.slow
def test_one_writer_and_eight_readers_see_no_error_and_nothing_stale(path: Path, start: Start, processes: Any) -> None:
    open_memory(path).close()
    published = Published(*(processes.Value("q", 0, lock=False) for _ in range(3)), processes.Event())
    writer = start(write_and_publish, path, published)
    readers = [start(read_what_was_published, path, published, seed) for seed in range(8)]
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and all(process.is_alive() for process, _ in (writer, *readers)):
        time.sleep(0.1)
    published.stop.set()
    (batches,) = finished(*writer)
    asked = [number for reader in readers for number in finished(*reader)]
    assert len(asked) == 8
    assert min(asked) > 5 * SECONDS
    assert batches > 5 * SECONDS
    with open_memory(path) as memory:
        memory.check()
        assert len(memory) == 3 * (batches - batches // 20) + (batches >= 5)


# -- several write -------------------------------------------------------------------------------------------------


def write_beside_others(connection: Connection, path: Path, barrier: Any, who: int, batches: int) -> None:
    barrier.wait(60)
    with open_memory(path) as memory:
        for number in range(batches):
            memory.add([Triple(f"{who} {number}", "has", f"item {i}") for i in range(5)], Source(f"by {who}"))
            memory.add([Triple("all", "share", f"{number}")], Source(f"by {who}"))
            if number % 10 == 9:
                memory.delete([Triple(f"{who} {number}", "has", f"item {i}") for i in range(5)])
            answer = memory.query(Query("has", subject=f"{who} {number - number % 10}"), EXACT)
            assert answer.total == 5
    connection.send("done")


def test_two_processes_write_at_once(path: Path, start: Start, processes: Any) -> None:
    barrier = processes.Barrier(2)
    writers = [start(write_beside_others, path, barrier, who, 40) for who in range(2)]
    for writer in writers:
        assert finished(*writer) == ["done"]
    with open_memory(path) as memory:
        memory.check()
        for who in range(2):
            own = {stored.triple for stored in memory.select(document=f"by {who}") if stored.triple.relation == "has"}
            assert own == {
                Triple(f"{who} {number}", "has", f"item {i}")
                for number in range(40)
                if number % 10 != 9
                for i in range(5)
            }
        shared = list(memory.select(subject="all"))
        assert len(shared) == 40
        assert all({source.document for source in stored.sources} == {"by 0", "by 1"} for stored in shared)


@pytest.mark.parametrize("attempt", range(5))
def test_several_processes_make_the_same_memory_at_once(path: Path, start: Start, processes: Any, attempt: int) -> None:
    barrier = processes.Barrier(6)
    writers = [start(write_beside_others, path, barrier, who, 1) for who in range(6)]
    for writer in writers:
        assert finished(*writer) == ["done"]
    with open_memory(path) as memory:
        memory.check()
        assert memory.counts().triples == 6 * 5 + 1


# -- several threads -----------------------------------------------------------------------------------------------


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads take turns as often as can be."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("place", ["ram", "file"])
def test_four_threads_use_one_object(path: Path, place: str) -> None:
    barrier, errors = threading.Barrier(4), []

    def use(memory: TripleMemory, who: int) -> None:
        try:
            barrier.wait(60)
            for number in range(60):
                memory.add([Triple(f"{who} {number}", "has", f"item {i}") for i in range(3)])
                answers = memory.query_batch(
                    [Query("has", subject=f"{who} {n}") for n in (0, number // 2, number)]
                    + [Query("has", object="item 1"), Query("share", subject="all")],
                    EXACT,
                )
                assert [answer.total for answer in answers[:3]] == [3, 3 - (number // 2 % 10 == 9), 3]
                assert answers[3].total > number
                memory.update(Triple("all", "share", f"{who} {number}"))
                assert memory.query(Query("share", subject="all"), EXACT).total == 1
                if number % 10 == 9:
                    assert memory.delete([Triple(f"{who} {number}", "has", "item 2")]) == 1
                    assert sum(1 for _ in memory.select(subject=f"{who} {number}")) == 2
        except BaseException as error:
            errors.append(error)

    with TripleMemory.open(":memory:" if place == "ram" else path, EMBEDDER) as memory:
        threads = [threading.Thread(target=use, args=(memory, who)) for who in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        if errors:
            raise errors[0]
        memory.check()
        assert len(memory) == 4 * (60 * 3 - 6) + 1
        assert memory.counts().replaced == 4 * 60 - 1


@pytest.mark.usefixtures("hasty")
def test_threads_that_ask_for_the_same_names_are_all_answered() -> None:
    cached, errors, barrier = CachedEmbedder(EMBEDDER, capacity=30), [], threading.Barrier(4)

    def use(seed: int) -> None:
        chance = random.Random(seed)
        try:
            barrier.wait(60)
            for _ in range(1500):
                names = [f"name {chance.randrange(40)}" for _ in range(8)]
                found = cached(names)
                assert found.keys() == set(names)
                assert found[names[0]] == pytest.approx(embed(names[:1])[0], abs=1e-6)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=use, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    if errors:
        raise errors[0]


def test_a_name_may_leave_the_cache_while_others_are_embedded_beside_it() -> None:
    embedding, go_on, found = threading.Event(), threading.Event(), {}

    def slowly(names: Sequence[str]) -> np.ndarray:
        if "slow" in names:
            embedding.set()
            go_on.wait(10)
        return embed(names)

    cached = CachedEmbedder(FunctionEmbedder(slowly, "slow", DIMENSION), capacity=1)
    cached(["known"])
    first = threading.Thread(target=lambda: found.update(cached(["known", "slow"])))
    first.start()
    assert embedding.wait(10)
    second = threading.Thread(target=cached, args=(["another"],))  # there is room for one: known has to go
    second.start()
    second.join(0.3)  # or it waits its turn
    go_on.set()
    first.join(10)
    second.join(10)
    assert found.keys() == {"known", "slow"}


# -- no room, no right ---------------------------------------------------------------------------------------------


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
    *told, done = finished(*start(fill_up, path, limit))
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
    (told,) = finished(*start(delete_on_a_full_disk, path, limit))
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
    ((*left,),) = finished(*start(close_on_a_full_disk, path))
    assert set(left) <= {"memory.db", "memory.db-wal", "memory.db-shm"}
    with open_memory(path) as memory:
        assert len(memory) == 2100
        memory.check()


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
        messages = finished(*start(use_without_rights, folder))
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


# -- damaged -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small memory with sources, history and gaps, closed."""
    path = tmp_path_factory.mktemp("sound") / "memory.db"
    with open_memory(path) as memory:
        for n in range(30):
            triples = [Triple(f"subject {n}", f"relation {m % 4}", f"object {m} of {n}") for m in range(8)]
            memory.add(triples, Source(f"document {n % 5}", n, "writer", datetime(2001, 2, 3, 4, 5, 6, 789, UTC)))
        for n in range(6):
            memory.update(Triple(f"subject {n}", "relation 1", f"update {n}"))
        memory.delete_document("document 4")
    return path


SOME = [Query(f"relation {n % 4}", subject=f"subject {n}") for n in range(30)] + [
    Query(f"relation {n % 4}", object=f"object {n % 8} of {n}") for n in range(30)
]


def told_or_same(path: Path, expected: tuple[Any, ...]) -> str:
    """Open, check and read a file that is perhaps damaged: what it is told to be, or "" if nothing is lost."""
    try:
        with open_memory(path, read_only=True) as memory:
            memory.check()
            found = content(memory), [answer.names for answer in memory.query_batch(SOME)]
    except TripleMemoryError as error:
        return str(error)
    assert found == expected
    return ""


@pytest.fixture(scope="module")
def expected(sound: Path) -> tuple[Any, ...]:
    with open_memory(sound, read_only=True) as memory:
        return content(memory), [answer.names for answer in memory.query_batch(SOME)]


def test_a_truncated_file_is_told_and_left_as_it_is(sound: Path, path: Path, expected: tuple[Any, ...]) -> None:
    whole = sound.read_bytes()
    assert len(whole) > 5 * 4096
    path.write_bytes(whole)
    assert told_or_same(path, expected) == ""
    lengths = [15, 16, 17, 50, 99, 100, 101, 511, 512, 1000, 4095, 4096, 4097, 8191, 8192, 12_288, len(whole) // 2]
    for length in [*lengths, len(whole) - 4097, len(whole) - 4096, len(whole) - 1]:
        path.write_bytes(whole[:length])
        assert str(path) in told_or_same(path, expected), length
        with pytest.raises(TripleMemoryError, match=re.escape(str(path))), open_memory(path) as memory:
            memory.check()
        assert path.read_bytes() == whole[:length]


@dataclass
class Damage:
    """What became of a file with one wrong bit, over many places."""

    told: int = 0
    other_errors: list[str] = field(default_factory=list)
    """Where something else than a TripleMemoryError came out."""
    silent: list[str] = field(default_factory=list)
    """Where check() passed and something else was read than was written."""

    def at(self, place: int, bit: int, sound: Path, path: Path, expected: tuple[Any, ...]) -> None:
        whole = sound.read_bytes()
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
        where = f"bit {bit} of byte {place}, {whole[max(0, place - 8) : place + 8]!r}"
        try:
            self.told += told_or_same(path, expected) != ""
        except AssertionError:
            self.silent.append(where)
        except Exception as error:
            self.other_errors.append(f"{where}: {type(error).__name__}: {error}")


@pytest.fixture(scope="module")
def in_header(sound: Path, expected: tuple[Any, ...], tmp_path_factory: pytest.TempPathFactory) -> Damage:
    damage, path = Damage(), tmp_path_factory.mktemp("header") / "memory.db"
    for place in range(100):
        for bit in (place % 8, (place + 3) % 8, (place + 6) % 8):
            damage.at(place, bit, sound, path, expected)
    return damage


@pytest.fixture(scope="module")
def in_middle(sound: Path, expected: tuple[Any, ...], tmp_path_factory: pytest.TempPathFactory) -> Damage:
    damage, path = Damage(), tmp_path_factory.mktemp("middle") / "memory.db"
    chance, size = random.Random(0), sound.stat().st_size
    for _ in range(300):
        damage.at(chance.randrange(100, size), chance.randrange(8), sound, path, expected)
    return damage


@pytest.mark.parametrize("place", ["in_header", "in_middle"])
def test_a_wrong_bit_is_told_as_an_error_of_the_memory(request: pytest.FixtureRequest, place: str) -> None:
    damage = request.getfixturevalue(place)
    assert damage.other_errors == []
    assert damage.told > 50


@pytest.mark.parametrize("place", ["in_header", "in_middle"])
def test_a_wrong_bit_changes_nothing_unnoticed(request: pytest.FixtureRequest, place: str) -> None:
    assert request.getfixturevalue(place).silent == []


def test_a_page_of_zeros_is_told(sound: Path, path: Path, expected: tuple[Any, ...]) -> None:
    whole = sound.read_bytes()
    for start in range(0, len(whole), 4096):
        path.write_bytes(whole[:start] + bytes(4096) + whole[start + 4096 :])
        free = not whole[start : start + 4096].strip(b"\0")
        assert told_or_same(path, expected) or free, start


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize(
    "other",
    [b"Some notes, not a memory.\n" * 50, b"xy", b"\0" * 8192, b"SQLite format 3\0", b"SQLite format 3\0" + bytes(4080),
     b"PK\x03\x04" + bytes(2000)],
)  # fmt: skip
def test_another_file_is_told_and_left_as_it_is(path: Path, other: bytes, read_only: bool) -> None:
    path.write_bytes(other)
    with pytest.raises(TripleMemoryError, match=re.escape(str(path))):
        open_memory(path, read_only=read_only)
    assert files(path.parent) == {"memory.db": other}


def test_an_empty_file_is_no_memory_to_read(path: Path) -> None:
    path.touch()
    with pytest.raises(TripleMemoryError, match="empty"):
        open_memory(path, read_only=True)
    assert files(path.parent) == {"memory.db": b""}
    with open_memory(path) as memory:  # but one can be made there
        assert memory.add([t("a r b")]) == 1


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("table", ["notes", "triples", "meta"])
def test_a_database_of_another_application_is_told_and_left_as_it_is(path: Path, table: str, read_only: bool) -> None:
    database = sqlite3.connect(path)
    database.execute(f"CREATE TABLE {table} (key TEXT, value TEXT)")
    database.execute(f"INSERT INTO {table} VALUES ('format', 1)")
    database.commit()
    database.close()
    before = files(path.parent)
    with pytest.raises(TripleMemoryError, match="not a memory of triples"):
        open_memory(path, read_only=read_only)
    assert files(path.parent) == before


def test_a_memory_of_a_later_format_is_told_and_left_as_it_is(sound: Path, path: Path) -> None:
    shutil.copy(sound, path)
    database = sqlite3.connect(path)
    database.execute("UPDATE meta SET value = 99 WHERE key = 'format'")
    database.commit()
    database.close()
    before = path.read_bytes()
    with pytest.raises(TripleMemoryError, match=r"format.*99"):
        open_memory(path)
    assert path.read_bytes() == before


# -- the index file ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A memory that is large enough to keep its index, closed, and beside it what it was a little earlier."""
    folder = tmp_path_factory.mktemp("large")
    path = folder / "memory.db"
    with open_memory(path) as memory:
        memory.add([Triple(f"subject {n}", f"relation {n % 5}", f"object {n}") for n in range(3000)])
        memory.delete([Triple(f"subject {n}", f"relation {n % 5}", f"object {n}") for n in range(0, 3000, 100)])
        memory.snapshot(folder / "earlier.db")
    shutil.copy(folder / "memory.db.index", folder / "earlier.index")
    with open_memory(path) as memory:
        memory.add([Triple(f"later {n}", f"relation {n % 5}", f"object {n}") for n in range(100)])
        memory.delete([Triple(f"subject {n}", f"relation {n % 5}", f"object {n}") for n in range(1, 3000, 100)])
    with open_memory(folder / "another.db") as memory:
        memory.add([Triple(f"other {n}", "relation 1", f"another {n}") for n in range(3000)])
        memory.query(Query("relation 1", subject="other 1"))  # what is never asked has no index
    assert (folder / "memory.db.index").exists()
    assert (folder / "another.db.index").exists()
    return path


@pytest.fixture
def copied(large: Path, tmp_path: Path) -> Path:
    shutil.copytree(large.parent, tmp_path, dirs_exist_ok=True)
    return tmp_path / "memory.db"


def some_answers(memory: TripleMemory) -> list[tuple[list[str], int]]:
    """Of questions about what was there early, came late, or is gone, in the same words and in others."""
    numbers = [*range(0, 3000, 50), *range(1, 3000, 100)]
    exact = [Query(f"relation {n % 5}", subject=f"subject {n}") for n in numbers]
    exact += [Query(f"relation {n % 5}", subject=f"later {n}") for n in range(0, 100, 9)]
    exact += [Query(f"relation {n % 5}", object=f"object {n}") for n in numbers]
    near = [Query(f"relation {n % 5}~", subject=f"subject {n}~") for n in numbers]
    near += [Query(f"relation {n % 5}", object=f"object {n}~") for n in numbers]
    return [(answer.names, answer.total) for answer in memory.query_batch(exact + near)]


def assert_works_like_before(path: Path, before: list[tuple[list[str], int]]) -> None:
    """Same answers, new names are found, and so again when it has been closed and opened."""
    with open_memory(path) as memory:
        assert some_answers(memory) == before
        memory.check()
        assert memory.add([t("something new entirely"), t("subject-new relation-new object-new")]) == 2
        assert memory.query(Query("new", subject="something")).names == ["entirely"]
        memory.check()
    with open_memory(path) as memory:
        assert memory.query(Query("relation-new", object="object-new")).names == ["subject-new"]
        assert memory.delete([t("something new entirely"), t("subject-new relation-new object-new")]) == 2
        assert some_answers(memory) == before
        memory.check()


def rewritten(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        index = path.with_name("memory.db.index")
        index.write_bytes(change(index.read_bytes()))

    return spoil


SPOILT: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: path.with_name("memory.db.index").unlink(),
    "empty": rewritten(lambda index: b""),
    "cut in half": rewritten(lambda index: index[: len(index) // 2]),
    "cut in its header": rewritten(lambda index: index[:40]),
    "one byte short": rewritten(lambda index: index[:-1]),
    "one byte long": rewritten(lambda index: index + b"\0"),
    "a wrong bit in a vector": rewritten(lambda index: index[:-5000] + bytes([index[-5000] ^ 8]) + index[-4999:]),
    "a wrong bit in its header": rewritten(lambda index: bytes([index[0] ^ 1]) + index[1:]),
    "text": rewritten(lambda index: b"not an index\n" * 1000),
    "from another memory": lambda path: shutil.copy(path.with_name("another.db.index"), f"{path}.index"),
    "older than the tables": lambda path: shutil.copy(path.with_name("earlier.index"), f"{path}.index"),
}


@pytest.fixture(scope="module")
def answers(large: Path) -> list[tuple[list[str], int]]:
    with open_memory(large, read_only=True) as memory:
        found = some_answers(memory)
    assert sum(total for _, total in found) > 130
    return found


@pytest.mark.parametrize("spoilt", ["not at all", *SPOILT])
def test_a_spoilt_index_file_changes_no_answer(copied: Path, answers: list[tuple[list[str], int]], spoilt: str) -> None:
    SPOILT.get(spoilt, lambda path: None)(copied)
    assert_works_like_before(copied, answers)


def test_a_wrong_digit_in_the_header_of_an_index_file_changes_no_answer(
    copied: Path, answers: list[tuple[list[str], int]]
) -> None:
    """It says how far the index follows the tables, say: with 7 for 6 thousand, names would be missing for good."""
    index = copied.with_name("memory.db.index")
    whole = index.read_bytes()
    header = re.match(rb"[\x20-\x7e\n]+", whole)
    places = [digit.start() for digit in re.finditer(rb"[0-9]", header[0])]
    assert len(places) > 8
    for place in places[:: len(places) // 8]:
        index.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with open_memory(copied, read_only=True) as memory:
            assert some_answers(memory) == answers
            memory.check()


def test_tables_put_back_from_a_snapshot_do_not_believe_the_index_of_later(copied: Path) -> None:
    """A user restores the snapshot in the place of the file; what is indexed is of ids that are to come."""
    earlier = copied.with_name("earlier.db")
    with open_memory(earlier, read_only=True) as memory:
        before = some_answers(memory)
    shutil.copy(earlier, copied)
    assert_works_like_before(copied, before)


def test_a_reader_needs_no_index_file_and_writes_none(copied: Path, answers: list[tuple[list[str], int]]) -> None:
    copied.with_name("memory.db.index").unlink()
    with open_memory(copied, read_only=True) as memory:
        assert some_answers(memory) == answers
        memory.check()
    assert not copied.with_name("memory.db.index").exists()


# -- forgotten -----------------------------------------------------------------------------------------------------


def token(*seed: object) -> str:
    """24 hexadecimal digits, which are found nowhere else."""
    return hashlib.blake2b(repr(seed).encode(), digest_size=12).hexdigest()


def pieces(text: bytes) -> set[bytes]:
    """All ten characters in a row of its tokens: parts of what was deleted must not stay either."""
    runs = re.findall(rb"[0-9a-f]{10,}", text)
    return {run[start : start + 10] for run in runs for start in range(len(run) - 9)}


class Forgetful:
    """A memory whose names are tokens, in any order, short and long; and what of them has to be gone."""

    COUNT = 2500

    def __init__(self, path: Path) -> None:
        self.path = path
        self.memory = open_memory(path)
        chance = random.Random(0)
        self.triples = [Triple(self.name("s", n), token("r", n % 40), self.name("o", n)) for n in range(self.COUNT)]
        self.places = list(range(self.COUNT))
        chance.shuffle(self.places)
        for start in range(0, self.COUNT, 250):
            chosen = self.places[start : start + 250]
            self.memory.add(
                [self.triples[n] for n in chosen],
                [Source(token("document", n), n, token("writer", n)) for n in chosen],
            )

    @staticmethod
    def name(*seed: object) -> str:
        """One in fifty is as long as names may be: that is more than SQLite keeps in one place."""
        return f"{token(*seed)} " * (80 if int(token(*seed)[:4], 16) % 50 == 0 else 1)

    def assert_gone(self, texts: Sequence[str], entities: Sequence[str], of: str = "") -> None:
        """No piece of the texts, and no half of a vector, in any file (``of`` a name); nothing in the index."""
        gone = set().union(*(pieces(text.encode()) for text in texts))
        vectors = embed(list(entities)).astype("<f2")
        for name, data in files(self.path.parent).items():
            if of in name:
                left = pieces(data) & gone
                assert not left, name
                halves = [half for v in vectors[:150] for half in (v[:8].tobytes(), v[8:].tobytes())]
                assert not any(half in data for half in halves), name
        for mirror in (self.memory.store._entities, self.memory.store._relations):
            indexed = {vector.tobytes() for vector in mirror.index.contents()[1]}
            assert not indexed & {vector.tobytes() for vector in vectors}
        for name in entities[:20]:
            assert all(not list(self.memory.select(**{role: name})) for role in ("subject", "object"))

    def texts_of(self, number: int) -> list[str]:
        """All names that only this triple has: its relation is in others too."""
        triple = self.triples[number]
        return [triple.subject, triple.object, token("document", number), token("writer", number)]


@pytest.fixture
def forgetful(path: Path) -> Iterator[Forgetful]:
    forgetful = Forgetful(path)
    yield forgetful
    forgetful.memory.close()


def delete_triples(forgetful: Forgetful, numbers: Sequence[int]) -> int:
    return forgetful.memory.delete([forgetful.triples[n] for n in numbers])


def delete_entities(forgetful: Forgetful, numbers: Sequence[int]) -> int:
    deleted = sum(forgetful.memory.delete_entity(forgetful.triples[n].subject, erase=False) for n in numbers[:-1])
    return deleted + forgetful.memory.delete_entity(forgetful.triples[numbers[-1]].subject)


def delete_documents(forgetful: Forgetful, numbers: Sequence[int]) -> int:
    deleted = sum(forgetful.memory.delete_document(token("document", n), erase=False) for n in numbers)
    forgetful.memory.erase()
    return deleted


DELETES = {"triples": delete_triples, "entities": delete_entities, "documents": delete_documents}


@pytest.mark.parametrize(
    ("kind", "way", "amount"),
    [
        ("triples", "at random", 700),
        ("triples", "in order", 700),
        ("triples", "in order", Forgetful.COUNT - 5),
        ("entities", "at random", 200),
        ("entities", "in order", 400),
        ("documents", "at random", 200),
        ("documents", "in order", 400),
    ],
)
def test_nothing_of_what_was_deleted_can_be_read_anywhere(
    forgetful: Forgetful, kind: str, way: str, amount: int
) -> None:
    places = forgetful.places[::-1]
    if way == "in order":
        places.sort(key=lambda n: forgetful.triples[n].subject)
    numbers = places[:amount]
    assert DELETES[kind](forgetful, numbers) == len(numbers)
    texts = [text for n in numbers for text in forgetful.texts_of(n)]
    entities = [name for n in numbers for name in (forgetful.triples[n].subject, forgetful.triples[n].object)]
    forgetful.assert_gone(texts, entities)
    forgetful.memory.check()
    forgetful.memory.snapshot(forgetful.path.with_name("snapshot.db"))
    forgetful.memory.close()  # this writes the index file
    forgetful.memory = open_memory(forgetful.path)
    forgetful.assert_gone(texts, entities)
    assert len(forgetful.memory) == forgetful.COUNT - len(numbers)


def test_a_relation_that_nothing_uses_any_more_cannot_be_read_either(forgetful: Forgetful) -> None:
    numbers = [n for n in range(forgetful.COUNT) if n % 40 == 7]
    delete_triples(forgetful, numbers)
    relation = token("r", 7)
    forgetful.assert_gone([relation, *(text for n in numbers for text in forgetful.texts_of(n))], [relation])


def test_what_was_replaced_goes_for_good_when_it_is_deleted(forgetful: Forgetful) -> None:
    numbers = forgetful.places[:40]
    for n in numbers:
        old = forgetful.triples[n]
        forgetful.memory.update(Triple(old.subject, old.relation, token("new", n)))
    assert delete_triples(forgetful, numbers) == 40
    gone = [forgetful.triples[n].object for n in numbers]
    forgetful.assert_gone(gone + [token("document", n) for n in numbers], gone)
    assert list(forgetful.memory.history()) == []
    assert len(forgetful.memory) == forgetful.COUNT


def test_the_index_file_of_before_is_gone_with_the_delete(forgetful: Forgetful) -> None:
    forgetful.memory.query(SOME[0])  # what is never asked has no index
    forgetful.memory.close()
    assert forgetful.path.with_name("memory.db.index").exists()
    forgetful.memory = open_memory(forgetful.path)
    numbers = forgetful.places[:50]
    delete_triples(forgetful, numbers)
    entities = [name for n in numbers for name in (forgetful.triples[n].subject, forgetful.triples[n].object)]
    forgetful.assert_gone([], entities, of="index")


def test_another_process_forgets_too_and_saves_no_index_with_it(forgetful: Forgetful) -> None:
    other = open_memory(forgetful.path)
    other.add([t("something new entirely")])
    assert other.query(Query("new", subject="something")).total == 1  # so that it has something to save
    numbers = forgetful.places[:50]
    delete_triples(forgetful, numbers)
    entities = [name for n in numbers for name in (forgetful.triples[n].subject, forgetful.triples[n].object)]
    other.close()
    assert forgetful.path.with_name("memory.db.index").exists()
    forgetful.assert_gone([], entities, of="index")


def die_while_saving(connection: Connection, path: Path) -> None:
    """Close a memory, and die when the index is written, but does not stand in its place yet."""
    os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    with open_memory(path) as memory:
        memory.add([t("something new entirely")])
        memory.query(Query("new", subject="something"))


def test_what_a_dying_process_left_behind_is_forgotten_too(forgetful: Forgetful, start: Start) -> None:
    forgetful.memory.close()
    process, connection = start(die_while_saving, forgetful.path)
    received(connection)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    forgetful.memory = open_memory(forgetful.path)
    numbers = forgetful.places[:50]
    delete_triples(forgetful, numbers)
    entities = [name for n in numbers for name in (forgetful.triples[n].subject, forgetful.triples[n].object)]
    forgetful.assert_gone([], entities, of="index")


@pytest.mark.parametrize("last", ["writer", "reader"])
def test_a_reader_delays_forgetting_at_most_until_all_have_closed(
    forgetful: Forgetful, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    for name in ("BUSY_SECONDS", "READERS_MILLISECONDS"):
        monkeypatch.setattr(sqlite, name, 0.1 if name == "BUSY_SECONDS" else 100, raising=False)
    forgetful.memory.close()
    forgetful.memory = open_memory(forgetful.path)
    reader = open_memory(forgetful.path, read_only=True)
    reading = iter(reader)
    next(reading)
    numbers = forgetful.places[:50]
    with pytest.warns(UserWarning, match="a reader holds on to the state before"):
        delete_triples(forgetful, numbers)
    assert sum(1 for _ in reading) == forgetful.COUNT - 1  # all of one state
    if last == "reader":
        forgetful.memory.close()
        reader.close()
    else:
        reader.close()
        forgetful.memory.close()
    log = forgetful.path.with_name("memory.db-wal")
    texts = set().union(*(pieces(text.encode()) for n in numbers for text in forgetful.texts_of(n)))
    left = pieces(log.read_bytes()) & texts if log.exists() else set()
    assert not left
