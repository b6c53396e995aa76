"""The statements of a query to a memory's SQLite tables: a constant number, however many candidates there are."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence

from palimpsest.facts import Known, Triple
from palimpsest.memory.matching import Pair, Row, settled
from palimpsest.memory.tables import OTHER

READ_FIRST = 64  # pairs of a query; nearly always enough for all results there may be


def pair_counts(
    db: sqlite3.Connection, known: Known, entities: Iterable[int], relations: Iterable[int]
) -> dict[int, list[tuple[int, int]]]:
    """By entity: in which of ``relations`` it is the subject (or object) of triples, and of how many."""
    rows = db.execute(
        f"SELECT p.entity, p.relation, p.triples FROM json_each(?) e CROSS JOIN {known}_pairs p ON p.entity = e.value"
        " WHERE p.relation IN (SELECT value FROM json_each(?))",
        (json.dumps(list(entities)), json.dumps(list(relations))),
    )
    counts: dict[int, list[tuple[int, int]]] = {}
    for entity, relation, triples in rows:
        counts.setdefault(entity, []).append((relation, triples))
    return counts


def read_pairs(db: sqlite3.Connection, known: Known, pairs: Sequence[Pair], limit: int) -> list[list[Row]]:
    """Of each pair the first ``limit`` triples, in the order in which the entities asked for were first stored."""
    other = OTHER[known]
    found = db.execute(
        "WITH pair AS MATERIALIZED (SELECT key AS number, json_extract(value, '$[0]') AS entity,"
        " json_extract(value, '$[1]') AS relation FROM json_each(?))"
        f" SELECT pair.number, t.{other}, s.name, r.name, o.name FROM pair CROSS JOIN triples t ON t.id IN"
        f" (SELECT id FROM triples WHERE {known} = pair.entity AND relation = pair.relation ORDER BY {other} LIMIT ?)"
        " JOIN entities s ON s.id = t.subject JOIN relations r ON r.id = t.relation JOIN entities o ON o.id = t.object",
        (json.dumps([(pair.entity, pair.relation) for pair in pairs]), limit),
    )
    rows: list[list[Row]] = [[] for _ in pairs]
    for number, identifier, *names in found:
        rows[number].append(Row(identifier, Triple(*names)))
    return rows


def read_closest(
    db: sqlite3.Connection, known: Known, queries: Sequence[Sequence[Pair]], limit: int
) -> list[list[list[Row]]]:
    """For the pairs of each query, closest first, what :func:`read_pairs` reads of them, as far as it is needed."""
    rows = _read_each(db, known, [pairs[:READ_FIRST] for pairs in queries], limit)
    rest = [
        [] if settled(pairs[:READ_FIRST], read, pairs[READ_FIRST:], limit) else pairs[READ_FIRST:]
        for pairs, read in zip(queries, rows, strict=True)
    ]
    if any(rest):
        rows = [read + more for read, more in zip(rows, _read_each(db, known, rest, limit), strict=True)]
    return rows


def _read_each(
    db: sqlite3.Connection, known: Known, queries: Sequence[Sequence[Pair]], limit: int
) -> list[list[list[Row]]]:
    rows = iter(read_pairs(db, known, [pair for pairs in queries for pair in pairs], limit))
    return [[next(rows) for _ in pairs] for pairs in queries]


def count_distinct(db: sqlite3.Connection, known: Known, groups: Mapping[int, Sequence[Pair]]) -> dict[int, int]:
    """How many distinct entities each group of pairs leads to.

    The pair with the most triples counts as it is, and of the others what it does not have: a hub is never walked.
    """
    largest = {number: max(pairs, key=lambda pair: pair.triples) for number, pairs in groups.items()}
    others = [
        (number, pair.entity, pair.relation, largest[number].entity, largest[number].relation)
        for number, pairs in groups.items()
        for pair in pairs
        if pair is not largest[number]
    ]
    columns = ("number", "entity", "relation", "hub", "hub_relation")
    extracted = ", ".join(f"json_extract(value, '$[{place}]') AS {name}" for place, name in enumerate(columns))
    other = OTHER[known]
    beyond = db.execute(
        f"WITH pair AS MATERIALIZED (SELECT {extracted} FROM json_each(?))"
        f" SELECT pair.number, count(DISTINCT t.{other}) FROM pair"
        f" CROSS JOIN triples t ON t.{known} = pair.entity AND t.relation = pair.relation"
        f" WHERE NOT EXISTS (SELECT 1 FROM triples h WHERE h.{known} = pair.hub AND h.relation = pair.hub_relation"
        f" AND h.{other} = t.{other}) GROUP BY pair.number",
        (json.dumps(others),),
    )
    totals = {number: pair.triples for number, pair in largest.items()}
    for number, count in beyond if others else ():
        totals[number] += count
    return totals
