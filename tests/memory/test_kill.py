"""Processes that are killed at any moment lose nothing that they have acknowledged."""

from __future__ import annotations

import random
import signal
import time
from dataclasses import dataclass, field
from itertools import count, islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from in_files import EXACT, open_memory

from children import Start, received
from palimpsest.facts import Query, Triple
from palimpsest.memory import Source, TripleMemory, sqlite

KILLS = 50


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
        child = start(write_until_killed, path, expected.done)
        # Every other one dies some batches after it has begun to write, the rest perhaps while they open.
        acknowledged = list(islice(received(child), chance.randint(1, 20) if kill % 2 else 0))
        time.sleep(chance.uniform(0, 0.06))
        child.process.kill()
        acknowledged += received(child)
        child.process.join()
        assert child.process.exitcode == -signal.SIGKILL
        while expected.done < max(acknowledged, default=0):
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
