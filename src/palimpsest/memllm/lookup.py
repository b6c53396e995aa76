"""What a read call gets from the memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from palimpsest.facts import Query, Triple
from palimpsest.memory.memory import TripleMemory, storable
from palimpsest.memory.query import Answer, Thresholds


@dataclass(frozen=True, slots=True)
class Found:
    """A name that answers a call, the stored triple that says so, and how far it is from what was asked."""

    name: str
    triple: Triple
    distance: float


class Lookup:
    """Asks a memory the queries of calls.

    The results of a call's queries are joined: closest first, each name once, at most as many as one query may have. A
    query that is too broad (more answers than that) adds nothing, nor does one with a name that no memory can hold.
    """

    def __init__(self, memory: TripleMemory, thresholds: Thresholds) -> None:
        self.memory, self.thresholds = memory, thresholds

    def __call__(self, calls: Sequence[Sequence[Query]]) -> list[list[Found]]:
        """The results of each call; all queries are asked at once."""
        asked = list(dict.fromkeys(query for call in calls for query in call))
        asked = [query for query in asked if storable(query.entity, query.relation)]
        answers = dict(zip(asked, self.memory.query_batch(asked, self.thresholds), strict=True))
        return [self._joined([answers[query] for query in call if query in answers]) for call in calls]

    def names(self, calls: Sequence[Sequence[Query]]) -> list[list[str]]:
        """The names alone."""
        return [[found.name for found in results] for results in self(calls)]

    def _joined(self, answers: Sequence[Answer]) -> list[Found]:
        limit = self.thresholds.max_results
        results = [result for answer in answers if answer.total <= limit for result in answer.results]
        closest: dict[str, Found] = {}
        for result in sorted(results, key=lambda result: result.distance):
            if name := result.name.strip():
                closest.setdefault(name, Found(name, result.triple, result.distance))
        return list(closest.values())[:limit]
