"""The memory of the MemLLM authors' code, made again from its description, to measure ours against.

SQLite in memory holds names and triples; two hnswlib graphs hold the vectors. A query runs one statement for each pair
of a candidate entity and a candidate relation type. What is here is the work that answers need. The original also sends
vectors as base64 text between a client and a server process, takes locks, and reads new names back; that is left out,
as it could only make it slower. Nothing of this memory survives its process.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import hnswlib  # type: ignore[import-untyped]
import numpy as np

from benchmarks.memory.graph import nearest
from benchmarks.memory.vectors import Lookup
from palimpsest.facts import Query, Triple
from palimpsest.memory import Thresholds

MAX_RELATIONS = 999
OTHER_NAME = {"subject": 3, "object": 1}  # column of a result that holds the name asked for

TABLES = """
CREATE TABLE entities (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE relation_types (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE triples (
  id INTEGER PRIMARY KEY, subject INTEGER, relation INTEGER, object INTEGER, UNIQUE (subject, relation, object)
);
CREATE INDEX by_subject ON triples (subject, relation);
CREATE INDEX by_object ON triples (object, relation);
"""


class OfficialMemory:
    """Triples in memory; ``capacity`` is the number of entities that will come, which hnswlib wants to know."""

    def __init__(self, embedder: Lookup, capacity: int) -> None:
        self._embedder = embedder
        self._db = sqlite3.connect(":memory:")
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute("PRAGMA journal_mode = MEMORY")
        self._db.executescript(TABLES)
        self._graphs = {
            "entities": _graph(embedder.dimension, capacity, ef=300),
            "relation_types": _graph(embedder.dimension, MAX_RELATIONS, ef=200),
        }

    def add(self, triples: Sequence[Triple]) -> None:
        """Store a batch: new names and their vectors first, then the triples by the ids of their names."""
        entities = self._ids("entities", list({name for t in triples for name in (t.subject, t.object)}))
        relations = self._ids("relation_types", list({t.relation for t in triples}))
        self._db.executemany(
            "INSERT OR IGNORE INTO triples (subject, relation, object) VALUES (?, ?, ?)",
            [(entities[t.subject], relations[t.relation], entities[t.object]) for t in triples],
        )
        self._db.commit()

    def _ids(self, table: str, names: list[str]) -> dict[str, int]:
        """Ids of all names; those that were not there are stored, a statement each."""
        marks = ",".join("?" * len(names))
        ids = dict(self._db.execute(f"SELECT name, id FROM {table} WHERE name IN ({marks})", names))
        new = [name for name in names if name not in ids]
        for name in new:
            ids[name] = self._db.execute(f"INSERT OR IGNORE INTO {table} (name) VALUES (?)", (name,)).lastrowid or 0
        self._db.commit()
        if new:
            self._graphs[table].add_items(self._embedder.encode(new), np.array([ids[name] for name in new]))
        return ids

    def query(self, query: Query, thresholds: Thresholds) -> list[tuple[str, float]]:
        """Names with the distance of the pair that led to each, closest first; one may come several times."""
        entities = self._near("entities", query.entity, thresholds.entity, thresholds.max_entities)
        relations = self._near("relation_types", query.relation, thresholds.relation, thresholds.max_relations)
        found: list[tuple[str, float]] = []
        for entity, _, entity_distance in entities:
            for relation, _, relation_distance in relations:
                score = (entity_distance + relation_distance) / 2
                if score < thresholds.pair:
                    rows = self._db.execute(
                        "SELECT t.id, s.name, r.name, o.name FROM triples t JOIN entities s ON s.id = t.subject"
                        " JOIN relation_types r ON r.id = t.relation JOIN entities o ON o.id = t.object"
                        f" WHERE t.relation = {relation} AND t.{query.known} = {entity}"
                        f" LIMIT {thresholds.max_results + 1}"
                    ).fetchall()
                    found += [(row[OTHER_NAME[query.known]], score) for row in rows]
        if min((score for _, score in found), default=1.0) < thresholds.exact:
            return [(name, score) for name, score in found if score < thresholds.exact]
        return sorted(found, key=lambda result: result[1])

    def _near(self, table: str, name: str, distance: float, count: int) -> list[tuple[int, str, float]]:
        """Ids, names and distances of what is nearer than ``distance``, at most ``count``."""
        graph = self._graphs[table]
        ids, distances = nearest(graph, self._embedder.encode([name]), min(count, graph.get_current_count()))
        near = distances[0] < distance
        found = ids[0][near].tolist()
        marks = ",".join("?" * len(found))
        names = dict(self._db.execute(f"SELECT id, name FROM {table} WHERE id IN ({marks})", found))
        return [(id_, names[id_], far) for id_, far in zip(found, distances[0][near].tolist(), strict=True)]

    def close(self) -> None:
        self._db.close()


def _graph(dimension: int, capacity: int, ef: int) -> Any:
    graph = hnswlib.Index(space="cosine", dim=dimension)
    graph.init_index(max_elements=capacity, M=20, ef_construction=200)
    graph.set_ef(ef)
    return graph
