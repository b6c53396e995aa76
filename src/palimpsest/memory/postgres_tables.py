"""What a memory does with its PostgreSQL tables, inside a transaction that the caller has begun.

As in :mod:`palimpsest.memory.tables`, every operation but storing names is a constant number of statements, all that
comes from outside goes in as parameters, and the only text put into SQL is names of tables and columns from here.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from itertools import groupby
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql
from psycopg.types.json import Jsonb

from palimpsest.facts import Known, Triple
from palimpsest.memory import tables
from palimpsest.memory.mirror import to_bytes
from palimpsest.memory.query import Answer, Result, Thresholds
from palimpsest.memory.store import (
    Pattern,
    Source,
    StoredTriple,
    UnknownNames,
    Vector,
    VectorQuery,
    Vectors,
)

Connection = psycopg.Connection[Any]
Ids = tuple[int, int, int]
"""Ids of a triple's subject, relation and object."""

MORE = 100  # candidates beside those that are wanted: half precision and ties blur which those are
PLAIN = {"replaced": 4, "sources": 1}  # how many columns stand before those that have a checksum in SQLite
MOST = 1000  # candidates that the vector index keeps in view; it refuses more


@cache
def _script(name: str) -> str:
    return resources.files("palimpsest.memory").joinpath(name).read_text(encoding="utf-8")


def create(db: Connection, meta: Mapping[str, Any]) -> None:
    """Make the tables in the schema that ``db`` looks at first."""
    db.execute(sql.SQL(_script("postgres.sql")).format(dimension=sql.Literal(meta["dimension"])))
    with db.cursor() as cursor:
        cursor.executemany("INSERT INTO meta VALUES (%s, %s)", [(key, Jsonb(value)) for key, value in meta.items()])


def one(db: Connection, query: str, parameters: Sequence[Any] = ()) -> Any:
    """The only value that a query gives."""
    return db.execute(query, parameters).fetchall()[0][0]


def _literal(vector: NDArray[np.floating]) -> str:
    """A vector as PostgreSQL reads it, every bit of it."""
    return json.dumps(vector.tolist())


# -- names, triples and sources -------------------------------------------------------------------------------------


def ids_of(db: Connection, table: str, names: Iterable[str]) -> dict[str, int]:
    """Ids of those names that ``table`` has."""
    return dict(db.execute(f"SELECT name, id FROM {table} WHERE name = ANY(%s)", (list(names),)).fetchall())


def store_names(db: Connection, table: str, names: Iterable[str], vectors: Mapping[str, Vector]) -> dict[str, int]:
    """Ids of all names; those that are new are stored with their vectors, under ids in the order in which they come."""
    names = list(dict.fromkeys(names))
    known = ids_of(db, table, names)
    new = [name for name in names if name not in known]
    if missing := [name for name in new if name not in vectors]:
        raise UnknownNames(missing)
    if new:
        ids = db.execute(f"SELECT nextval('{table}_id_seq') FROM generate_series(1, %s)", (len(new),)).fetchall()
        rows = sorted(zip(new, ids, strict=True))  # all clients in the same order: see _writing
        with db.cursor() as cursor:
            cursor.executemany(
                f"INSERT INTO {table} (name, id, vector) VALUES (%s, %s, %s::halfvec) ON CONFLICT DO NOTHING",
                ((name, identifier, _literal(vectors[name].astype(np.float16))) for name, (identifier,) in rows),
            )
        known |= ids_of(db, table, new)  # of which others may have stored some meanwhile
    return known


def store_triples(
    db: Connection, triples: Sequence[Triple], sources: Sequence[Source], vectors: Vectors
) -> tuple[list[Ids], int]:
    """Store triples, each with its source; return their ids and how many were new."""
    named = (name for triple in triples for name in (triple.subject, triple.object))
    entities = store_names(db, "entities", named, vectors.entities)
    relations = store_names(db, "relations", (triple.relation for triple in triples), vectors.relations)
    rows = [(entities[t.subject], relations[t.relation], entities[t.object]) for t in triples]
    columns = [list(column) for column in zip(*rows, strict=True)]
    stored = db.execute(
        "WITH numbered AS MATERIALIZED (SELECT nextval('triples_id_seq') AS id, t.*"
        " FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[]) AS t (subject, relation, object))"
        " INSERT INTO triples SELECT * FROM numbered ORDER BY subject, relation, object, id ON CONFLICT DO NOTHING",
        columns,
    ).rowcount
    now = datetime.now(UTC)
    db.execute(
        "INSERT INTO sources SELECT t.id, f.document, f.sentence, f.writer, f.time"
        " FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::text[], %s::bigint[], %s::text[],"
        " %s::timestamptz[]) WITH ORDINALITY"
        " AS f (subject, relation, object, document, sentence, writer, time, number)"
        " JOIN triples t USING (subject, relation, object)"
        " ORDER BY t.id, f.sentence, f.document, f.writer, f.number ON CONFLICT DO NOTHING",
        columns + [list(column) for column in zip(*(_source_row(source.at(now)) for source in sources), strict=True)],
    )
    return rows, stored


def _source_row(source: Source) -> tuple[str, int, str, datetime]:
    assert source.time is not None
    return source.document or "", -1 if source.sentence is None else source.sentence, source.writer or "", source.time


def retire_rivals(db: Connection, ids: Ids) -> list[Triple]:
    """Move to history what has the subject and relation of the triple ``ids`` and another object; return it."""
    successor = one(db, "SELECT id FROM triples WHERE subject = %s AND relation = %s AND object = %s", ids)
    rivals = db.execute(
        "WITH rival AS (DELETE FROM triples WHERE subject = %s AND relation = %s AND object <> %s RETURNING *),"
        " retired AS (INSERT INTO replaced SELECT id, subject, relation, object, %s, statement_timestamp() FROM rival)"
        " SELECT s.name, r.name, o.name FROM rival t JOIN entities s ON s.id = t.subject"
        " JOIN relations r ON r.id = t.relation JOIN entities o ON o.id = t.object ORDER BY t.id",
        (*ids, successor),
    )
    return [Triple(*names) for names in rivals]


def triples_named(db: Connection, triples: Sequence[Triple]) -> list[int]:
    """Ids of these triples, current and replaced."""
    entities = ids_of(db, "entities", {name for t in triples for name in (t.subject, t.object)})
    relations = ids_of(db, "relations", {t.relation for t in triples})
    found = db.execute(
        "SELECT DISTINCT t.id FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[]) AS n (subject, relation, object)"
        f" JOIN {tables.EVERY} t USING (subject, relation, object)",
        (
            [entities.get(t.subject) for t in triples],
            [relations.get(t.relation) for t in triples],
            [entities.get(t.object) for t in triples],
        ),
    )
    return [identifier for (identifier,) in found]


def triples_mentioning(db: Connection, entity: str) -> list[int]:
    """Ids of all triples, current and replaced, whose subject or object is ``entity``."""
    found = db.execute(
        f"SELECT id FROM {tables.EVERY} t WHERE subject = (SELECT id FROM entities WHERE name = %(name)s)"
        " OR object = (SELECT id FROM entities WHERE name = %(name)s)",
        {"name": entity},
    )
    return [identifier for (identifier,) in found]


def remove_sources(db: Connection, document: str) -> list[int]:
    """Remove all sources in a document; return the ids of the triples that have none left."""
    removed = db.execute("DELETE FROM sources WHERE document = %s RETURNING triple", (document,)).fetchall()
    found = db.execute(
        "SELECT DISTINCT triple FROM unnest(%s::bigint[]) AS t (triple)"
        " WHERE NOT EXISTS (SELECT 1 FROM sources f WHERE f.triple = t.triple)",
        ([identifier for (identifier,) in removed],),
    )
    return [identifier for (identifier,) in found]


def remove_triples(db: Connection, ids: Sequence[int]) -> None:
    """Remove triples, current and replaced, with their sources, and the names that nothing mentions any more."""
    touched = db.execute(
        "WITH t AS (DELETE FROM triples WHERE id = ANY(%(ids)s) RETURNING subject, relation, object),"
        " r AS (DELETE FROM replaced WHERE id = ANY(%(ids)s) RETURNING subject, relation, object),"
        " f AS (DELETE FROM sources WHERE triple = ANY(%(ids)s)) SELECT * FROM t UNION SELECT * FROM r",
        {"ids": list(ids)},
    ).fetchall()
    entities = {i for subject, _, thing in touched for i in (subject, thing)}
    _remove_unused(db, "entities", entities, ("subject", "object"))
    _remove_unused(db, "relations", {relation for _, relation, _ in touched}, ("relation",))


def _remove_unused(db: Connection, table: str, ids: set[int], columns: Sequence[str]) -> None:
    unused = " AND ".join(
        f"NOT EXISTS (SELECT 1 FROM {where} t WHERE t.{column} = n.id)"
        for where in ("triples", "replaced")
        for column in columns
    )
    db.execute(f"DELETE FROM {table} n WHERE id = ANY(%s) AND {unused}", (sorted(ids),))


# -- asking --------------------------------------------------------------------------------------------------------


def search(db: Connection, queries: Sequence[VectorQuery], thresholds: Thresholds) -> list[Answer]:
    """Answer queries; see ``postgres_search.sql``."""
    looked_at = thresholds.max_entities + MORE
    parameters = asdict(thresholds) | {
        "known": [query.known for query in queries],
        "entities": [_literal(query.entity) for query in queries],
        "relations": [_literal(query.relation) for query in queries],
        "looked_at": looked_at,
    }
    db.execute("SELECT set_config('hnsw.ef_search', %s, true)", (str(min(looked_at, MOST)),))
    # Not prepared: a plan that is to suit any limits may scan all vectors.
    rows = db.execute(_script("postgres_search.sql"), parameters, prepare=False)
    answers = [Answer()] * len(queries)
    for number, group in groupby(rows, key=lambda row: row[0]):
        found = list(group)
        results = tuple(_result(queries[number].known, *row[1:5]) for row in found)
        answers[number] = Answer(results, total=found[0][5])
    return answers


def _result(known: Known, entity: str, relation: str, other: str, distance: float) -> Result:
    triple = Triple(entity, relation, other) if known == "subject" else Triple(other, relation, entity)
    return Result(other, distance, triple)


# -- reading out ---------------------------------------------------------------------------------------------------


def contains(db: Connection, triple: Triple) -> bool:
    """Whether a triple is current."""
    return one(db, *tables.membership(triple, "%s"))


def select(db: Connection, pattern: Pattern, replaced: bool) -> Iterator[StoredTriple]:
    """Current or replaced triples that fit, by id; read in parts, however many there are."""
    with db.cursor(name="triples") as rows:
        rows.execute(*tables.selection(pattern, replaced, "%s"))
        yield from tables.records(rows, lambda time: time.astimezone(UTC))


def problems(db: Connection) -> list[str]:
    """What is wrong with the tables, beyond what types and foreign keys see to: sources belong to two tables."""
    checks = {
        "a triple has no source": f"SELECT id FROM {tables.EVERY} t EXCEPT SELECT triple FROM sources",
        "a source belongs to no triple": f"SELECT triple FROM sources EXCEPT SELECT id FROM {tables.EVERY} t",
    }
    return [what for what, query in checks.items() if one(db, f"SELECT EXISTS ({query})")]


def copy(db: Connection, file: sqlite3.Connection) -> None:
    """Write everything that ``db`` sees into an empty SQLite file, under the same ids."""
    file.execute("PRAGMA journal_mode = OFF")  # a file that is not finished is thrown away
    file.execute("BEGIN")
    tables.create(file, dict(db.execute("SELECT key, value FROM meta").fetchall()))
    for table, columns in {"entities": 3, "relations": 3, "triples": 4, "replaced": 7, "sources": 6}.items():
        plain = PLAIN.get(table, columns)  # beyond these, the values that a row's checksum is of
        with db.cursor(name=table, binary=True) as rows:
            rows.execute(f"SELECT * FROM {table} ORDER BY 1")
            exported = (tuple(map(_exported, row)) for row in rows)
            checked = (row[:plain] + (tables.with_crc(*row[plain:]) if table in PLAIN else ()) for row in exported)
            file.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * columns)})", checked)
    for table in ("entities", "relations", "triples"):  # where ids go on: below are some that history knows
        file.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
        last = one(db, f"SELECT coalesce(pg_sequence_last_value('{table}_id_seq'), 0)")
        file.execute("INSERT INTO sqlite_sequence VALUES (?, ?)", (table, last))
    file.execute("COMMIT")


def _exported(value: Any) -> Any:
    """A value as SQLite's tables have it."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds")
    if isinstance(value, bytes):  # a vector as the server sends it: its length, then big-endian halves
        return to_bytes(np.frombuffer(value, ">f2", offset=4))
    return value
