"""What the memories are filled with and asked: a demanding but ordinary memory, and one with a hub."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.memory.vectors import Lookup, Space, Vectors, perturbed, unit
from palimpsest.facts import Query, Triple

ENTITIES_PER_TRIPLE = 0.6
# How often the k-th most frequent subject, object and relation type comes: in proportion to k to the power of minus
# this. In Wikidata a few objects (countries, languages, occupations) have a large share; subjects differ less.
SUBJECT_SKEW, OBJECT_SKEW, RELATION_SKEW = 0.75, 1.0, 0.75
NEAR = 0.3  # noise of a near variant, which is then 0.04 away
COPY = 0.8  # noise of a copy that stands for another entity, which is then 0.22 away
# What a language model writes down it spells in many ways, and each spelling is an entity of the memory: how many a
# name has follows a power law. With this one the official design takes times of the order of those reported for it: a
# median of 2 ms and 27 ms at worst with the thresholds of language modelling, of 6 ms and 210 ms with those of editing.
SPELLINGS_EXPONENT, MOST_SPELLINGS = 1.25, 400
SPELLING = (0.2, 0.5)  # least and most noise of a spelling, which is then 0.02 to 0.11 away from the name
TWIN_RELATIONS = 8
AT_ONCE = 60_000  # vectors that are perturbed together

Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Case:
    """The triples of a memory, what it is asked, and a vector for every name."""

    triples: list[Triple]
    queries: list[Query]
    vectors: dict[str, Vectors]
    dimension: int

    @property
    def lookup(self) -> Lookup:
        return Lookup(self.vectors, self.dimension)


def make_case(space: Space, triples: int, queries: int, seed: int = 0) -> Case:
    """``triples`` distinct triples over 0.6 times as many entities, each of which occurs, and queries about them.

    Entities are names of the space, each in one or many spellings; where it has too few, perturbed copies of them.
    """
    rng = np.random.default_rng(seed)
    names, vectors = _entities(space, round(ENTITIES_PER_TRIPLE * triples), rng)
    rows = draw_rows(len(names), len(space.relations), triples, rng)
    made = [Triple(names[s], space.relations[r], names[o]) for s, r, o in rows.tolist()]
    table = dict(zip(names, vectors, strict=True)) | dict(zip(space.relations, space.relation_vectors, strict=True))
    table |= zip(space.unseen, space.unseen_vectors, strict=True)
    return Case(made, _draw_queries(made, space.unseen, table, queries, rng), table, space.dimension)


def draw_rows(entities: int, relations: int, count: int, rng: np.random.Generator) -> Ids:
    """``count`` distinct rows (subject, relation, object) in random order; every entity occurs."""
    subject_of_rank, object_of_rank = rng.permutation(entities), rng.permutation(entities)
    rows = np.empty((0, 3), np.int64)
    while len(rows) < count:
        drawn = np.stack(
            [
                subject_of_rank[_draw(entities, SUBJECT_SKEW, count, rng)],
                _draw(relations, RELATION_SKEW, count, rng),
                object_of_rank[_draw(entities, OBJECT_SKEW, count, rng)],
            ],
            axis=1,
        )
        if not len(rows):  # each entity once in one of the two places
            everyone = np.arange(min(entities, count))
            drawn[everyone, rng.choice([0, 2], len(everyone))] = everyone
        rows = np.concatenate([rows, drawn[drawn[:, 0] != drawn[:, 2]]])
        _, first = np.unique(rows, axis=0, return_index=True)
        rows = rows[np.sort(first)]
    return rng.permutation(rows[:count])


def _draw(size: int, skew: float, count: int, rng: np.random.Generator) -> Ids:
    """``count`` ranks below ``size``, rank k in proportion to (k + 1) to the power of -``skew``."""
    cumulative = np.cumsum(np.arange(1, size + 1) ** -skew)
    return np.searchsorted(cumulative, rng.random(count) * cumulative[-1])


def _entities(space: Space, count: int, rng: np.random.Generator) -> tuple[list[str], Vectors]:
    spellings = np.minimum(rng.random(count) ** (-1 / SPELLINGS_EXPONENT), MOST_SPELLINGS).astype(int)
    origins = int(np.searchsorted(np.cumsum(spellings), count)) + 1
    names, vectors = _names(space, origins, rng)
    origin = np.repeat(np.arange(origins), spellings[:origins])[:count]
    number = np.arange(count) - np.searchsorted(origin, origin)  # 0 is the name itself
    spelt = np.empty((count, space.dimension), np.float32)
    for start in range(0, count, AT_ONCE):
        part = slice(start, start + AT_ONCE)
        noise = np.where(number[part] == 0, 0.0, rng.uniform(*SPELLING, len(number[part])))
        spelt[part] = perturbed(vectors[origin[part]], noise, rng)
    labels = [names[o] if n == 0 else f"{names[o]} (spelling {n})" for o, n in zip(origin, number, strict=True)]
    return labels, spelt


def _names(space: Space, count: int, rng: np.random.Generator) -> tuple[list[str], Vectors]:
    real = min(count, len(space.names))
    vectors = np.empty((count, space.dimension), np.float32)
    vectors[:real] = space.vectors[:real]
    copied = np.arange(real, count)
    names = space.names[:real] + [f"{space.names[i % real]} #{i // real}" for i in copied.tolist()]
    for start in range(0, len(copied), AT_ONCE):
        part = copied[start : start + AT_ONCE]
        vectors[part] = perturbed(space.vectors[part % real], COPY, rng)
    return names, vectors


def _draw_queries(
    triples: list[Triple], unseen: list[str], vectors: dict[str, Vectors], count: int, rng: np.random.Generator
) -> list[Query]:
    """Queries by the names of stored triples, by near variants of them, and by names that are not stored, in turn.

    What has many triples is asked about often. Every other query gives its object. Variants are added to ``vectors``.
    """
    queries = []
    for number, place in enumerate(rng.integers(len(triples), size=count).tolist()):
        triple = triples[place]
        by_subject = number % 2 == 0
        name = triple.subject if by_subject else triple.object
        match number % 3:
            case 1:
                variant = f"{name} (variant {number})"
                vectors[variant] = perturbed(vectors[name][None], NEAR, rng)[0]
                name = variant
            case 2:
                name = unseen[number % len(unseen)]
        queries.append(Query(triple.relation, subject=name) if by_subject else Query(triple.relation, object=name))
    return queries


def make_hub(space: Space, triples: int, twins: int, relations: int, queries: int, seed: int = 0) -> Case:
    """A subject with ``triples`` triples of one relation, among ``twins`` entities so near it that all are candidates.

    There are ``relations`` relation types near the hub's, and each twin has a triple in eight of them. The queries ask
    for near variants of the hub in other words for its relation: there is no exact match to cut the work short.
    """
    rng = np.random.default_rng(seed)
    centre, relation_centre = unit(rng.standard_normal((2, 1, space.dimension)))
    entities = [f"twin {number}" for number in range(twins)]
    types = [f"relation {number}" for number in range(relations)]
    objects = space.names[:triples]
    entity_vectors = perturbed(np.repeat(centre, twins, 0), rng.uniform(0.1, 0.35, twins), rng)
    type_vectors = perturbed(np.repeat(relation_centre, relations, 0), np.linspace(0.1, 1.2, relations), rng)
    vectors = dict(zip(objects, space.vectors[:triples], strict=True))
    vectors |= dict(zip(entities, entity_vectors, strict=True)) | dict(zip(types, type_vectors, strict=True))
    hub = int(np.argsort(entity_vectors @ centre[0])[twins // 2])  # neither the nearest of them nor the farthest
    made = [Triple(entities[hub], types[relations // 2], thing) for thing in objects]
    for entity in entities:
        places = rng.choice(relations, min(TWIN_RELATIONS, relations), replace=False).tolist()
        things = rng.choice(len(objects), len(places)).tolist()
        made += [Triple(entity, types[place], objects[thing]) for place, thing in zip(places, things, strict=True)]
    made = list(dict.fromkeys(made))
    asked = []
    for number in range(queries):
        name, relation = f"hub variant {number}", f"relation variant {number}"
        vectors[name], vectors[relation] = perturbed(np.concatenate([centre, relation_centre]), 0.2, rng)
        asked.append(Query(relation, subject=name))
    return Case([made[place] for place in rng.permutation(len(made)).tolist()], asked, vectors, space.dimension)
