"""Of what was deleted no byte stays in any file, and no vector in an index."""

from __future__ import annotations

import hashlib
import os
import random
import re
import signal
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from by_hand import t
from in_files import embed, files, open_memory

from children import Start, received
from palimpsest.facts import Query, Triple
from palimpsest.memory import Source, sqlite


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
    forgetful.memory.query(Query("any", subject="any"))  # what is never asked has no index
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
    child = start(die_while_saving, forgetful.path)
    assert list(received(child)) == []
    child.process.join()
    assert child.process.exitcode == -signal.SIGKILL
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
