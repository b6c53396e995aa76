"""What a memory of triples answers to a :class:`~palimpsest.facts.Query` (MemLLM, arXiv 2404.11672, section 3.1).

A query fixes a relation and exactly one entity, ``(subject, relation, ?)`` or ``(?, relation, object)``, and need not
name them as they were stored. Candidates are the stored entities and the stored relation types whose embeddings are
near those asked for; a pair of the two counts if the mean of its two distances is small enough. If some pair that has
triples matches exactly, only exact pairs count. Distances are cosine distances, ``1 - cos``, from 0 to 2.
"""

from __future__ import annotations

from dataclasses import dataclass

from palimpsest.facts import Triple


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """How near is near enough. All comparisons are strict."""

    entity: float
    """Candidate entities are nearer than this to the entity asked for (τ_e)."""
    relation: float
    """Candidate relation types are nearer than this to the relation asked for (τ_r)."""
    pair: float
    """A pair counts if the mean of its two distances is below this (τ_q)."""
    exact: float = 0.001
    """A pair nearer than this matches exactly; with one that has triples, only such pairs count."""
    max_entities: int = 300
    """At most so many candidate entities, the nearest."""
    max_relations: int = 25
    """At most so many candidate relation types, the nearest."""
    max_results: int = 30
    """At most so many results, the closest."""

    def __post_init__(self) -> None:
        for name in ("entity", "relation", "pair", "exact"):
            if not 0 <= getattr(self, name) <= 2:
                raise ValueError(f"threshold {name}: expected a cosine distance from 0 to 2, not {getattr(self, name)}")
        for name in ("max_entities", "max_relations", "max_results"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected 1 or more, not {getattr(self, name)}")


# The settings of MemLLM's experiments.
TRAINING = Thresholds(entity=0.1, relation=0.1, pair=0.1)
LANGUAGE_MODELLING = Thresholds(entity=0.15, relation=0.15, pair=0.1)
EDITING = Thresholds(entity=0.15, relation=0.8, pair=0.5)


@dataclass(frozen=True, slots=True)
class Result:
    """One entity that answers a query."""

    name: str
    distance: float
    """Mean distance of the pair that led here; the smallest, if several did."""
    triple: Triple
    """The stored triple that says so."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a memory has on a query: the closest results, each entity once.

    Results of the same distance stand in the order in which their entities were first stored.
    """

    results: tuple[Result, ...] = ()
    total: int = 0
    """How many distinct results there were before the limit: a large number tells that the query is too broad."""

    @property
    def names(self) -> list[str]:
        """The results' names, closest first."""
        return [result.name for result in self.results]
