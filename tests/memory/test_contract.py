"""What every store of triples does, worked by hand: ``name~0.3`` is a name at a known distance of ``name``."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

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
    TripleMemoryError,
)
from palimpsest.memory.embedding import CachedEmbedder

Opened = Callable[..., TripleMemory]
HALF = 3e-4  # what half precision may do to a distance
ONE_YEAR = datetime(2001, 1, 1, tzinfo=UTC)


def turned(weight: float) -> float:
    """The cosine distance of ``name~weight`` to ``name``."""
    return 1 - 1 / (1 + weight**2) ** 0.5


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


def within(**changes: float) -> Thresholds:
    """Those of language modelling, but for the changes."""
    return Thresholds(**({"entity": 0.15, "relation": 0.15, "pair": 0.1} | changes))


@pytest.fixture
def lasting(where: str) -> str:
    """Where a memory can be opened a second time."""
    if where == ":memory:":
        pytest.skip("a memory in RAM goes with its object")
    return where


# -- what is near enough -------------------------------------------------------------------------------------------

CORNERS = {"east": (1, 0, 0, 0), "between": (0.5, 0.5, 0.5, 0.5), "north": (0, 1, 0, 0), "other": (0, 0, 0, 1)}


@pytest.fixture
def corners(where: str) -> Iterator[TripleMemory]:
    """Vectors whose distances are exact: 0.5 from ``east`` to ``between``, 1 from ``east`` to ``north``."""
    embedder = FunctionEmbedder(lambda names: np.array([CORNERS[name] for name in names]), "corners", 4)
    with TripleMemory.open(where, embedder) as memory:
        yield memory


def test_a_question_is_answered_in_both_directions(memory: TripleMemory) -> None:
    assert memory.add(ts("Ulysses author Joyce", "Ulysses place Dublin", "Dubliners author Joyce")) == 3
    answer = memory.query(Query("author", subject="Ulysses"))
    assert answer.names == ["Joyce"]
    assert answer.total == 1
    assert answer.results[0].triple == t("Ulysses author Joyce")
    assert answer.results[0].distance == pytest.approx(0, abs=HALF)
    assert subjects(memory, "author", "Joyce") == ["Ulysses", "Dubliners"]
    assert objects(memory, "Joyce", "author") == []
    assert subjects(memory, "place", "Joyce") == []


def test_an_empty_memory_has_no_answer(memory: TripleMemory) -> None:
    assert memory.query(Query("author", subject="Ulysses")) == Answer((), 0)
    assert memory.query_batch([]) == []


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(
    ("asked", "limits", "found"),
    [
        (Query("east", subject="between"), {"entity": 0.5}, False),
        (Query("east", subject="between"), {"entity": 0.51}, True),
        (Query("between", subject="east"), {"relation": 0.5}, False),
        (Query("between", subject="east"), {"relation": 0.51}, True),
        (Query("between", subject="east"), {"pair": 0.25}, False),
        (Query("between", subject="east"), {"pair": 0.26}, True),
        (Query("between", subject="between"), {"pair": 0.5}, False),
        (Query("between", subject="between"), {"pair": 0.51}, True),
        (Query("north", subject="east"), {"relation": 1.0}, False),
        (Query("north", subject="east"), {"relation": 1.01}, True),
        (Query("east", subject="east"), {"entity": 0}, False),
        (Query("east", subject="east"), {"relation": 0}, False),
        (Query("east", subject="east"), {"pair": 0}, False),
    ],
)
def test_thresholds_are_strict(
    corners: TripleMemory, asked: Query, limits: dict[str, float], found: bool, backwards: bool
) -> None:
    corners.add(ts("other east east" if backwards else "east east other"))
    if backwards:
        asked = Query(asked.relation, object=asked.subject)
    thresholds = Thresholds(**({"entity": 2, "relation": 2, "pair": 2, "exact": 0} | limits))
    assert corners.query(asked, thresholds).names == (["other"] if found else [])


@pytest.mark.parametrize(("exact", "found"), [(0.25, ["north", "other"]), (0.26, ["north"])])
def test_exactness_is_strict_too(corners: TripleMemory, exact: float, found: list[str]) -> None:
    corners.add(ts("east east north", "north between other"))
    thresholds = Thresholds(entity=2, relation=2, pair=2, exact=exact)
    # (between, east) is 0.5 and 0 from the first pair, 0.5 and 0.5 from the second: 0.25 and 0.5.
    assert objects(corners, "between", "east", thresholds) == found


def test_an_identical_name_is_not_nearer_than_zero(memory: TripleMemory) -> None:
    memory.add([Triple(f"thing {n}", "r", f"value {n}") for n in range(20)])
    nothing = [{"entity": 0}, {"relation": 0}, {"pair": 0}]
    assert [
        [memory.query(Query("r", subject=f"thing {n}"), within(**none)).total for n in range(20)] for none in nothing
    ] == [[0] * 20] * 3


def test_near_names_are_found_and_far_ones_are_not(memory: TripleMemory) -> None:
    memory.add(ts("Ulysses author Joyce"))
    assert turned(0.6) == pytest.approx(0.1425, abs=1e-4)
    answer = memory.query(Query("author", subject="Ulysses~0.6"))
    assert answer.names == ["Joyce"]
    assert answer.results[0].distance == pytest.approx(turned(0.6) / 2, abs=HALF)
    assert objects(memory, "Ulysses~0.6", "author", within(entity=0.14)) == []
    assert objects(memory, "Ulysses~0.6", "author", within(entity=0.145)) == ["Joyce"]
    assert objects(memory, "Ulysses", "author~0.6", within(relation=0.14)) == []
    assert objects(memory, "Ulysses", "author~0.6", within(relation=0.145)) == ["Joyce"]
    assert objects(memory, "Finnegan", "author") == []
    assert objects(memory, "Ulysses", "publisher") == []


def test_it_is_the_mean_of_two_distances_that_counts(memory: TripleMemory) -> None:
    memory.add(ts("Ulysses author Joyce"))
    mean = (turned(0.45) + turned(0.5)) / 2
    assert mean == pytest.approx(0.0968, abs=1e-4)
    answer = memory.query(Query("author~0.5", subject="Ulysses~0.45"))
    assert answer.results[0].distance == pytest.approx(mean, abs=HALF)
    # 0.1056 each: both are candidates, but as a pair they are too far.
    assert objects(memory, "Ulysses~0.5", "author~0.5") == []
    assert objects(memory, "Ulysses~0.5", "author~0.5", within(pair=0.11)) == ["Joyce"]
    assert objects(memory, "Ulysses~0.5", "author~0.5", within(pair=0.104)) == []


def test_case_and_direction_are_up_to_the_embedder(memory: TripleMemory) -> None:
    memory.add(ts("Ulysses author Joyce"))
    assert objects(memory, "ULYSSES", "Author") == ["Joyce"]
    assert subjects(memory, "AUTHOR", "joyce") == ["Ulysses"]


@pytest.mark.parametrize(
    ("thresholds", "found"),
    [(TRAINING, ["a"]), (LANGUAGE_MODELLING, ["a", "b"]), (EDITING, ["a", "b", "c"])],
)
def test_the_three_settings_of_memllm(memory: TripleMemory, thresholds: Thresholds, found: list[str]) -> None:
    # Relations at 0.042, 0.143 and 0.708 of the one asked for: pairs at 0.021, 0.071 and 0.354.
    memory.add(ts("s r~0.3 a", "s r~0.6 b", "s r~3.28 c"))
    assert objects(memory, "s", "r", thresholds) == found


def test_settings_are_those_of_the_paper() -> None:
    assert (TRAINING.entity, TRAINING.relation, TRAINING.pair) == (0.1, 0.1, 0.1)
    assert (LANGUAGE_MODELLING.entity, LANGUAGE_MODELLING.relation, LANGUAGE_MODELLING.pair) == (0.15, 0.15, 0.1)
    assert (EDITING.entity, EDITING.relation, EDITING.pair) == (0.15, 0.8, 0.5)
    for setting in (TRAINING, LANGUAGE_MODELLING, EDITING):
        assert setting.exact == 0.001
        assert (setting.max_entities, setting.max_relations, setting.max_results) == (300, 25, 30)


def test_a_memory_has_thresholds_of_its_own(opened: Opened) -> None:
    memory = opened(thresholds=EDITING)
    memory.add(ts("s r~3.28 a"))
    assert objects(memory, "s", "r") == ["a"]
    assert objects(memory, "s", "r", LANGUAGE_MODELLING) == []


@pytest.mark.parametrize("name", ["entity", "relation", "pair", "exact"])
@pytest.mark.parametrize("value", [-0.1, 2.1, float("nan")])
def test_a_threshold_is_a_distance(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"threshold {name}: expected a cosine distance"):
        within(**{name: value})


@pytest.mark.parametrize("name", ["max_entities", "max_relations", "max_results"])
def test_limits_are_counts(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected 1 or more, not 0"):
        within(**{name: 0})


def test_a_query_gives_one_entity() -> None:
    with pytest.raises(ValueError, match="not both"):
        Query("author")
    with pytest.raises(ValueError, match="not both"):
        Query("author", subject="Ulysses", object="Joyce")


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


# -- many at once --------------------------------------------------------------------------------------------------


def test_a_batch_answers_like_single_queries(memory: TripleMemory) -> None:
    memory.add(ts("a r b", "a~0.1 r c", "b r a", "c r~0.2 a", "a r~0.2 d", "d q a", "d q~0.1 b"))
    entities = ["a", "b", "c", "d", "a~0.1", "a~0.2", "d~0.3", "unknown"]
    queries = [
        Query(relation, **{known: entity})
        for entity in entities
        for relation in ("r", "r~0.1", "q", "unknown")
        for known in ("subject", "object")
    ]
    singly = [memory.query(query) for query in queries]
    assert sum(answer.total for answer in singly) > 20
    for query, alone, together in zip(queries, singly, memory.query_batch(queries), strict=True):
        assert together.names == alone.names, query
        assert together.total == alone.total
        assert [r.triple for r in together.results] == [r.triple for r in alone.results]
        assert [r.distance for r in together.results] == pytest.approx([r.distance for r in alone.results], abs=1e-5)
    assert [answer.names for answer in memory.query_batch(queries[::-1])] == [answer.names for answer in singly][::-1]


def test_the_same_query_twice_is_answered_twice(memory: TripleMemory) -> None:
    memory.add(ts("a r b"))
    query, back = Query("r", subject="a"), Query("r", object="b")
    assert [answer.names for answer in memory.query_batch([query, back, query, back])] == [["b"], ["a"]] * 2


def counted(memory: TripleMemory, action: Callable[[], object]) -> list[str]:
    """The SQL statements of an action on a SQLite memory."""
    statements: list[str] = []
    memory.store._connection.set_trace_callback(statements.append)
    action()
    memory.store._connection.set_trace_callback(None)
    return statements


def test_a_query_is_as_many_statements_with_one_pair_as_with_hundreds(embedder: FunctionEmbedder) -> None:
    with TripleMemory.open(":memory:", embedder) as memory:
        memory.add(ts("lonely r a"))
        for n in range(12):
            memory.add([Triple(f"s~{0.2 + m / 1000:.3f}", f"r~{0.2 + n / 1000:.3f}", f"o {m} {n}") for m in range(25)])
        one, many = Query("r", subject="lonely"), Query("r", subject="s")
        memory.query_batch([one, many])
        assert memory.query(one).total == 1
        assert memory.query(many).total == 300
        few = counted(memory, lambda: memory.query(one))
        assert len(few) == len(counted(memory, lambda: memory.query(many)))
        assert sum("SELECT" in statement for statement in few) < 10


def test_a_query_is_at_most_one_statement_more_where_many_pairs_say_the_same(embedder: FunctionEmbedder) -> None:
    with TripleMemory.open(":memory:", embedder) as memory:
        memory.add(ts("lonely r a"))
        for stem, count in (("s", 100), ("z", 290)):
            near = [f"{stem}~{0.1 + n / 10_000:.4f}" for n in range(count)]
            memory.add([Triple(name, "r", f"the same {n % 2}") for n, name in enumerate(near)])
        one, many, most = (Query("r", subject=name) for name in ("lonely", "s", "z"))
        assert [answer.total for answer in memory.query_batch([one, many, most])] == [1, 2, 2]
        counts = [len(counted(memory, lambda query=query: memory.query(query))) for query in (one, many, most)]
        assert counts[1] == counts[2] <= counts[0] + 1
        assert len(counted(memory, lambda: memory.query_batch([one, many, most]))) == counts[2]


def test_a_batch_is_as_many_statements_as_two_queries(embedder: FunctionEmbedder) -> None:
    with TripleMemory.open(":memory:", embedder) as memory:
        memory.add([Triple(f"s {n}", "r", f"o {n}") for n in range(32)])
        queries = [q for n in range(32) for q in (Query("r", subject=f"s {n}"), Query("r", object=f"o {n}"))]
        few, many = (
            counted(memory, lambda chosen=chosen: memory.query_batch(chosen)) for chosen in (queries[:2], queries)
        )
        assert len(queries) == 64
        assert len(few) == len(many)
        same = counted(memory, lambda: memory.query_batch(queries[::2]))
        assert len(counted(memory, lambda: memory.query(queries[0]))) == len(same) < len(few)


def test_new_names_are_embedded_once_and_in_one_batch(where: str, embedder: FunctionEmbedder) -> None:
    calls: list[list[str]] = []

    def embed(names: Sequence[str]) -> np.ndarray:
        calls.append(sorted(names))
        return np.asarray(embedder.encode(names))

    with TripleMemory.open(where, FunctionEmbedder(embed, embedder.identity, embedder.dimension)) as memory:
        triples = ts("a r b", "b r c", "a r c", "c q a")
        memory.add(triples)
        assert sorted(calls) == [["a", "b", "c"], ["q", "r"]]
        memory.add(triples)
        memory.update(t("a r c"))
        memory.query_batch([Query("r", subject="a"), Query("q", object="b")])
        assert len(calls) == 2
        memory.query_batch([Query(f"r{n % 3}", subject=f"x{n % 7}") for n in range(64)])
        assert [len(names) for names in calls[2:]] == [7, 3]


def test_stored_names_are_not_embedded_again_by_writing(
    opened: Opened, lasting: str, embedder: FunctionEmbedder
) -> None:
    def refuse(names: Sequence[str]) -> np.ndarray:
        raise AssertionError(f"{names} embedded again")

    opened().add(ts("a r b", "b r c"))
    with TripleMemory.open(lasting, FunctionEmbedder(refuse, embedder.identity, embedder.dimension)) as memory:
        assert memory.add(ts("a r c", "c r b")) == 2
        assert memory.update(t("a r a")) == ts("a r b", "a r c")


def test_the_cache_forgets_what_was_used_longest_ago(embedder: FunctionEmbedder) -> None:
    calls: list[list[str]] = []

    def embed(names: Sequence[str]) -> np.ndarray:
        calls.append(list(names))
        return np.asarray(embedder.encode(names))

    cached = CachedEmbedder(FunctionEmbedder(embed, "counting", embedder.dimension), capacity=2)
    cached(["a", "b"])
    cached(["a", "c"])  # b was used longest ago
    assert list(cached(["c", "a"])) == ["c", "a"]
    assert calls == [["a", "b"], ["c"]]
    cached(["b"])
    cached(["c", "b", "c"])
    assert calls[2:] == [["b"], ["c"]]
    assert list(cached(["1", "2", "3"])) == ["1", "2", "3"]  # more than it can keep


# -- adding --------------------------------------------------------------------------------------------------------


def test_adding_twice_changes_nothing(memory: TripleMemory) -> None:
    triples = ts("a r b", "a r c")
    assert memory.add(triples, Source("doc", 3, "model", ONE_YEAR)) == 2
    before = list(memory), memory.counts()
    assert memory.add(triples, Source("doc", 3, "model", ONE_YEAR + timedelta(days=1))) == 0
    assert (list(memory), memory.counts()) == before
    assert before[0] == [StoredTriple(triple, (Source("doc", 3, "model", ONE_YEAR),)) for triple in triples]


def test_a_batch_may_repeat_itself(memory: TripleMemory) -> None:
    assert memory.add(ts("a r b", "a r b", "a r c", "a r b")) == 2
    assert current(memory) == ts("a r b", "a r c")
    assert [len(stored.sources) for stored in memory] == [1, 1]
    assert memory.add([]) == 0


def test_a_triple_collects_its_sources_oldest_first(memory: TripleMemory) -> None:
    days = [ONE_YEAR + timedelta(days=n) for n in range(4)]
    memory.add(ts("a r b"), Source("late", 0, "model", days[3]))
    assert memory.add(ts("a r b"), Source("early", 0, "model", days[0])) == 0
    memory.add(ts("a r b") * 2, [Source("late", 1, "model", days[1]), Source("late", 0, "annotator", days[2])])
    (stored,) = memory
    assert [(source.document, source.sentence, source.writer, source.time) for source in stored.sources] == [
        ("early", 0, "model", days[0]),
        ("late", 1, "model", days[1]),
        ("late", 0, "annotator", days[2]),
        ("late", 0, "model", days[3]),
    ]
    assert memory.counts().triples == 1


def test_each_triple_may_have_a_source_of_its_own(memory: TripleMemory) -> None:
    sources = [Source("one", 0, time=ONE_YEAR), Source("two", time=ONE_YEAR)]
    memory.add(ts("a r b", "a r c"), sources)
    assert [stored.sources for stored in memory] == [(sources[0],), (sources[1],)]
    memory.add((triple for triple in ts("a r d")), sources[:1])
    with pytest.raises(ValueError, match="2 triples but 1 sources"):
        memory.add(ts("a r e", "a r f"), sources[:1])
    assert len(memory) == 3


def test_what_is_not_known_of_a_source_stays_unknown(memory: TripleMemory) -> None:
    before = datetime.now(UTC)
    memory.add(ts("a r b"))
    ((source,),) = [stored.sources for stored in memory]
    assert (source.document, source.sentence, source.writer) == (None, None, None)
    assert before - timedelta(microseconds=1) <= source.time <= datetime.now(UTC)


def test_times_are_kept_to_the_microsecond_in_utc(memory: TripleMemory) -> None:
    kolkata = timezone(timedelta(hours=5, minutes=30))
    memory.add(ts("a r b"), Source(time=datetime(1999, 12, 31, 23, 59, 59, 123456, kolkata)))
    ((source,),) = [stored.sources for stored in memory]
    assert source.time == datetime(1999, 12, 31, 18, 29, 59, 123456, UTC)
    assert source.time.utcoffset() == timedelta(0)


def test_a_source_makes_sense() -> None:
    with pytest.raises(ValueError, match="needs a time zone"):
        Source(time=datetime(2001, 1, 1))
    with pytest.raises(ValueError, match="counted from 0"):
        Source(sentence=-1)


def test_a_name_that_goes_while_it_is_needed_is_stored_anew(memory: TripleMemory) -> None:
    memory.add(ts("a r b"))
    unknown, asked = memory.store.unknown, []

    def racing(entities: Sequence[str], relations: Sequence[str]) -> tuple[list[str], list[str]]:
        """After the question for what is new, another client removes what is known."""
        answer = unknown(entities, relations)
        if not asked:
            memory.delete_entity("a")
        asked.append(answer)
        return answer

    memory.store.unknown = racing
    assert memory.add(ts("a r c", "d r b")) == 2
    assert asked == [(["c", "d"], []), (["a", "c", "d", "b"], ["r"])]
    asked.clear()
    assert memory.update(t("a r e")) == []  # racing() has deleted a again
    assert current(memory) == ts("d r b", "a r e")
    memory.check()


# -- updating ------------------------------------------------------------------------------------------------------


def test_an_update_replaces_the_object_and_keeps_history(memory: TripleMemory) -> None:
    memory.add(
        ts("France president Chirac", "France capital Paris", "Chirac born Paris"), Source("news", time=ONE_YEAR)
    )
    before = datetime.now(UTC)
    assert memory.update(t("France president Macron"), Source("later", 7, "model")) == ts("France president Chirac")
    assert objects(memory, "France", "president") == ["Macron"]
    assert subjects(memory, "president", "Chirac") == []
    assert current(memory) == ts("France capital Paris", "Chirac born Paris", "France president Macron")
    (old,) = memory.history()
    assert old.triple == t("France president Chirac")
    assert old.sources == (Source("news", time=ONE_YEAR),)
    assert old.replaced_by == "Macron"
    assert before - timedelta(microseconds=1) <= old.replaced_at <= datetime.now(UTC)
    assert memory.counts() == Counts(triples=3, entities=4, relations=3, replaced=1)
    assert len(memory) == 3
    assert t("France president Chirac") not in memory
    (new,) = memory.select(object="Macron")
    assert [(source.document, source.sentence, source.writer) for source in new.sources] == [("later", 7, "model")]
    assert (new.replaced_at, new.replaced_by) == (None, None)


def test_an_update_of_what_is_so_already_replaces_nothing(memory: TripleMemory) -> None:
    memory.add(ts("a r b"), Source("one", time=ONE_YEAR))
    assert memory.update(t("a r b"), Source("two", time=ONE_YEAR + timedelta(days=1))) == []
    (stored,) = memory
    assert [source.document for source in stored.sources] == ["one", "two"]
    assert list(memory.history()) == []


def test_an_update_of_something_new_just_stores_it(memory: TripleMemory) -> None:
    assert memory.update(t("a r b")) == []
    assert current(memory) == ts("a r b")


def test_an_update_replaces_all_rivals_and_nothing_else(memory: TripleMemory) -> None:
    memory.add(ts("a r x", "a r y", "a r z", "a q x", "b r x", "a r~0.1 x", "A r x"))
    assert memory.update(t("a r y")) == ts("a r x", "a r z")
    assert current(memory) == ts("a r y", "a q x", "b r x", "a r~0.1 x", "A r x")
    assert [(old.triple, old.replaced_by) for old in memory.history()] == [(t("a r x"), "y"), (t("a r z"), "y")]


def test_history_goes_on(memory: TripleMemory) -> None:
    memory.add(ts("a r 1"))
    for number in (2, 3, 1):  # 1 comes back, and stays in history too
        memory.update(t(f"a r {number}"))
    history = list(memory.history())
    assert [(old.triple.object, old.replaced_by) for old in history] == [("1", "2"), ("2", "3"), ("3", "1")]
    assert sorted(old.replaced_at for old in history) == [old.replaced_at for old in history]
    assert objects(memory, "a", "r") == ["1"]
    assert memory.counts() == Counts(triples=1, entities=4, relations=1, replaced=3)


def test_a_replaced_triple_that_is_added_again_is_current_again(memory: TripleMemory) -> None:
    memory.add(ts("a r b"))
    memory.update(t("a r c"))
    assert memory.add(ts("a r b")) == 1
    assert objects(memory, "a", "r") == ["b", "c"]  # b was stored first
    assert current(memory) == ts("a r c", "a r b")
    assert [old.triple for old in memory.history()] == ts("a r b")


def test_history_is_selected_by_exact_names(memory: TripleMemory) -> None:
    memory.add(ts("a r 1", "b r 1", "a q 2"))
    for triple in ts("b r 3", "a r 3", "a q 3"):
        memory.update(triple)
    assert [old.triple for old in memory.history()] == ts("b r 1", "a r 1", "a q 2")
    assert [old.triple for old in memory.history(subject="a")] == ts("a r 1", "a q 2")
    assert [old.triple for old in memory.history(relation="r", object="1")] == ts("b r 1", "a r 1")
    assert [old.triple for old in memory.history(subject="a", relation="r", object="2")] == []
    assert list(memory.history(subject="nobody")) == []


# -- deleting ------------------------------------------------------------------------------------------------------


def test_a_deleted_triple_is_gone_and_so_are_names_that_nothing_mentions(memory: TripleMemory) -> None:
    memory.add(ts("a r b", "a q c", "b q c"))
    assert memory.delete(ts("a r b", "a r c", "unknown r b")) == 1
    assert current(memory) == ts("a q c", "b q c")
    assert objects(memory, "a", "r") == []
    assert memory.counts() == Counts(triples=2, entities=3, relations=1, replaced=0)
    assert memory.delete(ts("a q c", "b q c", "a q c")) == 2
    assert memory.counts() == Counts(0, 0, 0, 0)
    assert memory.delete(ts("a q c")) == 0
    assert memory.delete([]) == 0
    memory.check()


def test_deleted_names_are_no_candidates_any_more(memory: TripleMemory) -> None:
    memory.add(ts("s r gone", "s~0.1 r stays"))
    memory.delete(ts("s r gone"))
    assert objects(memory, "s", "r", within(max_entities=1)) == ["stays"]


def test_a_deleted_triple_leaves_history_too(memory: TripleMemory) -> None:
    memory.add(ts("a r b", "a q b"))
    memory.update(t("a r c"))
    assert memory.delete(ts("a r b")) == 1
    assert list(memory.history()) == []
    assert memory.counts() == Counts(triples=2, entities=3, relations=2, replaced=0)
    memory.check()


def test_history_remembers_that_a_deleted_triple_came_after(memory: TripleMemory) -> None:
    memory.add(ts("a r 1"))
    memory.update(t("a r 2"))
    memory.update(t("a r 3"))
    memory.delete(ts("a r 3"))
    assert [(old.triple.object, old.replaced_by) for old in memory.history()] == [("1", "2"), ("2", None)]
    assert all(old.replaced_at for old in memory.history())
    memory.delete(ts("a r 2"))
    assert [(old.triple.object, old.replaced_by) for old in memory.history()] == [("1", None)]
    assert memory.counts() == Counts(triples=0, entities=2, relations=1, replaced=1)


def test_a_triple_deleted_and_added_again_starts_anew(memory: TripleMemory) -> None:
    memory.add(ts("a r b"), Source("old", time=ONE_YEAR))
    memory.delete(ts("a r b"))
    assert memory.add(ts("a r b"), Source("new", time=ONE_YEAR)) == 1
    assert [stored.sources for stored in memory] == [(Source("new", time=ONE_YEAR),)]
    assert objects(memory, "a", "r") == ["b"]


def test_an_entity_goes_with_all_that_mentions_it(memory: TripleMemory) -> None:
    memory.add(ts("a r b", "b r c", "c r a", "c q d", "b r b"))
    memory.update(t("a r e"))  # (a r b) is history
    assert memory.delete_entity("b") == 3
    assert current(memory) == ts("c r a", "c q d", "a r e")
    assert list(memory.history()) == []
    assert subjects(memory, "r", "b") == objects(memory, "b", "r") == []
    assert memory.counts() == Counts(triples=3, entities=4, relations=2, replaced=0)
    assert memory.delete_entity("b") == 0
    assert memory.delete_entity("r") == 0  # a relation
    assert memory.delete_entity("B") == 0
    memory.check()


def test_a_document_goes_with_what_it_alone_says(memory: TripleMemory) -> None:
    day = ONE_YEAR
    memory.add(ts("a r b", "b r c", "c q d"), [Source("first", n, time=day) for n in range(3)])
    memory.add(ts("a r b", "b r c"), Source("second", time=day))
    memory.add(ts("b r c"), Source(None, None, "somebody", day))
    memory.add(ts("c q d"), Source("first", 9, "model", day))  # twice in the same document
    assert [stored.triple for stored in memory.select(document="second")] == ts("a r b", "b r c")
    assert memory.delete_document("first") == 1
    assert [(stored.triple, stored.sources) for stored in memory] == [
        (t("a r b"), (Source("second", time=day),)),
        (t("b r c"), (Source(None, None, "somebody", day), Source("second", time=day))),
    ]
    assert memory.counts() == Counts(triples=2, entities=3, relations=1, replaced=0)
    assert list(memory.select(document="first")) == []
    assert memory.delete_document("second") == 1
    assert current(memory) == ts("b r c")
    assert memory.delete_document("second") == memory.delete_document("unknown") == 0
    memory.check()


def test_a_document_leaves_history_too(memory: TripleMemory) -> None:
    memory.add(ts("a r 1", "b r 1"), Source("rumour", time=ONE_YEAR))
    memory.add(ts("b r 1"), Source("book", time=ONE_YEAR))
    memory.update(t("a r 2"), Source("book"))
    memory.update(t("b r 2"), Source("rumour"))
    assert memory.delete_document("rumour") == 2  # (a r 1), which was history, and (b r 2)
    assert current(memory) == ts("a r 2")
    assert [(old.triple, old.sources, old.replaced_by) for old in memory.history()] == [
        (t("b r 1"), (Source("book", time=ONE_YEAR),), None)
    ]
    memory.check()


def test_erasing_can_wait_but_nothing_deleted_is_seen_meanwhile(memory: TripleMemory) -> None:
    memory.add(ts("a r b", "b r c", "c r d", "d r e"), [Source(f"doc {n}", time=ONE_YEAR) for n in range(4)])
    assert memory.delete(ts("a r b"), erase=False) == 1
    assert memory.delete_entity("c", erase=False) == 2
    assert memory.delete_document("doc 3", erase=False) == 1
    assert memory.counts() == Counts(0, 0, 0, 0)
    assert memory.query(Query("r", subject="a")).total == 0
    memory.erase()
    assert memory.add(ts("a r b")) == 1
    assert objects(memory, "a", "r") == ["b"]
    memory.check()


# -- reading out ---------------------------------------------------------------------------------------------------


def test_triples_are_looked_up_by_exact_names(memory: TripleMemory) -> None:
    stored = ts("a r b", "a q b", "b r a", "A r b", "a~0.01 r b")
    memory.add(stored, Source("doc", time=ONE_YEAR))
    assert current(memory) == stored

    def select(**names: str) -> list[Triple]:
        return [found.triple for found in memory.select(**names)]

    assert select(subject="a") == stored[:2]
    assert select(relation="r") == [stored[0], *stored[2:]]
    assert select(object="b") == [*stored[:2], *stored[3:]]
    assert select(subject="a", object="b") == stored[:2]
    assert select(subject="a", relation="r", object="b", document="doc") == stored[:1]
    assert select(subject="a", document="other") == []
    assert select(subject="nobody") == select(object="") == []
    assert stored[0] in memory
    assert t("a r a") not in memory
    assert len(memory) == 5


def test_counts(memory: TripleMemory) -> None:
    assert memory.counts() == Counts(0, 0, 0, 0)
    memory.add(ts("a r b", "b r c", "a q c"))
    assert memory.counts() == Counts(triples=3, entities=3, relations=2, replaced=0)


def test_iteration_shows_one_state_though_something_is_written_meanwhile(memory: TripleMemory) -> None:
    memory.add([Triple("s", "r", f"o {n}") for n in range(5)])
    seen = []
    for stored in memory:
        seen.append(stored.triple.object)
        memory.add([Triple("s", "r", f"{stored.triple.object} again")])
    assert seen == [f"o {n}" for n in range(5)]
    assert len(memory) == 10


def test_what_is_listed_can_be_deleted_one_by_one(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("palimpsest.memory.sqlite.BUSY_SECONDS", 1.0)  # that long it would wait for itself
    memory = opened()
    memory.add([Triple("s", "r", f"o {n}") for n in range(3)])
    start = time.monotonic()
    for stored in memory.select(subject="s"):
        assert memory.delete([stored.triple]) == 1
    assert len(memory) == 0
    assert time.monotonic() - start < 1


def test_a_half_read_iteration_keeps_nobody_from_writing(memory: TripleMemory) -> None:
    memory.add(ts("a r b", "a r c"))
    iteration = iter(memory)
    assert next(iteration).triple == t("a r b")
    writer = threading.Thread(target=memory.add, args=(ts("a r d"),), daemon=True)
    writer.start()
    writer.join(1)
    waiting = writer.is_alive()
    assert [stored.triple for stored in iteration] == ts("a r c")
    writer.join(5)
    assert not waiting
    assert len(memory) == 3


# -- opening again -------------------------------------------------------------------------------------------------


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


@pytest.fixture
def told(opened: Opened) -> TripleMemory:
    """A memory with sources, history and gaps."""
    memory = opened()
    memory.add(ts("a r b", "b q c", "c r d", "d q a", "x r y"), Source("doc", 1, "gold"))
    memory.add(ts("a r b"), Source("doc two"))
    memory.update(t("c r b"), Source("doc three", 0, "model"))
    memory.delete_entity("x")
    assert any(whole(memory)[3])
    return memory


def test_reopening_brings_everything_back(told: TripleMemory, lasting: str, opened: Opened) -> None:
    before = whole(told)
    told.close()
    again = opened()
    assert whole(again) == before
    again.add(ts("a r e"))
    again.close()
    assert objects(opened(), "a", "r") == ["b", "e"]


@pytest.mark.parametrize(
    ("identity", "dimension", "message"),
    [("another model", 48, "embedder.*turned directions.*another model"), ("turned directions", 47, "48.*47")],
)
def test_another_embedder_is_refused(
    told: TripleMemory, lasting: str, opened: Opened, identity: str, dimension: int, message: str
) -> None:
    before = whole(told)
    told.close()
    other = FunctionEmbedder(lambda names: np.eye(len(names), dimension), identity, dimension)
    with pytest.raises(TripleMemoryError, match=message):
        TripleMemory.open(lasting, other)
    with pytest.raises(TripleMemoryError, match=message):
        TripleMemory.open(lasting, other, read_only=True)
    assert whole(opened()) == before


def test_relations_may_have_an_embedder_of_their_own(where: str, embedder: FunctionEmbedder) -> None:
    def opposite(names: Sequence[str]) -> np.ndarray:
        """All relations are one, but those that say "not"."""
        return np.eye(embedder.dimension)[[int("not" in name) for name in names]]

    relations = FunctionEmbedder(opposite, "opposites", embedder.dimension)
    with TripleMemory.open(where, embedder, relation_embedder=relations) as memory:
        memory.add(ts("a likes b", "a not-likes c"))
        assert objects(memory, "a", "loves") == ["b"]
        assert objects(memory, "a", "does-not-love") == ["c"]
    if where != ":memory:":
        with pytest.raises(TripleMemoryError, match=r"relation embedder.*opposites.*turned directions"):
            TripleMemory.open(where, embedder)
        with pytest.raises(TripleMemoryError, match="entity embedder"):
            TripleMemory.open(where, relations)
        with TripleMemory.open(where, embedder, relation_embedder=relations) as memory:
            assert objects(memory, "a", "loves") == ["b"]


def test_all_vectors_are_of_one_length(where: str, embedder: FunctionEmbedder) -> None:
    other = FunctionEmbedder(lambda names: np.eye(len(names), 12), "twelve", 12)
    with pytest.raises(ValueError, match="vectors of length 48 for entities, but 12 for relations"):
        TripleMemory.open(where, embedder, relation_embedder=other)


WRITES: dict[str, Callable[[TripleMemory], object]] = {
    "add": lambda memory: memory.add(ts("e r f")),
    "add what is there": lambda memory: memory.add(ts("a r b"), Source("new")),
    "update": lambda memory: memory.update(t("a r d")),
    "delete": lambda memory: memory.delete(ts("a r b")),
    "delete what is not there": lambda memory: memory.delete(ts("no no no")),
    "delete_entity": lambda memory: memory.delete_entity("a"),
    "delete_document": lambda memory: memory.delete_document("doc"),
    "erase": lambda memory: memory.erase(),
}


@pytest.mark.parametrize("write", WRITES)
def test_to_read_only_is_not_to_write(told: TripleMemory, lasting: str, opened: Opened, write: str) -> None:
    before = whole(told)
    told.close()
    reader = opened(read_only=True)
    with pytest.raises(TripleMemoryError, match="read only"):
        WRITES[write](reader)
    assert whole(reader) == before
    reader.check()
    assert whole(opened()) == before


def test_a_reader_follows_the_writer(told: TripleMemory, lasting: str, opened: Opened) -> None:
    reader = opened(read_only=True)
    assert objects(reader, "a", "r") == ["b"]
    told.add(ts("a r new"))
    assert objects(reader, "a", "r") == ["b", "new"]


def test_to_read_there_has_to_be_something(where: str, embedder: FunctionEmbedder, tmp_path: Path) -> None:
    with pytest.raises(TripleMemoryError):
        TripleMemory.open(where, embedder, read_only=True)
    assert list(tmp_path.iterdir()) == []
    with TripleMemory.open(where, embedder) as memory:  # it was not made by looking
        assert len(memory) == 0


def test_two_objects_see_each_others_commits_at_once(lasting: str, opened: Opened) -> None:
    here, there = opened(), opened()
    here.add(ts("a r b"))
    assert objects(there, "a", "r") == objects(here, "a", "r") == ["b"]
    there.add(ts("a r c", "a~0.1 r d"))
    assert objects(here, "a", "r") == ["b", "c"]
    assert there.update(t("a r c")) == ts("a r b")
    assert objects(here, "a", "r") == ["c"]
    assert [old.triple for old in here.history()] == ts("a r b")
    here.delete(ts("a r c"))
    assert objects(there, "a", "r") == ["d"]  # nothing is exact any more
    assert current(there) == ts("a~0.1 r d")
    there.delete_entity("a~0.1")
    assert here.query(Query("r", subject="a")).total == 0
    here.add(ts("a r b"))  # names that have come, gone and come again
    there.add(ts("b r a"))
    assert objects(there, "a", "r") == subjects(here, "r", "a") == ["b"]
    here.check()
    there.check()


def test_a_snapshot_is_a_file_with_everything_in_it(
    told: TripleMemory, tmp_path: Path, embedder: FunctionEmbedder
) -> None:
    path = tmp_path / "new folder" / "snapshot.db"
    told.snapshot(path)
    before = whole(told)
    told.add(ts("a r later"))
    assert [file.name for file in path.parent.iterdir()] == ["snapshot.db"]
    content = path.read_bytes()
    with TripleMemory.open(path, embedder, read_only=True) as copy:
        assert whole(copy) == before
        copy.check()
        with pytest.raises(TripleMemoryError, match="read only"):
            copy.add(ts("e r f"))
        with pytest.raises(TripleMemoryError, match="is there already"):
            told.snapshot(path)
    assert path.read_bytes() == content
    assert b"later" not in content
    other = FunctionEmbedder(embedder.function, "another model", embedder.dimension)
    with pytest.raises(TripleMemoryError, match="another model"):
        TripleMemory.open(path, other, read_only=True)


def test_a_snapshot_can_be_written_to_and_goes_its_own_way(
    told: TripleMemory, tmp_path: Path, embedder: FunctionEmbedder
) -> None:
    before = whole(told)
    told.snapshot(tmp_path / "snapshot.db")
    with TripleMemory.open(tmp_path / "snapshot.db", embedder) as copy:
        copy.add(ts("a r e", "f r b"))
        copy.delete_entity("c")
        assert objects(copy, "a", "r") == ["b", "e"]
        copy.check()
        copy.snapshot(tmp_path / "another.db")
    assert whole(told) == before
    with TripleMemory.open(tmp_path / "another.db", embedder) as copy:
        assert objects(copy, "a", "r") == ["b", "e"]


USES: dict[str, Callable[[TripleMemory], object]] = WRITES | {
    "query": lambda memory: memory.query(Query("r", subject="a")),
    "query_batch": lambda memory: memory.query_batch([Query("r", subject="a"), Query("r", object="a")]),
    "iterate": list,
    "select": lambda memory: list(memory.select(subject="a")),
    "history": lambda memory: list(memory.history()),
    "in": lambda memory: t("a r b") in memory,
    "len": len,
    "counts": lambda memory: memory.counts(),
    "check": lambda memory: memory.check(),
}


@pytest.mark.parametrize("use", USES)
def test_a_closed_memory_says_so(opened: Opened, use: str) -> None:
    with opened() as memory:
        memory.add(ts("a r b"))
    with pytest.raises(TripleMemoryError, match="closed"):
        USES[use](memory)
    memory.close()


def test_a_closed_memory_makes_no_snapshot(memory: TripleMemory, tmp_path: Path) -> None:
    memory.close()
    with pytest.raises(TripleMemoryError, match="closed"):
        memory.snapshot(tmp_path / "snapshot.db")
    assert not (tmp_path / "snapshot.db").exists()


# -- embedders that go wrong ---------------------------------------------------------------------------------------


def spoilt(vectors: np.ndarray, value: object) -> np.ndarray:
    vectors[-1, 0] = value
    return vectors


BAD: dict[str, Callable[[np.ndarray], object]] = {
    "too long": lambda vectors: np.hstack([vectors, 0 * vectors[:, :1]]),
    "too short": lambda vectors: vectors[:, 1:],
    "too few": lambda vectors: vectors[1:],
    "too many": lambda vectors: np.vstack([vectors, vectors[:1]]),
    "one vector": lambda vectors: vectors[0],
    "none": lambda vectors: [],
    "NaN": lambda vectors: spoilt(vectors, np.nan),
    "infinite": lambda vectors: spoilt(vectors, np.inf),
    "huge": lambda vectors: spoilt(vectors, 1e300),
    "zero": lambda vectors: 0 * vectors,
    "not of length 1": lambda vectors: 1.01 * vectors,
    "uneven": lambda vectors: [*vectors[1:].tolist(), [1.0]],
    "text": lambda vectors: [["x"] * vectors.shape[1]] * len(vectors),
}


@pytest.mark.filterwarnings("ignore:overflow encountered")
@pytest.mark.parametrize("bad", BAD)
def test_bad_vectors_are_refused_and_nothing_is_written(where: str, embedder: FunctionEmbedder, bad: str) -> None:
    broken = False

    def embed(names: Sequence[str]) -> object:
        vectors = np.asarray(embedder.encode(names))
        return BAD[bad](vectors) if broken else vectors

    with TripleMemory.open(where, FunctionEmbedder(embed, "breaks", embedder.dimension)) as memory:
        memory.add(ts("a r b"), Source(time=ONE_YEAR))
        before = list(memory), memory.counts()
        broken = True
        with pytest.raises(ValueError):  # noqa: PT011 - numpy's words or ours
            memory.add(ts("a r b", "a r c", "d r e"), Source("new"))
        with pytest.raises(ValueError):  # noqa: PT011
            memory.update(t("a r f"))
        with pytest.raises(ValueError):  # noqa: PT011
            memory.query_batch([Query("r", subject="a"), Query("r", subject="g")])
        assert (list(memory), memory.counts()) == before
        assert objects(memory, "a", "r") == ["b"]  # known vectors are not asked for again
        broken = False
        assert memory.add(ts("a r c", "d r e")) == 2
        memory.check()


def test_an_embedder_that_fails_fails_aloud(where: str, embedder: FunctionEmbedder) -> None:
    def fail(names: Sequence[str]) -> object:
        raise RuntimeError("no memory left on the device")

    with TripleMemory.open(where, FunctionEmbedder(fail, "fails", embedder.dimension)) as memory:
        with pytest.raises(RuntimeError, match="on the device"):
            memory.add(ts("a r b"))
        assert memory.counts() == Counts(0, 0, 0, 0)


# -- a fine point of SQLite ----------------------------------------------------------------------------------------


def test_a_file_may_have_any_name(tmp_path: Path, embedder: FunctionEmbedder) -> None:
    path = tmp_path / "a?mode=ro#b%41&c ü.db"
    with TripleMemory.open(path, embedder) as memory:
        memory.add(ts("a r b"))
        assert current(memory) == ts("a r b")
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    with TripleMemory.open(str(path), embedder, read_only=True) as memory:
        assert current(memory) == ts("a r b")
