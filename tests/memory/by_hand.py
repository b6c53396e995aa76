"""An embedder whose distances are worked out by hand, and short words for what is asked of a memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import numpy as np

from palimpsest.facts import Query, Triple
from palimpsest.memory import Counts, StoredTriple, Thresholds, TripleMemory

DIMENSION = 48
HALF = 3e-4  # what half precision may do to a distance
ONE_YEAR = datetime(2001, 1, 1, tzinfo=UTC)

Opened = Callable[..., TripleMemory]


# -- vectors -------------------------------------------------------------------------------------------------------


def unit(text: str) -> np.ndarray:
    """A random direction of its own for each text: two of them are nearly orthogonal."""
    seed = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "little")
    vector = np.random.default_rng(seed).standard_normal(DIMENSION)
    return vector / np.linalg.norm(vector)


def embed(texts: Sequence[str]) -> np.ndarray:
    """Near what they share: ``name~0.3`` is ``name`` turned by 0.3 towards a direction of its own, case aside."""
    vectors = []
    for text in texts:
        stem, _, turned = text.rpartition("~")
        try:
            weight = float(turned) if stem else 0.0
        except ValueError:
            stem, weight = "", 0.0
        base, own = unit((stem or text).lower()), unit(f"own of {text}")
        own = own - (own @ base) * base
        vector = base + weight * own / np.linalg.norm(own)
        vectors.append(vector / np.linalg.norm(vector))
    return np.array(vectors)


def turned(weight: float) -> float:
    """The cosine distance of ``name~weight`` to ``name``: 0.005 for 0.1, 0.04 for 0.3."""
    return 1 - 1 / (1 + weight**2) ** 0.5


def within(**changes: float) -> Thresholds:
    """Those of language modelling, but for the changes."""
    return Thresholds(**({"entity": 0.15, "relation": 0.15, "pair": 0.1} | changes))


# -- triples -------------------------------------------------------------------------------------------------------


def t(text: str) -> Triple:
    """``"Ulysses author Joyce"`` as a triple."""
    return Triple(*text.split())


def ts(*texts: str) -> list[Triple]:
    return [t(text) for text in texts]


def current(memory: TripleMemory) -> list[Triple]:
    return [stored.triple for stored in memory]


def objects(memory: TripleMemory, subject: str, relation: str, thresholds: Thresholds | None = None) -> list[str]:
    """What answers ``(subject, relation, ?)``."""
    return memory.query(Query(relation, subject=subject), thresholds).names


def subjects(memory: TripleMemory, relation: str, thing: str, thresholds: Thresholds | None = None) -> list[str]:
    """What answers ``(?, relation, thing)``."""
    return memory.query(Query(relation, object=thing), thresholds).names


def whole(memory: TripleMemory) -> tuple[list[StoredTriple], list[StoredTriple], Counts, list[list[Triple]]]:
    """All that can be read out of a memory, and the triples that answer some queries."""
    queries = [
        Query(relation, **{known: entity})
        for known in ("subject", "object")
        for relation in ("r", "q~0.1")
        for entity in ("a", "b~0.2", "c", "d")
    ]
    answers = [[result.triple for result in answer.results] for answer in memory.query_batch(queries)]
    return list(memory), list(memory.history()), memory.counts(), answers
