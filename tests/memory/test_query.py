"""Which pairs of an entity and a relation are looked at, and which results they give, in which order."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from by_hand import HALF, objects, subjects, t, ts, turned, within

from palimpsest.facts import Query, Triple
from palimpsest.memory import Answer, Counts, TripleMemory

# -- which candidates ----------------------------------------------------------------------------------------------


def test_only_the_nearest_entities_are_candidates(memory: TripleMemory) -> None:
    memory.add(ts("s~0.3 r third", "s~0.1 r first", "s~0.2 r second"))
    assert objects(memory, "s", "r") == ["first", "second", "third"]
    assert objects(memory, "s", "r", within(max_entities=2)) == ["first", "second"]
    assert objects(memory, "s", "r", within(max_entities=1)) == ["first"]
    memory.add(ts("third r s"))  # the nearest now is s, which is no subject
    assert objects(memory, "s", "r", within(max_entities=2)) == ["first"]
    assert objects(memory, "s", "r", within(max_entities=1)) == []


def test_only_the_nearest_relations_are_candidates(memory: TripleMemory) -> None:
    memory.add(ts("s r~0.3 third", "s r~0.1 first", "s r~0.2 second"))
    assert objects(memory, "s", "r") == ["first", "second", "third"]
    assert objects(memory, "s", "r", within(max_relations=2)) == ["first", "second"]
    memory.add(ts("other r s"))  # the nearest now is r, in which s is no subject
    assert objects(memory, "s", "r", within(max_relations=2)) == ["first"]
    assert objects(memory, "s", "r", within(max_relations=1)) == []


def test_of_candidates_as_near_the_first_stored_come_first(memory: TripleMemory) -> None:
    memory.add(ts("name r a", "NAME r b", "Name r c"))
    assert objects(memory, "nAmE", "r", within(max_entities=2)) == ["a", "b"]


def test_as_many_candidates_as_the_paper_has(memory: TripleMemory) -> None:
    near = [f"s~{0.3 + n / 100_000:.5f}" for n in range(320)]
    memory.add([Triple(name, "r", f"o {n}") for n, name in enumerate(near)])
    memory.add([Triple("x", f"q~{0.3 + n / 100_000:.5f}", f"p {n}") for n in range(40)])
    assert memory.query(Query("r~0.2", subject="s")).total == 300
    assert memory.query(Query("q", subject="x")).total == 25
    assert memory.query(Query("r~0.2", subject="s"), within(max_entities=310)).total == 310


# -- exact matches -------------------------------------------------------------------------------------------------


def test_an_exact_match_silences_all_others(memory: TripleMemory) -> None:
    memory.add(ts("Ulysses~0.1 author Homer", "Ulysses author~0.1 Odysseus", "Ulysses author Joyce"))
    answer = memory.query(Query("author", subject="Ulysses"))
    assert (answer.names, answer.total) == (["Joyce"], 1)
    # Nothing is exact for a name that is not stored.
    assert memory.query(Query("author", subject="Ulysses~0.2")).total == 3


def test_an_exact_pair_without_triples_silences_nothing(memory: TripleMemory) -> None:
    # Ulysses and author are stored, each exactly as asked for, but not together.
    memory.add(ts("Ulysses place Dublin", "Emma author Austen", "Ulysses~0.1 author Homer"))
    assert objects(memory, "Ulysses", "author") == ["Homer"]
    memory.add(ts("Ulysses author Joyce"))
    assert objects(memory, "Ulysses", "author") == ["Joyce"]
    memory.delete(ts("Ulysses author Joyce"))
    assert objects(memory, "Ulysses", "author") == ["Homer"]


def test_an_exact_pair_of_the_other_direction_silences_nothing(memory: TripleMemory) -> None:
    memory.add(ts("Joyce friend Pound", "Joyce~0.1 author Ulysses"))
    memory.add(ts("Emma author Joyce"))  # (Joyce, author) exactly, but Joyce is the object
    assert objects(memory, "Joyce", "author") == ["Ulysses"]


def test_exactly_is_by_distance_and_not_by_name(memory: TripleMemory) -> None:
    assert turned(0.03) / 2 < 0.001 < turned(0.07) / 2
    memory.add(ts("Ulysses author Joyce", "ULYSSES author Homer", "Ulysses~0.03 author Dante", "Ulysses~0.07 author X"))
    assert sorted(objects(memory, "ulysses", "author")) == ["Dante", "Homer", "Joyce"]


# -- which results -------------------------------------------------------------------------------------------------


def test_results_are_closest_first(memory: TripleMemory) -> None:
    memory.add(ts("s~0.3 r~0.3 c", "s~0.1 r~0.1 a", "s~0.2 r~0.2 b"))
    answer = memory.query(Query("r", subject="s"))
    assert answer.names == ["a", "b", "c"]
    expected = [turned(weight) for weight in (0.1, 0.2, 0.3)]
    assert [result.distance for result in answer.results] == pytest.approx(expected, abs=HALF)
    assert answer.results[1].triple == t("s~0.2 r~0.2 b")


def test_a_result_appears_once_by_its_closest_pair(memory: TripleMemory) -> None:
    memory.add(ts("s~0.3 r~0.1 x", "s~0.1 r~0.1 x", "s~0.2 r~0.1 x", "s~0.2 r~0.1 y"))
    answer = memory.query(Query("r", subject="s"))
    assert (answer.names, answer.total) == (["x", "y"], 2)
    assert answer.results[0].triple == t("s~0.1 r~0.1 x")
    assert answer.results[0].distance == pytest.approx(turned(0.1), abs=HALF)


def test_equal_distances_are_in_order_of_first_storing(memory: TripleMemory) -> None:
    memory.add(ts("early r2 zebra", "zebra r2 mouse"))
    memory.add(ts("s r beaver", "s r mouse", "s r aardvark", "s r zebra"))
    assert objects(memory, "s", "r") == ["zebra", "mouse", "beaver", "aardvark"]
    assert objects(memory, "s", "r", within(max_results=2)) == ["zebra", "mouse"]
    memory.delete_entity("zebra")  # and back again: stored last
    memory.add(ts("s r zebra"))
    assert objects(memory, "s", "r") == ["mouse", "beaver", "aardvark", "zebra"]


def test_equal_distances_of_two_pairs_are_merged_in_order_of_first_storing(memory: TripleMemory) -> None:
    memory.add(ts("name r one", "NAME r two", "name r three", "NAME r four"))
    assert objects(memory, "Name", "r") == ["one", "two", "three", "four"]


def test_a_self_reference_is_found_from_both_ends(memory: TripleMemory) -> None:
    memory.add(ts("ouroboros eats ouroboros"))
    assert objects(memory, "ouroboros", "eats") == subjects(memory, "eats", "ouroboros") == ["ouroboros"]
    assert memory.counts() == Counts(1, 1, 1, 0)
    assert memory.delete_entity("ouroboros") == 1


def test_an_entity_may_be_called_like_a_relation(memory: TripleMemory) -> None:
    memory.add(ts("author author author"))
    assert memory.counts() == Counts(1, 1, 1, 0)
    assert objects(memory, "author", "author") == ["author"]


def test_thirty_results_and_how_many_there_were(memory: TripleMemory) -> None:
    memory.add([Triple("s", "r", f"o {n}") for n in range(31)])
    answer = memory.query(Query("r", subject="s"))
    assert (answer.names, answer.total) == ([f"o {n}" for n in range(30)], 31)
    answer = memory.query(Query("r", subject="s"), within(max_results=31))
    assert (len(answer.names), answer.total) == (31, 31)
    answer = memory.query(Query("r", subject="s"), within(max_results=1))
    assert (answer.names, answer.total) == (["o 0"], 31)


@pytest.mark.parametrize("backwards", [False, True])
def test_a_hub_and_what_overlaps_with_it(memory: TripleMemory, backwards: bool) -> None:
    def told(entity: str, relation: str, numbers: Sequence[int]) -> list[Triple]:
        names = (f"n {number}" for number in numbers)
        return [Triple(name, relation, entity) if backwards else Triple(entity, relation, name) for name in names]

    def ask(entity: str, relation: str, **changes: float) -> Answer:
        known = "object" if backwards else "subject"
        return memory.query(Query(relation, **{known: entity}), within(**changes))

    memory.add(told("hub", "has", range(500)))
    memory.add(told("hub~0.2", "has", range(490, 505)))  # 10 of the hub's, 5 others
    memory.add(told("hub", "has~0.3", range(503, 508)))  # 2 of those others, 3 more
    memory.add(told("hub~0.2", "has~0.3", [0, 1, 508]))  # 2 of the hub's, 1 more
    answer = ask("hub", "has")
    assert (answer.names, answer.total) == ([f"n {n}" for n in range(30)], 500)
    # Not exact: all four pairs count, the hub first. 500 + 5 + 3 + 1 are distinct.
    answer = ask("hub~0.1", "has~0.05")
    assert (answer.names, answer.total) == ([f"n {n}" for n in range(30)], 509)
    assert {result.triple.relation for result in answer.results} == {"has"}
    # The third pair as it is asked for, then the fourth at 0.01, then the hub at 0.02.
    expected = [*range(503, 508), 0, 1, 508, *range(2, 24)]
    answer = ask("hub", "has~0.3", exact=0)
    assert (answer.names, answer.total) == ([f"n {n}" for n in expected], 509)
    assert ask("hub~0.1", "has~0.05", max_results=600).total == 509
    assert len(ask("hub~0.1", "has~0.05", max_results=600).names) == 509


def spelt(word: str) -> list[str]:
    """All ways to write a word in upper and lower case: all have one vector."""
    return ["".join(letters) for letters in itertools.product(*((c.lower(), c.upper()) for c in word))]


@pytest.mark.parametrize("limit", [1, 5, 30, 200])
def test_a_hundred_pairs_at_the_same_distance_answer_in_order_of_first_storing(
    memory: TripleMemory, limit: int
) -> None:
    names = spelt("hundred")  # 128 pairs
    things = [f"o {n}" for n in range(len(names))]
    memory.add([Triple("x", "first stores", thing) for thing in things])
    # The first spelling leads to the thing that was stored last, and so on.
    memory.add([Triple(name, "r", thing) for name, thing in zip(names, reversed(things), strict=True)])
    answer = memory.query(Query("r", subject="hundred"), within(max_results=limit))
    assert (answer.names, answer.total) == (things[:limit], 128)


@pytest.mark.parametrize("backwards", [False, True])
def test_what_only_the_farthest_of_many_pairs_say_is_found_too(memory: TripleMemory, backwards: bool) -> None:
    def told(entity: str, name: str) -> Triple:
        return Triple(name, "r", entity) if backwards else Triple(entity, "r", name)

    near = [f"s~{0.1 + n / 1000:.3f}" for n in range(150)]  # from 0.005 to 0.03, in this order
    memory.add([told(name, "what all say") for name in reversed(near)])
    memory.add([told(name, f"own {n}") for n, name in reversed(list(enumerate(near))) if n >= 140 or n in (2, 63, 64)])
    answer = memory.query(Query("r", **{"object" if backwards else "subject": "s"}))
    assert answer.names == ["what all say", *(f"own {n}" for n in (2, 63, 64, *range(140, 150)))]
    assert answer.total == 14
    assert [r.distance for r in answer.results] == pytest.approx(
        [turned(0.1 + n / 1000) / 2 for n in (0, 2, 63, 64, *range(140, 150))], abs=HALF
    )
    few = memory.query(Query("r", **{"object" if backwards else "subject": "s"}), within(max_results=4))
    assert few.names == answer.names[:4]
