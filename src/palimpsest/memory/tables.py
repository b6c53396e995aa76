"""What a memory does with its SQLite tables, inside a transaction that the caller has begun.

Names and ids go in as bound parameters, lists of them as one JSON array, so that every operation is a constant number
of statements. The only text put into SQL is names of tables and columns from this package.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib import resources
from itertools import groupby
from typing import Any
from zlib import crc32

from palimpsest.facts import Known, Triple
from palimpsest.memory.mirror import to_bytes
from palimpsest.memory.store import Pattern, Source, StoredTriple, UnknownNames, Vector, Vectors

APPLICATION = 0x50414C49  # marks a SQLite file as a memory of ours
FORMAT = 1

Ids = tuple[int, int, int]
"""Ids of a triple's subject, relation and object."""

EVERY = (
    "(SELECT id, subject, relation, object FROM triples UNION ALL SELECT id, subject, relation, object FROM replaced)"
)
"""All triples, current and replaced."""

OTHER: dict[Known, str] = {"subject": "object", "object": "subject"}


def create(db: sqlite3.Connection, meta: Mapping[str, Any]) -> None:
    """Make an empty memory in an empty database."""
    script = resources.files("palimpsest.memory").joinpath("schema.sql").read_text(encoding="utf-8")
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            db.execute(statement)
            statement = ""
    db.executemany("INSERT INTO meta VALUES (?, ?)", [*meta.items(), ("index mark", "")])
    db.execute(f"PRAGMA application_id = {APPLICATION}")


# -- names and sources ---------------------------------------------------------------------------------------------


def ids_of(db: sqlite3.Connection, table: str, names: Iterable[str]) -> dict[str, int]:
    """Ids of those names that ``table`` has."""
    wanted = json.dumps(list(names))
    return dict(db.execute(f"SELECT name, id FROM {table} WHERE name IN (SELECT value FROM json_each(?))", (wanted,)))


def store_names(
    db: sqlite3.Connection, table: str, names: Iterable[str], vectors: Mapping[str, Vector]
) -> dict[str, int]:
    """Ids of all names; those that are new are stored with their vectors. Raises UnknownNames if one has none."""
    names = list(dict.fromkeys(names))
    known = ids_of(db, table, names)
    new = [name for name in names if name not in known]
    if missing := [name for name in new if name not in vectors]:
        raise UnknownNames(missing)
    if new:
        db.executemany(
            f"INSERT INTO {table} (name, vector) VALUES (?, ?)", ((name, to_bytes(vectors[name])) for name in new)
        )
        known |= ids_of(db, table, new)
    return known


def store_triples(
    db: sqlite3.Connection, triples: Sequence[Triple], sources: Sequence[Source], vectors: Vectors
) -> tuple[list[Ids], int]:
    """Store triples, each with its source; return their ids and how many were new."""
    named = (name for triple in triples for name in (triple.subject, triple.object))
    entities = store_names(db, "entities", named, vectors.entities)
    relations = store_names(db, "relations", (triple.relation for triple in triples), vectors.relations)
    rows = [(entities[t.subject], relations[t.relation], entities[t.object]) for t in triples]
    stored = db.executemany(
        "INSERT INTO triples (subject, relation, object) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", rows
    ).rowcount
    now = datetime.now(UTC)
    db.executemany(
        "INSERT INTO sources SELECT id, ?, ?, ?, ?, ? FROM triples WHERE subject = ? AND relation = ? AND object = ?"
        " ON CONFLICT DO NOTHING",
        (_source_row(source.at(now)) + row for source, row in zip(sources, rows, strict=True)),
    )
    return rows, stored


def _source_row(source: Source) -> tuple[str, int, str, str, int]:
    assert source.time is not None
    sentence = -1 if source.sentence is None else source.sentence
    time = source.time.isoformat(timespec="microseconds")
    return with_crc(source.document or "", sentence, source.writer or "", time)


def with_crc(*values: Any) -> tuple[Any, ...]:
    """A row's values and, at the end, the CRC-32 of them."""
    return *values, crc32("\0".join(map(str, values)).encode())


# -- replacing and removing ----------------------------------------------------------------------------------------


def retire_rivals(db: sqlite3.Connection, ids: Ids) -> list[Triple]:
    """Move to history what has the subject and relation of the triple ``ids`` and another object; return it."""
    subject, relation, thing = ids
    (successor,) = db.execute(
        "SELECT id FROM triples WHERE subject = ? AND relation = ? AND object = ?", ids
    ).fetchone()
    rivals = db.execute(
        "SELECT t.id, s.name, r.name, o.name FROM triples t JOIN entities s ON s.id = t.subject"
        " JOIN relations r ON r.id = t.relation JOIN entities o ON o.id = t.object"
        " WHERE t.subject = ? AND t.relation = ? AND t.object <> ? ORDER BY t.id",
        (subject, relation, thing),
    ).fetchall()
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    for identifier, *_ in rivals:
        db.execute(
            "INSERT INTO replaced SELECT id, subject, relation, object, ?, ?, ? FROM triples WHERE id = ?",
            (*with_crc(successor, now), identifier),
        )
        db.execute("DELETE FROM triples WHERE id = ?", (identifier,))
    return [Triple(*names) for _, *names in rivals]


def triples_named(db: sqlite3.Connection, triples: Sequence[Triple]) -> list[int]:
    """Ids of these triples, current and replaced."""
    entities = ids_of(db, "entities", {name for t in triples for name in (t.subject, t.object)})
    relations = ids_of(db, "relations", {t.relation for t in triples})
    found: set[int] = set()
    for t in triples:
        row = entities.get(t.subject), relations.get(t.relation), entities.get(t.object)
        for table in ("triples", "replaced"):
            where = "subject = ? AND relation = ? AND object = ?"
            found.update(i for (i,) in db.execute(f"SELECT id FROM {table} WHERE {where}", row))
    return sorted(found)


def triples_mentioning(db: sqlite3.Connection, entity: str) -> list[int]:
    """Ids of all triples, current and replaced, whose subject or object is ``entity``."""
    statement = " UNION ".join(
        f"SELECT id FROM {table} WHERE {column} = (SELECT id FROM entities WHERE name = :name)"
        for table in ("triples", "replaced")
        for column in ("subject", "object")
    )
    return [identifier for (identifier,) in db.execute(statement, {"name": entity})]


def remove_sources(db: sqlite3.Connection, document: str) -> list[int]:
    """Remove all sources in a document; return the ids of the triples that have none left."""
    stated = [i for (i,) in db.execute("SELECT DISTINCT triple FROM sources WHERE document = ?", (document,))]
    db.execute("DELETE FROM sources WHERE document = ?", (document,))
    return [
        i
        for (i,) in db.execute(
            "SELECT value FROM json_each(?) WHERE value NOT IN (SELECT triple FROM sources)", (json.dumps(stated),)
        )
    ]


def remove_triples(db: sqlite3.Connection, ids: Sequence[int]) -> None:
    """Remove triples, current and replaced, with their sources, and the names that nothing mentions any more."""
    chosen = (json.dumps(ids),)
    of_them = "(SELECT value FROM json_each(?))"
    touched = db.execute(
        f"SELECT subject, relation, object FROM triples WHERE id IN {of_them}"
        f" UNION ALL SELECT subject, relation, object FROM replaced WHERE id IN {of_them}",
        chosen * 2,
    ).fetchall()
    db.execute(f"DELETE FROM triples WHERE id IN {of_them}", chosen)
    db.execute(f"DELETE FROM replaced WHERE id IN {of_them}", chosen)
    db.execute(f"DELETE FROM sources WHERE triple IN {of_them}", chosen)
    _remove_unused(
        db, "entities", {i for subject, _, thing in touched for i in (subject, thing)}, ("subject", "object")
    )
    _remove_unused(db, "relations", {relation for _, relation, _ in touched}, ("relation",))


def _remove_unused(db: sqlite3.Connection, table: str, ids: set[int], columns: Sequence[str]) -> None:
    uses = " UNION ALL ".join(
        f"SELECT 1 FROM {where} WHERE {column} = value" for where in ("triples", "replaced") for column in columns
    )
    unused = [
        i
        for (i,) in db.execute(f"SELECT value FROM json_each(?) WHERE NOT EXISTS ({uses})", (json.dumps(sorted(ids)),))
    ]
    db.executemany(f"DELETE FROM {table} WHERE id = ?", ((i,) for i in unused))
    db.executemany("INSERT INTO removed (kind, id) VALUES (?, ?)", ((table, i) for i in unused))


# -- reading out ---------------------------------------------------------------------------------------------------


def membership(triple: Triple, mark: str) -> tuple[str, tuple[str, ...]]:
    """The statement, and its parameters, that says whether a triple is current; as :func:`selection`, for both."""
    statement = (
        f"SELECT EXISTS (SELECT 1 FROM triples WHERE subject = (SELECT id FROM entities WHERE name = {mark})"
        f" AND relation = (SELECT id FROM relations WHERE name = {mark})"
        f" AND object = (SELECT id FROM entities WHERE name = {mark}))"
    )
    return statement, (triple.subject, triple.relation, triple.object)


def contains(db: sqlite3.Connection, triple: Triple) -> bool:
    """Whether a triple is current."""
    return bool(db.execute(*membership(triple, "?")).fetchone()[0])


def selection(pattern: Pattern, replaced: bool, mark: str) -> tuple[str, tuple[str, ...]]:
    """The statement, and its parameters, that reads the triples that fit for :func:`records`, a row a source.

    PostgreSQL understands it too; ``mark`` stands for a parameter.
    """
    conditions = {
        f"t.subject = (SELECT id FROM entities WHERE name = {mark})": pattern.subject,
        f"t.relation = (SELECT id FROM relations WHERE name = {mark})": pattern.relation,
        f"t.object = (SELECT id FROM entities WHERE name = {mark})": pattern.object,
        f"t.id IN (SELECT triple FROM sources WHERE document = {mark})": pattern.document,
    }
    used = {condition: value for condition, value in conditions.items() if value is not None}
    successor = f"(SELECT e.name FROM {EVERY} n JOIN entities e ON e.id = n.object WHERE n.id = t.replaced_by)"
    statement = (
        f"SELECT t.id, s.name, r.name, o.name, {f't.replaced_at, {successor}' if replaced else 'NULL, NULL'},"
        " f.document, f.sentence, f.writer, f.time"
        f" FROM {'replaced' if replaced else 'triples'} t JOIN entities s ON s.id = t.subject"
        " JOIN relations r ON r.id = t.relation JOIN entities o ON o.id = t.object JOIN sources f ON f.triple = t.id"
        f" WHERE {' AND '.join(used) or 'true'}"
        f" ORDER BY {'t.replaced_at, ' if replaced else ''}t.id, f.time, f.document, f.sentence, f.writer"
    )
    return statement, tuple(used.values())


def records(rows: Iterable[tuple[Any, ...]], moment: Callable[[Any], datetime]) -> Iterator[StoredTriple]:
    """Triples from the rows of a :func:`selection`; ``moment`` makes a time, in UTC, of what the database keeps."""
    for _, group in groupby(rows, key=lambda row: row[0]):
        first, *rest = group
        sources = tuple(
            Source(document or None, None if sentence < 0 else sentence, writer or None, moment(time))
            for *_, document, sentence, writer, time in (first, *rest)
        )
        replaced_at, replaced_by = first[4:6]
        yield StoredTriple(Triple(*first[1:4]), sources, replaced_at and moment(replaced_at), replaced_by)


def select(db: sqlite3.Connection, pattern: Pattern, replaced: bool = False) -> Iterator[StoredTriple]:
    """Current or replaced triples that fit, by id."""
    return records(db.execute(*selection(pattern, replaced, "?")), datetime.fromisoformat)


def problems(db: sqlite3.Connection) -> list[str]:
    """What is wrong with the tables, one line each."""
    found = [line for (line,) in db.execute("PRAGMA integrity_check") if line != "ok"]
    counted = "SELECT {0}, relation, count(*) FROM triples GROUP BY {0}, relation"
    checks = {
        f"{known}_pairs does not count the triples": f"SELECT * FROM (SELECT * FROM (SELECT * FROM {known}_pairs"
        f" EXCEPT {counted.format(known)}) UNION ALL SELECT * FROM ({counted.format(known)} EXCEPT"
        f" SELECT * FROM {known}_pairs))"
        for known in OTHER
    } | {
        "a triple names an entity that is not there": f"SELECT 1 FROM {EVERY} t WHERE NOT EXISTS"
        " (SELECT 1 FROM entities WHERE id = t.subject) OR NOT EXISTS (SELECT 1 FROM entities WHERE id = t.object)",
        "a triple names a relation that is not there": f"SELECT 1 FROM {EVERY} t WHERE NOT EXISTS"
        " (SELECT 1 FROM relations WHERE id = t.relation)",
        "a triple has no source": f"SELECT 1 FROM {EVERY} t WHERE NOT EXISTS"
        " (SELECT 1 FROM sources WHERE triple = t.id)",
        "a source belongs to no triple": f"SELECT 1 FROM sources WHERE triple NOT IN (SELECT id FROM {EVERY})",
    }
    found += [what for what, query in checks.items() if db.execute(f"SELECT EXISTS ({query})").fetchone()[0]]
    columns = {"sources": "document, sentence, writer, time, crc", "replaced": "replaced_by, replaced_at, crc"}
    for table, names in columns.items():
        rows = db.execute(f"SELECT {names} FROM {table}")
        if any(with_crc(*values) != (*values, crc) for *values, crc in rows):
            found.append(f"{table}: a row is not as it was written")
    return found
