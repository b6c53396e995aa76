"""Triples with their sources as JSON Lines and as tables of pandas, out of a memory and into one.

What is exchanged are the current triples. History and vectors stay behind; :meth:`TripleMemory.snapshot` takes all.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import Field

from palimpsest.data.records import Record, Text, atomic, parse_records
from palimpsest.facts import DataError, Triple
from palimpsest.memory.memory import TripleMemory
from palimpsest.memory.store import NO_SOURCE, Source, StoredTriple

COLUMNS = ["subject", "relation", "object", "document", "sentence", "writer", "time"]
ADDED_AT_ONCE = 10_000


class SourceRecord(Record):
    """A source as it is written; what is not known is left out."""

    document: Text | None = None
    sentence: int | None = None
    writer: Text | None = None
    time: str | None = None


class TripleRecord(Record):
    """One line of a JSON Lines file."""

    subject: Text
    relation: Text
    object: Text
    sources: list[SourceRecord] = Field(default=[])


def write_jsonl(path: Path | str, triples: Iterable[StoredTriple]) -> int:
    """Write triples, one a line, atomically and in flat memory; return how many there were.

    ``write_jsonl(path, memory)`` writes all; ``memory.select(…)`` gives some.
    """
    count = 0
    with atomic(Path(path)) as file:
        for stored in triples:
            subject, relation, thing = stored.triple.subject, stored.triple.relation, stored.triple.object
            sources = [_filled(_source_values(source)) for source in stored.sources]
            line = {"subject": subject, "relation": relation, "object": thing, "sources": sources}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            count += 1
    return count


def read_jsonl(path: Path | str) -> Iterator[StoredTriple]:
    """Read triples one by one.

    Raises:
        DataError: the file cannot be read, or a line is not such a record; names the line, counted from 0.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file):
                try:
                    record = json.loads(line)
                except ValueError as error:
                    raise DataError(f"{path}: record {number}: expected one line of JSON: {error}") from error
                yield from parse_records(path, [record], TripleRecord, _to_triple, start=number)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def to_frame(triples: Iterable[StoredTriple]) -> pd.DataFrame:
    """Triples as a table with one source a row; columns as in ``COLUMNS``."""
    rows = [
        (stored.triple.subject, stored.triple.relation, stored.triple.object, *_source_values(source).values())
        for stored in triples
        for source in stored.sources or (NO_SOURCE,)
    ]
    return pd.DataFrame(rows, columns=COLUMNS).astype({"sentence": "Int64"})


def from_frame(frame: pd.DataFrame) -> Iterator[StoredTriple]:
    """Triples from a table that has at least ``subject``, ``relation`` and ``object``, one source a row.

    Raises:
        DataError: a column is missing, or a row is not such a record; names the row, counted from 0.
    """
    if missing := [name for name in COLUMNS[:3] if name not in frame.columns]:
        raise DataError(f"the table has no column {', '.join(missing)}")
    used = frame[[name for name in COLUMNS if name in frame.columns]].astype(object)
    for number, row in enumerate(used.where(used.notna(), None).to_dict("records")):
        names = {name: row.pop(name) for name in COLUMNS[:3]}
        yield from parse_records(Path("table"), [{**names, "sources": [row]}], TripleRecord, _to_triple, start=number)


def add_all(memory: TripleMemory, triples: Iterable[StoredTriple]) -> int:
    """Add triples with all their sources, ten thousand sources at a time; return how many triples were new."""
    stated = ((stored.triple, source) for stored in triples for source in stored.sources or (NO_SOURCE,))
    new = 0
    while batch := list(islice(stated, ADDED_AT_ONCE)):
        new += memory.add([triple for triple, _ in batch], [source for _, source in batch])
    return new


def _source_values(source: Source) -> dict[str, Any]:
    time = source.time and source.time.isoformat()
    return {"document": source.document, "sentence": source.sentence, "writer": source.writer, "time": time}


def _filled(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _to_triple(record: TripleRecord, _: int) -> StoredTriple:
    try:
        sources = tuple(
            Source(s.document, s.sentence, s.writer, datetime.fromisoformat(s.time) if s.time else None)
            for s in record.sources
        )
    except ValueError as error:
        raise DataError(f"sources: {error}") from error
    return StoredTriple(Triple(record.subject, record.relation, record.object), sources)
