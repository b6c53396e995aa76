"""From candidates to answers: which pairs count, which triples are read for them, and in which order they answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from palimpsest.facts import Known, Triple
from palimpsest.memory.query import Answer, Result, Thresholds

Counts = Mapping[int, Sequence[tuple[int, int]]]
"""By entity id: the relation ids it has triples in, each with how many."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A candidate entity with a candidate relation type, which have ``triples`` triples together."""

    distance: float
    entity: int
    relation: int
    triples: int


@dataclass(frozen=True, slots=True)
class Row:
    """A triple that was read for a pair; ``other`` is the id of the entity that was asked for."""

    other: int
    triple: Triple


def matching_pairs(
    entities: Mapping[int, float], relations: Mapping[int, float], counts: Counts, thresholds: Thresholds
) -> list[Pair]:
    """The pairs of a query that count, closest first; with an exact one among them, the exact ones only.

    Args:
        entities, relations: candidates, by id, with their distances.
    """
    pairs = [
        Pair(distance, entity, relation, triples)
        for entity, entity_distance in entities.items()
        for relation, triples in counts.get(entity, ())
        if relation in relations and (distance := (entity_distance + relations[relation]) / 2) < thresholds.pair
    ]
    pairs.sort(key=lambda pair: (pair.distance, pair.entity, pair.relation))
    if pairs and pairs[0].distance < thresholds.exact:
        return [pair for pair in pairs if pair.distance < thresholds.exact]
    return pairs


def pairs_to_read(pairs: Sequence[Pair], limit: int) -> list[Pair]:
    """The closest pairs that are sure to give ``limit`` distinct results, if all have so many.

    The triples of one pair are about distinct entities. So none has to be read that is farther than one with ``limit``.
    """
    enough = min((pair.distance for pair in pairs if pair.triples >= limit), default=None)
    return [pair for pair in pairs if enough is None or pair.distance <= enough]


def settled(read: Sequence[Pair], rows: Sequence[Iterable[Row]], unread: Sequence[Pair], limit: int) -> bool:
    """Whether the pairs that were read give all results: ``limit`` of them, all closer than what was not read."""
    if not unread:
        return True
    closer = [found for pair, found in zip(read, rows, strict=True) if pair.distance < unread[0].distance]
    return len({row.other for found in closer for row in found}) >= limit


def make_answer(pairs: Sequence[Pair], rows: Sequence[Iterable[Row]], total: int, known: Known, limit: int) -> Answer:
    """The closest ``limit`` results; ``rows`` holds what was read for the pairs, or for the first of them."""
    closest: dict[int, tuple[float, Triple]] = {}
    for pair, read in zip(pairs, rows, strict=False):
        for row in read:
            closest.setdefault(row.other, (pair.distance, row.triple))
    ranked = sorted(closest.items(), key=lambda item: (item[1][0], item[0]))[:limit]
    results = (
        Result(triple.object if known == "subject" else triple.subject, distance, triple)
        for _, (distance, triple) in ranked
    )
    return Answer(tuple(results), total)
