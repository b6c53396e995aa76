"""One process writes while eight read: no error, and nothing stale."""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import faiss
import pytest
from in_files import EXACT, open_memory

from children import PATIENCE, Start, finished
from palimpsest.facts import Query, Triple
from palimpsest.memory import Source

SECONDS = float(os.environ.get("PALIMPSEST_CONCURRENCY_SECONDS", "20"))
"""For how long, at least."""
POLITE = 10
"""How much less urgent these nine processes are than the tests beside them."""
ENOUGH = 100
"""Batches that are to be written, and questions each reader is to ask: on a busy machine that takes longer."""


@dataclass
class Published:
    """Numbers that all processes see."""

    written: Any
    """The last batch that was committed."""
    deleted: Any
    """The last batch whose deletion was committed."""
    counter: Any
    """The last value of the counter that was committed."""
    asked: Any
    """How many times each reader has asked."""
    stop: Any


def write_and_publish(_: Connection, path: Path, published: Published) -> None:
    os.nice(POLITE)
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


def read_what_was_published(_: Connection, path: Path, published: Published, number: int) -> None:
    """Every query has to see at least what had been committed before it was asked."""
    os.nice(POLITE)
    faiss.omp_set_num_threads(1)
    chance = random.Random(number)
    with open_memory(path, read_only=True, thresholds=EXACT) as memory:
        while not published.stop.is_set():
            written, deleted, counter = (getattr(published, name).value for name in ("written", "deleted", "counter"))
            kept = chance.randint(1, max(2, written))
            kept += kept % 20 == 1  # those are deleted some day
            names = [f"batch {batch}" for batch in (written, written + 1, deleted, kept)]
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
            published.asked[number] += 1
            if published.asked[number] % 50 == 0:
                assert sum(1 for _ in memory.select(subject="counter")) <= 1
                assert len(memory) >= 3 * (written - (written + 19) // 20)


@pytest.mark.slow
def test_one_writer_and_eight_readers_see_no_error_and_nothing_stale(path: Path, start: Start, processes: Any) -> None:
    open_memory(path).close()
    numbers = (processes.Value("q", 0, lock=False) for _ in range(3))
    published = Published(*numbers, processes.Array("q", 8, lock=False), processes.Event())
    children = [start(write_and_publish, path, published)]
    children += [start(read_what_was_published, path, published, number) for number in range(8)]
    begun = time.monotonic()
    while all(child.process.is_alive() for child in children):
        enough = min(published.written.value, *published.asked) >= ENOUGH
        if time.monotonic() - begun > (SECONDS if enough else PATIENCE):
            break
        time.sleep(0.1)
    published.stop.set()
    finished(*children)
    batches = published.written.value
    assert min(batches, *published.asked) >= ENOUGH
    with open_memory(path) as memory:
        memory.check()
        assert len(memory) == 3 * (batches - batches // 20) + (batches >= 5)
