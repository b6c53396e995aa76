"""A damaged file, or a file of something else, is told and left as it is."""

from __future__ import annotations

import random
import re
import shutil
import sqlite3
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from by_hand import t
from in_files import content, files, open_memory

from palimpsest.facts import Query, Triple
from palimpsest.memory import Source, TripleMemoryError

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


# -- of something else ---------------------------------------------------------------------------------------------


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
