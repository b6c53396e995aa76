"""A memory does what lists and loops do: any operations in any order, beside a model in plain Python."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from palimpsest.facts import Query, Triple
from palimpsest.memory import (
    EDITING,
    LANGUAGE_MODELLING,
    TRAINING,
    Answer,
    Counts,
    FunctionEmbedder,
    Source,
    StoredTriple,
    Thresholds,
    TripleMemory,
)

# Few names, so that operations meet: a name, turned a little and more, its twin by case, and strangers.
ENTITIES = ["ann", "Ann", "ann~0.25", "ann~0.49", "bo", "BO", "bo~0.23", "cy"]
RELATIONS = ["knows", "Knows", "knows~0.33", "knows~0.52", "calls"]
ASKED = [*ENTITIES, "ann~0.11", "bo~0.37", "dee"]
ASKED_RELATIONS = [*RELATIONS, "knows~0.18", "sells"]
DOCUMENTS = ["one", "two", None]
THRESHOLDS = [
    TRAINING,
    LANGUAGE_MODELLING,
    EDITING,
    Thresholds(entity=0.4, relation=0.8, pair=0.3, exact=0, max_results=3),
    Thresholds(entity=0.15, relation=0.15, pair=0.1, max_entities=2, max_relations=2),
    Thresholds(entity=0.3, relation=0.3, pair=0.2, exact=0.03, max_entities=3, max_results=2),
]
CLEAR = 1e-3  # distances that differ by less are not told apart by half precision


# -- the model -----------------------------------------------------------------------------------------------------


@dataclass
class Record:
    """A triple that is stored, with its sources by what they say and when."""

    triple: Triple
    sources: dict[tuple[str | None, int | None, str | None], datetime] = field(default_factory=dict)

    def stored(self, replaced_by: str | None = None) -> StoredTriple:
        oldest_first = sorted(self.sources.items(), key=lambda item: item[1])
        return StoredTriple(
            self.triple, tuple(Source(*said, time) for said, time in oldest_first), replaced_by=replaced_by
        )


@dataclass
class Replaced(Record):
    """A triple in history, with the record that took its place."""

    successor: Record | None = None


class Model:
    """What a memory does, in loops over lists."""

    def __init__(self, distance: Callable[[str, str], float]) -> None:
        self.distance = distance
        self.triples: list[Record] = []
        self.replaced: list[Replaced] = []
        self.entities: list[str] = []
        """In the order in which they were first stored."""
        self.relations: list[str] = []

    def add(self, triples: list[Triple], sources: list[Source]) -> int:
        new = 0
        for triple, source in zip(triples, sources, strict=True):
            for names, name in (
                (self.entities, triple.subject),
                (self.entities, triple.object),
                (self.relations, triple.relation),
            ):
                if name not in names:
                    names.append(name)
            record = self.find(triple)
            if record is None:
                record = Record(triple)
                self.triples.append(record)
                new += 1
            record.sources.setdefault((source.document, source.sentence, source.writer), source.time)
        return new

    def find(self, triple: Triple) -> Record | None:
        return next((record for record in self.triples if record.triple == triple), None)

    def update(self, triple: Triple, source: Source) -> list[Triple]:
        self.add([triple], [source])
        rivals = [
            record
            for record in self.triples
            if (record.triple.subject, record.triple.relation) == (triple.subject, triple.relation)
            and record.triple.object != triple.object
        ]
        for rival in rivals:
            self.triples.remove(rival)
            old = Replaced(rival.triple, rival.sources, self.find(triple))
            for other in self.replaced:
                if other.successor is rival:
                    other.successor = old
            self.replaced.append(old)
        return [rival.triple for rival in rivals]

    def delete(self, chosen: Callable[[Record], bool]) -> int:
        gone = [record for record in [*self.triples, *self.replaced] if chosen(record)]
        self.triples = [record for record in self.triples if not chosen(record)]
        self.replaced = [record for record in self.replaced if not chosen(record)]
        left = [record.triple for record in [*self.triples, *self.replaced]]
        self.entities = [name for name in self.entities if any(name in (t.subject, t.object) for t in left)]
        self.relations = [name for name in self.relations if any(name == t.relation for t in left)]
        return len(gone)

    def delete_document(self, document: str) -> int:
        for record in [*self.triples, *self.replaced]:
            record.sources = {said: time for said, time in record.sources.items() if said[0] != document}
        return self.delete(lambda record: not record.sources)

    def counts(self) -> Counts:
        return Counts(len(self.triples), len(self.entities), len(self.relations), len(self.replaced))

    def history(self) -> list[StoredTriple]:
        kept = [*self.triples, *self.replaced]
        return [
            old.stored(old.successor.triple.object if any(old.successor is record for record in kept) else None)
            for old in self.replaced
        ]

    def candidates(self, names: list[str], asked: str, threshold: float, limit: int) -> dict[str, float]:
        near = {name: self.distance(asked, name) for name in names}
        near = {name: distance for name, distance in near.items() if distance < threshold}
        return dict(sorted(near.items(), key=lambda item: item[1])[:limit])

    def query(self, query: Query, thresholds: Thresholds) -> tuple[dict[str, float], list[tuple[str, float]]]:
        """The distance of every entity that answers, and the answers within the limit, in order."""
        entities = self.candidates(self.entities, query.entity, thresholds.entity, thresholds.max_entities)
        relations = self.candidates(self.relations, query.relation, thresholds.relation, thresholds.max_relations)
        other = "object" if query.known == "subject" else "subject"
        pairs = {}  # by entity and relation: the mean distance, of those that have triples
        for entity, relation in itertools.product(entities, relations):
            distance = (entities[entity] + relations[relation]) / 2
            has_triples = any(
                getattr(record.triple, query.known) == entity and record.triple.relation == relation
                for record in self.triples
            )
            if distance < thresholds.pair and has_triples:
                pairs[entity, relation] = distance
        if any(distance < thresholds.exact for distance in pairs.values()):
            pairs = {pair: distance for pair, distance in pairs.items() if distance < thresholds.exact}
        found: dict[str, float] = {}
        for record in self.triples:
            pair = getattr(record.triple, query.known), record.triple.relation
            if pair in pairs:
                name = getattr(record.triple, other)
                found[name] = min(found.get(name, 9), pairs[pair])
        ranked = sorted(found, key=lambda name: (found[name], self.entities.index(name)))
        return found, [(name, found[name]) for name in ranked[: thresholds.max_results]]


# -- operations ----------------------------------------------------------------------------------------------------

triples = st.builds(
    Triple, st.sampled_from(ENTITIES), st.sampled_from(RELATIONS), st.sampled_from([*ENTITIES, "cy", "dee", "eve"])
)
sources = st.tuples(
    st.sampled_from(DOCUMENTS), st.sampled_from([None, 0, 3]), st.sampled_from([None, "gold"]), st.integers(0, 99)
)
queries = st.builds(
    lambda entity, relation, known: Query(relation, **{known: entity}),
    st.sampled_from(ASKED),
    st.sampled_from(ASKED_RELATIONS),
    st.sampled_from(["subject", "object"]),
)
operations = st.one_of(
    st.tuples(st.just("add"), st.lists(st.tuples(triples, sources), min_size=1, max_size=8)),
    st.tuples(st.just("update"), st.tuples(triples, sources)),
    st.tuples(st.just("delete"), st.lists(triples, max_size=4)),
    st.tuples(st.just("delete_entity"), st.sampled_from(ENTITIES)),
    st.tuples(st.just("delete_document"), st.sampled_from(["one", "two", "three"])),
    st.tuples(st.just("reopen"), st.none()),
    st.tuples(st.just("query"), st.tuples(st.lists(queries, min_size=1, max_size=6), st.sampled_from(THRESHOLDS))),
)


class Both:
    """A memory and its model, which are told and asked the same."""

    def __init__(self, open_memory: Callable[[], TripleMemory], distance: Callable[[str, str], float]) -> None:
        self.open, self.lasts = open_memory, False
        self.memory, self.model = open_memory(), Model(distance)
        self.clock = itertools.count()

    def source(self, said: tuple[str | None, int | None, str | None, int]) -> Source:
        """No two have the same time, so that there is one right order."""
        *rest, day = said
        time = datetime(2001, 1, 1, tzinfo=UTC) + timedelta(days=day, seconds=next(self.clock))
        return Source(*rest, time)

    def add(self, rows: list[tuple[Triple, tuple]]) -> None:
        batch, said = [triple for triple, _ in rows], [self.source(source) for _, source in rows]
        assert self.memory.add(batch, said) == self.model.add(batch, said)

    def update(self, row: tuple[Triple, tuple]) -> None:
        triple, source = row[0], self.source(row[1])
        assert self.memory.update(triple, source) == self.model.update(triple, source)

    def delete(self, chosen: list[Triple]) -> None:
        assert self.memory.delete(chosen) == self.model.delete(lambda record: record.triple in chosen)

    def delete_entity(self, name: str) -> None:
        mentions = self.model.delete(lambda record: name in (record.triple.subject, record.triple.object))
        assert self.memory.delete_entity(name) == mentions

    def delete_document(self, document: str) -> None:
        assert self.memory.delete_document(document) == self.model.delete_document(document)

    def reopen(self, _: None) -> None:
        if self.lasts:
            self.memory.close()
            self.memory = self.open()

    def query(self, asked: tuple[list[Query], Thresholds]) -> None:
        batch, thresholds = asked
        for query, answer in zip(batch, self.memory.query_batch(batch, thresholds), strict=True):
            self.assert_right(query, thresholds, answer)
            single = self.memory.query(query, thresholds)
            assert (single.names, single.total) == (answer.names, answer.total)

    def assert_right(self, query: Query, thresholds: Thresholds, answer: Answer) -> None:
        found, ranked = self.model.query(query, thresholds)
        assert answer.total == len(found), query
        assert answer.names == [name for name, _ in ranked], query
        for result, (_, distance) in zip(answer.results, ranked, strict=True):
            assert result.distance == pytest.approx(distance, abs=CLEAR / 2)
            known, other = getattr(result.triple, query.known), {result.triple.subject, result.triple.object}
            assert self.model.find(result.triple)
            assert other == {known, result.name}
            own = (
                self.model.distance(query.entity, known) + self.model.distance(query.relation, result.triple.relation)
            ) / 2
            assert own == pytest.approx(distance, abs=1e-9)  # it is this triple that is so near

    def compare(self) -> None:
        """All that can be read out."""
        assert list(self.memory) == [record.stored() for record in self.model.triples]
        history = list(self.memory.history())
        assert [
            StoredTriple(old.triple, old.sources, replaced_by=old.replaced_by) for old in history
        ] == self.model.history()
        assert [old.replaced_at for old in history] == sorted(old.replaced_at for old in history)
        assert self.memory.counts() == self.model.counts()


@pytest.fixture
def fresh(where: str, embedder: FunctionEmbedder) -> Iterator[Callable[[], Both]]:
    """A new memory at each call, with an empty model; the one before is closed."""
    number, made = itertools.count(), []

    @cache
    def distance(one: str, other: str) -> float:
        first, second = np.asarray(embedder.encode([one, other]))
        return max(0.0, float(1 - first @ second))

    def make() -> Both:
        if made:
            made.pop().memory.close()
        place = where if where == ":memory:" else f"{where}{next(number)}"
        made.append(Both(lambda: TripleMemory.open(place, embedder), distance))
        made[-1].lasts = place != ":memory:"
        return made[-1]

    yield make
    for both in made:
        both.memory.close()


def test_no_distance_here_is_too_close_to_call(embedder: FunctionEmbedder) -> None:
    """What the model says is right for half precision too: no two distances of names are nearly the same."""

    def distances(asked: str, names: list[str]) -> np.ndarray:
        cosines = np.asarray(embedder.encode(names)) @ np.asarray(embedder.encode([asked]))[0]
        return np.round(1 - cosines, 12)  # a name is at 0 from itself, however the processor rounds

    def close(values: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Which are nearly the same, but not the same."""
        apart = np.abs(values[:, None] - others[None])
        return values[((apart < CLEAR) & (apart > 1e-9)).any(1)]

    entities = [*ENTITIES, "dee", "eve"]
    for setting in THRESHOLDS:
        for entity, relation in itertools.product(ASKED, ASKED_RELATIONS):
            to_entities, to_relations = distances(entity, entities), distances(relation, RELATIONS)
            assert not len(close(to_entities, np.array([setting.entity])))
            assert not len(close(to_relations, np.array([setting.relation])))
            to_entities = to_entities[to_entities < setting.entity]
            to_relations = to_relations[to_relations < setting.relation]
            assert not len(close(to_entities, to_entities))
            assert not len(close(to_relations, to_relations))
            pairs = np.add.outer(to_entities, to_relations).ravel() / 2
            pairs = pairs[pairs < setting.pair + CLEAR]
            assert not len(close(pairs, np.array([setting.pair, setting.exact]))), (entity, relation, setting)
            assert not len(close(pairs, pairs)), (entity, relation, setting, np.sort(pairs))


def test_any_operations_in_any_order(fresh: Callable[[], Both], where: str) -> None:
    @settings(
        max_examples=100 if "postgres" not in where else 25,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(st.lists(operations, min_size=1, max_size=25))
    def agrees(chosen: list[tuple]) -> None:
        both = fresh()
        for name, arguments in chosen:
            getattr(both, name)(arguments)
        both.compare()
        for thresholds in THRESHOLDS[1:4]:
            both.query(([Query("knows", subject="ann"), Query("knows~0.18", object="bo")], thresholds))
        both.memory.check()

    agrees()
