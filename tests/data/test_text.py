from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palimpsest.data.text import read_chunks, write_chunks
from palimpsest.facts import DataError

CHUNKS = st.text(min_size=1, max_size=20).filter(str.strip).filter(lambda text: not {"\n", "\r"} & set(text))


@settings(deadline=None)
@given(st.lists(CHUNKS))
def test_chunks_round_trip(tmp_path_factory: pytest.TempPathFactory, chunks: list[str]) -> None:
    path = tmp_path_factory.mktemp("text") / "chunks.txt"
    assert write_chunks(path, iter(chunks)) == len(chunks)
    assert list(read_chunks(path)) == chunks


def test_only_line_feeds_part_chunks_and_blank_lines_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "chunks.txt"
    path.write_bytes("one\u2028still one\r\n\n  \ntwo\x0bstill two\n\nthree".encode())
    assert list(read_chunks(path)) == ["one\u2028still one", "two\x0bstill two", "three"]


def test_wrong_bytes_are_named_by_line_and_what_is_before_them_is_read(tmp_path: Path) -> None:
    path = tmp_path / "chunks.txt"
    path.write_bytes(b"one\n\ntw\xe9\n")
    chunks = read_chunks(path)
    assert next(chunks) == "one"
    with pytest.raises(DataError) as caught:
        next(chunks)
    assert str(caught.value) == rf"{path}: line 3: expected UTF-8, found b'\xe9'"


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"chunks\.txt: cannot be read \(No such file"):
        list(read_chunks(tmp_path / "chunks.txt"))


@pytest.mark.parametrize("chunk", ["two\nlines", "two\rlines", "", "  "])
def test_chunks_that_could_not_be_read_again(tmp_path: Path, chunk: str) -> None:
    with pytest.raises(DataError, match=r"chunks\.txt: chunk 1: expected one line that is not blank, found"):
        write_chunks(tmp_path / "chunks.txt", ["fine", chunk])
    assert list(tmp_path.iterdir()) == []
