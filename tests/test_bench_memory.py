"""The memory benchmark runs from end to end, at a size that says nothing about speed."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from benchmarks import memory
from benchmarks.memory.answers import Exhaustive, agree
from benchmarks.memory.cases import Case, draw_rows
from benchmarks.memory.graph import nearest
from benchmarks.memory.indexes import PEERS, build
from benchmarks.memory.official import OfficialMemory
from benchmarks.memory.vectors import Lookup, perturbed, random_encoder

from palimpsest.facts import Query, Triple
from palimpsest.memory import Thresholds

TINY = memory.Scale(
    triples=(100, 300),
    large=600,
    names=180,
    queries=60,
    repetitions=2,
    hub=100,
    twins=330,
    hub_queries=3,
    index_vectors=400,
    index_queries=20,
)
WITH_SPREAD = (
    "insert_speedup",
    "query_p50_speedup",
    "query_p99_speedup",
    "editing_p50_speedup",
    "editing_p99_speedup",
    "insert_speedup_384",
    "query_p50_speedup_384",
    "query_p99_speedup_384",
    "editing_p50_speedup_384",
    "editing_p99_speedup_384",
    "hub_speedup",
    "batch_speedup_lookup",
    "batch_speedup",
    "p99_growth_1e6",
)
ALONE = (
    "insert_per_second",
    "official_insert_per_second",
    "insert_per_second_384",
    "official_insert_per_second_384",
    "insert_per_second_1e6",
    "index_bytes_ratio",
    "index_recall_at_10",
)
ALIKE = [
    f"{prefix}{what}{suffix}"
    for prefix in ("", "editing_")
    for what in ("same_answers", "right_answers", "official_right_answers")
    for suffix in ("", "_384")
]
OURS = [name for name in ALIKE if name.removeprefix("editing_").startswith("right_answers")]


def test_all_figures_are_measured_and_answers_agree(tmp_path: Path) -> None:
    figures = memory.run(TINY, random_encoder(), folder=tmp_path, cache=None)
    spread = {name + part for name in WITH_SPREAD for part in ("", ".low", ".high", ".n")}
    assert set(figures) == {f"bench.memory.{name}" for name in spread.union(ALONE, ALIKE)}
    # the other memory's graph is built by threads, and may lose a name; ours may not
    assert all(figures[f"bench.memory.{name}"] == (1 if name in OURS else pytest.approx(1, abs=0.1)) for name in ALIKE)
    assert figures["bench.memory.index_recall_at_10"] == pytest.approx(1, abs=0.02)
    assert all(value > 0 for value in figures.values())

    speed = pd.read_csv(tmp_path / "memory_speed.csv", keep_default_na=False)
    assert set(speed["triples"]) >= {100, 300, 600}
    index = pd.read_csv(tmp_path / "memory_index.csv")
    assert len(index) == 10
    assert index["recall_within_0.15"].min() > 0.9


def at(distance: float, side: int = 1) -> np.ndarray:
    """The unit vector of the plane that is so far, by the cosine, from (1, 0)."""
    cosine = 1 - distance
    return np.array([cosine, side * (1 - cosine**2) ** 0.5], np.float32)


def test_answers_agree_if_they_differ_only_where_a_threshold_decides_by_a_hair() -> None:
    near, far = Triple("near", "r", "x"), Triple("far", "r", "y")
    vectors = {"asked": at(0), "near": at(0.1), "far": at(0.1999, -1), "x": at(1.5), "y": at(1.8), "r": at(0)}
    official = OfficialMemory(Lookup(vectors, 2), capacity=10)
    official.add([near, far])
    thresholds = Thresholds(entity=0.5, relation=0.5, pair=0.1)
    query = Query("r", subject="asked")
    assert official.query(query, thresholds) == [("x", pytest.approx(0.05)), ("y", pytest.approx(0.09995))]

    assert agree(official, query, [("x", 0.05), ("y", 0.09995)], thresholds)
    assert agree(official, query, [("x", 0.05)], thresholds)
    assert not agree(official, query, [("y", 0.09995)], thresholds)
    assert not agree(official, query, [], thresholds)


def test_of_many_answers_the_distances_are_compared() -> None:
    triples = [Triple("near", "r", f"x{number}") for number in range(3)]
    vectors = {"asked": at(0), "near": at(0.1), "r": at(0)} | {triple.object: at(1.5) for triple in triples}
    official = OfficialMemory(Lookup(vectors, 2), capacity=10)
    official.add(triples)
    thresholds = Thresholds(entity=0.5, relation=0.5, pair=0.1, max_results=2)
    query = Query("r", subject="asked")
    assert agree(official, query, [("x1", 0.0501), ("x2", 0.0501)], thresholds)
    assert not agree(official, query, [("x2", 0.0501)], thresholds)
    assert not agree(official, query, [("x1", 0.0501), ("x2", 0.06)], thresholds)


def test_an_exhaustive_search_answers_by_hand_worked_distances() -> None:
    triples = [Triple("near", "r", "x"), Triple("far", "r", "y"), Triple("z", "r", "near")]
    vectors = {"asked": at(0), "near": at(0.1), "far": at(0.3, -1), "r": at(0)}
    vectors |= {"x": at(1.5), "y": at(1.8), "z": at(1.6), "same": at(0.1)}
    truth = Exhaustive(Case(triples, [], vectors, 2))
    thresholds = Thresholds(entity=0.5, relation=0.5, pair=0.2)
    found = truth.query(Query("r", subject="asked"), thresholds)
    assert found == [("x", pytest.approx(0.05)), ("y", pytest.approx(0.15))]
    assert truth.query(Query("r", subject="same"), thresholds) == [("x", pytest.approx(0, abs=1e-6))]  # exact: alone
    assert truth.query(Query("r", object="same"), thresholds) == [("z", pytest.approx(0, abs=1e-6))]


def test_triples_are_distinct_and_mention_every_entity() -> None:
    rows = draw_rows(entities=60, relations=3, count=100, rng=np.random.default_rng(0))
    assert rows.shape == (100, 3)
    assert len(np.unique(rows, axis=0)) == 100
    assert set(rows[:, 0]) | set(rows[:, 2]) == set(range(60))
    assert (rows[:, 0] != rows[:, 2]).all()
    assert set(rows[:, 1]) <= {0, 1, 2}


def test_a_query_finds_the_same_with_every_index() -> None:
    vectors = perturbed(np.repeat(at(0.3)[None], 50, 0), 1.0, np.random.default_rng(0))
    for kind in PEERS:
        index = kind(2, 50)
        build(index, vectors)
        (found,) = index.search(vectors[7:8], 0.01, 1)
        assert found.tolist() == [7], kind.label
        assert index.size() > 0


class Torn:
    """A graph from which only ``reach`` nodes can be reached."""

    def __init__(self, reach: int) -> None:
        self.reach = reach

    def knn_query(self, vector: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        if k > self.reach:
            raise RuntimeError("Cannot return the results in a contiguous 2D array. Probably ef or M is too small")
        return np.arange(k)[None], np.zeros((1, k), np.float32)


def test_a_graph_that_cannot_reach_all_gives_what_it_can() -> None:
    labels, distances = nearest(Torn(reach=19), at(0)[None], 40)
    assert len(labels[0]) == len(distances[0]) == 19
    with pytest.raises(RuntimeError, match="too small"):
        nearest(Torn(reach=0), at(0)[None], 40)
