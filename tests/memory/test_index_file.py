"""The index file beside a memory changes no answer, whatever becomes of it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from by_hand import t
from in_files import open_memory

from palimpsest.facts import Query, Triple
from palimpsest.memory import TripleMemory


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
