"""Whether two memories answer alike, and whether they answer rightly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from benchmarks.memory.cases import Case
from benchmarks.memory.vectors import Vectors
from palimpsest.facts import Query
from palimpsest.memory import Answer, Thresholds

TOLERANCE = 1e-3  # distances closer than this count as equal: one of the memories keeps half precision
EXACT_TOLERANCE = 2e-4  # around the much smaller threshold of an exact match


class Memory(Protocol):
    """What answers queries as the official memory does."""

    def query(self, query: Query, thresholds: Thresholds) -> list[tuple[str, float]]:
        """Names with the distance of the pair that led to each."""


class Exhaustive:
    """The triples of a case, searched through in full: its answers are right."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._entities = sorted({name for t in case.triples for name in (t.subject, t.object)})
        self._relations = sorted({t.relation for t in case.triples})
        self._entity_vectors = np.stack([case.vectors[name] for name in self._entities])
        self._relation_vectors = np.stack([case.vectors[name] for name in self._relations])
        self._others: dict[tuple[str, str, str], list[str]] = {}
        for t in case.triples:
            self._others.setdefault(("subject", t.subject, t.relation), []).append(t.object)
            self._others.setdefault(("object", t.object, t.relation), []).append(t.subject)

    def query(self, query: Query, thresholds: Thresholds) -> list[tuple[str, float]]:
        entities = self._near(self._entities, self._entity_vectors, query.entity, thresholds.entity)
        relations = self._near(self._relations, self._relation_vectors, query.relation, thresholds.relation)
        found = [
            (name, (near + relation_near) / 2)
            for entity, near in entities[: thresholds.max_entities]
            for relation, relation_near in relations[: thresholds.max_relations]
            if (near + relation_near) / 2 < thresholds.pair
            for name in self._others.get((query.known, entity, relation), ())
        ]
        exact = [(name, score) for name, score in found if score < thresholds.exact]
        return exact or found

    def _near(self, names: list[str], vectors: Vectors, asked: str, distance: float) -> list[tuple[str, float]]:
        distances = 1 - vectors @ self._case.vectors[asked]
        near = np.flatnonzero(distances < distance)
        return [(names[place], float(distances[place])) for place in near[np.argsort(distances[near])]]


def agree(reference: Memory, query: Query, found: Sequence[tuple[str, float]], thresholds: Thresholds) -> bool:
    """Whether ``found`` names what the reference does; of more than 30, whether the closest 30 are equally far.

    Of more than 30 a memory may take any. Names that count or not depending on the thresholds' fourth digit
    are passed over.
    """
    limit = thresholds.max_results
    expected, closest = (closest_scores(pairs) for pairs in (reference.query(query, thresholds), found))
    if len(expected) > limit:
        return equally_far(sorted(expected.values())[:limit], sorted(closest.values())[:limit])
    different = expected.keys() ^ closest.keys()
    return not different or different <= borderline(reference, query, thresholds)


def equally_far(some: Sequence[float], others: Sequence[float]) -> bool:
    return len(some) == len(others) and bool(np.allclose(some, others, rtol=0, atol=TOLERANCE))


def closest_scores(found: Sequence[tuple[str, float]]) -> dict[str, float]:
    """Each name with the smallest of its distances."""
    closest: dict[str, float] = {}
    for name, score in found:
        closest[name] = min(score, closest.get(name, score))
    return closest


def borderline(reference: Memory, query: Query, thresholds: Thresholds) -> set[str]:
    """The names that come or go when the thresholds move a little."""
    found = []
    for sign in (-1, 1):
        moved = {name: getattr(thresholds, name) + sign * TOLERANCE for name in ("entity", "relation", "pair")}
        exact = thresholds.exact + sign * EXACT_TOLERANCE
        found.append({name for name, _ in reference.query(query, replace(thresholds, **moved, exact=exact))})
    return found[0] ^ found[1]


def check_closest(truth: Exhaustive, query: Query, answer: Answer, thresholds: Thresholds) -> None:
    """Raise AssertionError unless the results are the closest there are, in order."""
    scores = closest_scores(truth.query(query, thresholds))
    expected = sorted(scores.values())[: thresholds.max_results]
    distances = [result.distance for result in answer.results]
    assert equally_far(expected, distances), f"{query}: expected results at {expected}, got {distances}"
    assert distances == sorted(distances), f"{query}: out of order: {distances}"
    for result in answer.results:
        distance = scores.get(result.name)
        assert distance is not None, f"{query}: {result} is no answer"
        assert abs(distance - result.distance) < TOLERANCE, f"{query}: {result} is {distance} away"
