"""Several processes, or threads, use one memory and all write."""

from __future__ import annotations

import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from in_files import EMBEDDER, EXACT, open_memory

from children import Start, finished
from palimpsest.facts import Query, Triple
from palimpsest.memory import Source, TripleMemory

# -- processes -----------------------------------------------------------------------------------------------------


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
    assert finished(*writers) == [["done"]] * 2
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
    assert finished(*writers) == [["done"]] * 6
    with open_memory(path) as memory:
        memory.check()
        assert memory.counts().triples == 6 * 5 + 1


# -- threads -------------------------------------------------------------------------------------------------------


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
