"""Whether two memories answer alike, and whether an answer is the right one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from benchmarks.memory.cases import Case
from benchmarks.memory.official import OfficialMemory
from palimpsest.facts import Query
from palimpsest.memory import Answer, Thresholds, TripleMemory

TOLERANCE = 1e-3  # distances closer than this count as equal: one of the memories keeps half precision
EXACT_TOLERANCE = 2e-4  # around the much smaller threshold of an exact match


def same_answers(
    official: OfficialMemory, ours: TripleMemory, queries: Sequence[Query], thresholds: Thresholds
) -> list[bool]:
    """By query, whether both memories answer it alike."""
    return [agree(official, query, ours.query(query, thresholds), thresholds) for query in queries]


def agree(official: OfficialMemory, query: Query, ours: Answer, thresholds: Thresholds) -> bool:
    """Whether both name the same entities; of more than 30, whether the closest 30 are equally far.

    Of more than 30 the official memory takes any. Names that count or not depending on the thresholds' fourth digit
    are passed over.
    """
    limit = thresholds.max_results
    theirs = closest_scores(official.query(query, thresholds))
    if len(theirs) > limit:
        return equally_far(sorted(theirs.values())[:limit], [result.distance for result in ours.results])
    different = theirs.keys() ^ set(ours.names)
    return not different or different <= borderline(official, query, thresholds)


def equally_far(some: Sequence[float], others: Sequence[float]) -> bool:
    return len(some) == len(others) and bool(np.allclose(some, others, rtol=0, atol=TOLERANCE))


def closest_scores(found: Sequence[tuple[str, float]]) -> dict[str, float]:
    """Each name with the smallest of its distances."""
    closest: dict[str, float] = {}
    for name, score in found:
        closest[name] = min(score, closest.get(name, score))
    return closest


def borderline(official: OfficialMemory, query: Query, thresholds: Thresholds) -> set[str]:
    """The names that come or go when the thresholds move a little."""
    found = []
    for sign in (-1, 1):
        moved = {name: getattr(thresholds, name) + sign * TOLERANCE for name in ("entity", "relation", "pair")}
        exact = thresholds.exact + sign * EXACT_TOLERANCE
        found.append({name for name, _ in official.query(query, replace(thresholds, **moved, exact=exact))})
    return found[0] ^ found[1]


def check_closest(case: Case, query: Query, answer: Answer, thresholds: Thresholds) -> None:
    """Raise AssertionError unless the results are the closest there are, in order, by a search through everything."""
    truth = closest_of_all(case, query, thresholds)
    expected = sorted(truth.values())[: thresholds.max_results]
    distances = [result.distance for result in answer.results]
    assert equally_far(expected, distances), f"{query}: expected results at {expected}, got {distances}"
    assert distances == sorted(distances), f"{query}: out of order: {distances}"
    for result in answer.results:
        distance = truth.get(result.name)
        assert distance is not None, f"{query}: {result} is no answer"
        assert abs(distance - result.distance) < TOLERANCE, f"{query}: {result} is {distance} away"


def closest_of_all(case: Case, query: Query, thresholds: Thresholds) -> dict[str, float]:
    """The names that answer a query by its subject, not exactly, with their distances, without any index."""
    assert query.known == "subject"
    by_pair: dict[tuple[str, str], list[str]] = {}
    for triple in case.triples:
        by_pair.setdefault((triple.subject, triple.relation), []).append(triple.object)
    names = {name for triple in case.triples for name in (triple.subject, triple.object)}
    entities = _nearest(case, names, query.entity, thresholds.entity, thresholds.max_entities)
    types = {triple.relation for triple in case.triples}
    relations = _nearest(case, types, query.relation, thresholds.relation, thresholds.max_relations)
    found = [
        (name, (near + relation_near) / 2)
        for entity, near in entities
        for relation, relation_near in relations
        if (near + relation_near) / 2 < thresholds.pair
        for name in by_pair.get((entity, relation), ())
    ]
    assert all(score >= thresholds.exact for _, score in found), f"{query}: matches exactly"
    return closest_scores(found)


def _nearest(case: Case, names: set[str], asked: str, distance: float, limit: int) -> list[tuple[str, float]]:
    ordered = sorted(names)
    distances = 1 - np.stack([case.vectors[name] for name in ordered]) @ case.vectors[asked]
    order = np.argsort(distances)[:limit]
    return [(ordered[place], float(distances[place])) for place in order if distances[place] < distance]
