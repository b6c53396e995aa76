"""Triples leave a memory and come back with all that is known of them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from palimpsest.facts import DataError, Triple
from palimpsest.memory import FunctionEmbedder, Source, StoredTriple, TripleMemory
from palimpsest.memory.exchange import add_all, from_frame, read_jsonl, to_frame, write_jsonl

LONG_AGO = datetime(2001, 2, 3, 4, 5, 6, 789, UTC)
TOLD = [
    (Triple("Ulysses", "author", "Joyce"), Source("Novels", 0, "gold", LONG_AGO)),
    (Triple("Ulysses", "author", "Joyce"), Source("Dublin", 2, None, LONG_AGO)),
    (Triple('a "b"\n{c}', "é>>;})", "\u2028 d"), Source(None, None, None, LONG_AGO)),
]


@pytest.fixture
def told(memory: TripleMemory) -> TripleMemory:
    for triple, source in TOLD:
        memory.add([triple], source)
    return memory


def restored(triples: object, embedder: FunctionEmbedder) -> list[StoredTriple]:
    with TripleMemory.open(":memory:", embedder) as other:
        add_all(other, triples)
        return list(other)


def test_json_lines_bring_everything_back(told: TripleMemory, tmp_path: Path, embedder: FunctionEmbedder) -> None:
    path = tmp_path / "triples.jsonl"
    assert write_jsonl(path, told) == 2
    assert len(path.read_bytes().splitlines()) == 2
    assert list(read_jsonl(path)) == list(told)
    assert restored(read_jsonl(path), embedder) == list(told)


def test_a_table_has_one_source_a_row_and_brings_everything_back(
    told: TripleMemory, embedder: FunctionEmbedder
) -> None:
    frame = to_frame(told)
    assert frame["document"].tolist()[:2] == ["Dublin", "Novels"]
    assert frame["sentence"].isna().tolist() == [False, False, True]
    assert restored(from_frame(frame), embedder) == list(told)


def test_a_table_of_names_alone_is_enough(memory: TripleMemory) -> None:
    frame = pd.DataFrame({"subject": ["a", "a"], "relation": ["r", "r"], "object": ["b", "c"]})
    assert add_all(memory, from_frame(frame)) == 2
    assert add_all(memory, from_frame(frame)) == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "record 1: expected one line of JSON"),
        ("[]", "record 1: the whole: expected an object"),
        ('{"subject": "a", "relation": "r"}', "record 1: object: expected, but missing"),
        ('{"subject": "a", "relation": "r", "object": " "}', "record 1: object: expected text that is not blank"),
        (
            '{"subject": "a", "relation": "r", "object": "b", "sources": [{"sentence": "1"}]}',
            r"record 1: sources\[0\].sentence: expected a valid integer",
        ),
        (
            '{"subject": "a", "relation": "r", "object": "b", "sources": [{"time": "noon"}]}',
            "record 1: sources: Invalid isoformat",
        ),
        (
            '{"subject": "a", "relation": "r", "object": "b", "sources": [{"time": "2001-01-01T00:00:00"}]}',
            "record 1: sources: .* needs a time zone",
        ),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "triples.jsonl"
    path.write_text('{"subject": "a", "relation": "r", "object": "b"}\n' + line + "\n")
    with pytest.raises(DataError, match=message):
        list(read_jsonl(path))


def test_a_bad_table_is_told() -> None:
    with pytest.raises(DataError, match="no column object"):
        list(from_frame(pd.DataFrame({"subject": ["a"], "relation": ["r"]})))
    with pytest.raises(DataError, match="record 0: relation: expected"):
        list(from_frame(pd.DataFrame({"subject": ["a"], "relation": [None], "object": ["b"]})))


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        list(read_jsonl(tmp_path / "none.jsonl"))
