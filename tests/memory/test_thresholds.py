"""What is near enough to count as an answer, worked by hand: ``name~0.3`` is a name at a known distance of ``name``."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from by_hand import HALF, Opened, objects, subjects, t, ts, turned, within

from palimpsest.facts import Query, Triple
from palimpsest.memory import EDITING, LANGUAGE_MODELLING, TRAINING, Answer, FunctionEmbedder, Thresholds, TripleMemory

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
