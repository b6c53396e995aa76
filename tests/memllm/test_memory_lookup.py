"""What calls get from a memory whose names lie at known angles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from support import memory as exact_memory

from palimpsest.facts import Query, Triple
from palimpsest.memllm.lookup import Found, Lookup
from palimpsest.memory import FunctionEmbedder, Thresholds, TripleMemory

# Degrees; the cosine distance of 10 degrees is 0.0152, of 20 degrees 0.0603, of 30 degrees 0.1340.
ANGLES = {"Dawn": 0, "Dawn (book)": 20, "Dusk": 90, "Ann": 120, "Bo": 150, " Ann": 180, "Cy": 210, "author": 300}
ANGLES |= {"writer": 310, "country": 60}
STORED = [
    Triple("Dawn", "author", "Ann"),
    Triple("Dawn (book)", "author", "Bo"),
    Triple("Dawn (book)", "author", " Ann"),
    Triple("Dusk", "author", "Cy"),
]
NEAR = Thresholds(entity=0.1, relation=0.1, pair=0.1)


def distance(degrees: float) -> float:
    return float(1 - np.cos(np.radians(degrees)))


def embed(names: Sequence[str]) -> np.ndarray:
    """Other names than those above are embedded where Dawn is."""
    angles = np.radians([ANGLES.get(name, 0) for name in names])
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


@pytest.fixture
def memory() -> Iterator[TripleMemory]:
    with TripleMemory.open(":memory:", FunctionEmbedder(embed, "degrees", 2)) as opened:
        opened.add(STORED)
        yield opened


def found(name: str, triple: Triple, degrees: float, relation_degrees: float = 0) -> Found:
    return Found(name, triple, pytest.approx((distance(degrees) + distance(relation_degrees)) / 2, abs=1e-3))


def test_an_exact_match_comes_with_its_triple(memory: TripleMemory) -> None:
    lookup = Lookup(memory, NEAR)
    assert lookup([[Query("author", subject="Dawn")]]) == [[found("Ann", STORED[0], 0)]]
    assert lookup([[Query("author", object="Cy")]]) == [[found("Dusk", STORED[3], 0)]]


def test_results_of_a_call_are_joined_closest_first_each_name_once(memory: TripleMemory) -> None:
    """All pairs are inexact by the relation; Ann is found in two spellings, and the nearer counts."""
    (results,) = Lookup(memory, NEAR)([[Query("writer", object="Cy"), Query("writer", subject="Dawn")]])
    assert results[:2] == [found("Dusk", STORED[3], 0, 10), found("Ann", STORED[0], 0, 10)]
    assert results[2:] == [found("Bo", STORED[1], 20, 10)]
    (turned,) = Lookup(memory, NEAR)([[Query("writer", subject="Dawn"), Query("writer", object="Cy")]])
    assert [result.name for result in turned] == ["Ann", "Dusk", "Bo"]


def test_a_spelling_with_spaces_alone_is_given_without_them(memory: TripleMemory) -> None:
    (results,) = Lookup(memory, NEAR)([[Query("author", subject="Dawn (book)")]])
    assert results == [found("Bo", STORED[1], 0), found("Ann", STORED[2], 0)]


def test_calls_keep_their_order_and_may_ask_the_same(memory: TripleMemory) -> None:
    author, none = Query("author", subject="Dusk"), Query("country", subject="Dusk")
    lookup = Lookup(memory, NEAR)
    calls = [[none], [author], [], [none, author], [author, author]]
    assert lookup.names(calls) == [[], ["Cy"], [], ["Cy"], ["Cy"]]
    assert lookup(calls) == [lookup([call])[0] for call in calls]
    assert lookup([]) == []


@pytest.mark.parametrize(
    "broken",
    [
        Query("author", subject="A\0B"),
        Query("au\0thor", subject="Dawn"),
        Query("author", object="\ud800"),
        Query(" ", subject="Dawn"),
        Query("author", subject="x" * 100_000),
    ],
    ids=["NUL", "NUL in relation", "surrogate", "blank", "long"],
)
def test_names_that_no_memory_can_hold_find_nothing(memory: TripleMemory, broken: Query) -> None:
    assert Lookup(memory, NEAR).names([[broken], [broken, Query("author", subject="Dusk")]]) == [[], ["Cy"]]


@pytest.mark.parametrize(("answers", "names"), [(3, 3), (4, 0)])
def test_a_query_that_is_too_broad_adds_nothing(answers: int, names: int) -> None:
    stored = [Triple("Dawn", "author", f"Person {number}") for number in range(answers)]
    with exact_memory([*stored, Triple("Dusk", "author", "Cy")]) as memory:
        lookup = Lookup(memory, Thresholds(entity=0.1, relation=0.1, pair=0.1, max_results=3))
        broad, narrow = Query("author", subject="Dawn"), Query("author", subject="Dusk")
        assert lookup.names([[broad]]) == [[f"Person {number}" for number in range(names)]]
        # Joined, there are at most as many as one query may have.
        assert lookup.names([[narrow, broad]]) == [["Cy", "Person 0", "Person 1"][: 1 + names]]
