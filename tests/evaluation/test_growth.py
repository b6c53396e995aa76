"""A memory that fills with other things: what they are, how many there are, what is measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from hashlib import sha256
from itertools import count, islice

import numpy as np
import pandas as pd
import pytest

from palimpsest.evaluation import growth
from palimpsest.evaluation.growth import (
    EMPTY,
    LATENCY,
    LATENCY_RATIO,
    PERPLEXITY,
    PERPLEXITY_RATIO,
    answered,
    distractors,
    fill,
    grow,
    growth_ratios,
    latencies,
    perplexities,
)
from palimpsest.evaluation.statistics import Interval
from palimpsest.facts import Document, Entity, Fact, Mention, Query, Triple
from palimpsest.memllm.lookup import Lookup
from palimpsest.memory import FunctionEmbedder, Thresholds, TripleMemory

LABELS = {"P50": "author", "P19": "place of birth"}


def page(*names: tuple[str, str], facts: Sequence[tuple[int, str, int]]) -> Document:
    """Entities, each with its type (and `Ann/Lee` with two names), and facts."""
    entities = tuple(
        Entity(tuple(Mention(name, 0, place, place + 1) for name in given.split("/")), kind)
        for place, (given, kind) in enumerate(names)
    )
    return Document("A", (tuple(given for given, _ in names),), entities, tuple(Fact(*fact) for fact in facts))


OTHERS = [
    page(("Dawn", "MISC"), ("Ann/Lee", "PER"), ("Oslo", "LOC"), facts=[(0, "P50", 1), (1, "P19", 2)]),
    page(("Dusk", "MISC"), ("Bo", "PER"), ("Cleo/C.", "PER"), ("Lima", "LOC"), facts=[(0, "P50", 1), (1, "P19", 3)]),
    page(("Oslo", "PER"), ("1939", "TIME"), facts=[]),  # of two types: it stays a place
]
ALL = {Triple(book, "author", person) for book in ("Dawn", "Dusk") for person in ("Ann", "Bo", "Cleo")}
ALL |= {Triple(person, "place of birth", city) for person in ("Ann", "Bo", "Cleo") for city in ("Oslo", "Lima")}


def embed(names: Sequence[str]) -> np.ndarray:
    seeds = (int.from_bytes(sha256(name.encode()).digest()[:8], "little") for name in names)
    vectors = np.array([np.random.default_rng(seed).standard_normal(64) for seed in seeds])
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def memory() -> Iterator[TripleMemory]:
    with TripleMemory.open(":memory:", FunctionEmbedder(embed, "any", 64)) as opened:
        yield opened


def test_distractors_are_all_typed_triples_each_once() -> None:
    found = list(distractors(OTHERS, LABELS, [], seed=0))
    assert len(found) == len(set(found))
    assert set(found) == ALL


def test_entities_of_the_documents_in_question_are_left_out() -> None:
    about = [page(("Bo", "PER"), ("Eve/Lima", "PER"), facts=[])]
    assert set(distractors(OTHERS, LABELS, about, seed=0)) == {
        triple for triple in ALL if not {triple.subject, triple.object} & {"Bo", "Lima"}
    }
    assert list(distractors(OTHERS, LABELS, OTHERS, seed=0)) == []
    assert list(distractors([], LABELS, [], seed=0)) == []


def test_distractors_are_the_same_for_a_seed() -> None:
    one, again, other = (list(distractors(OTHERS, LABELS, [], seed=seed)) for seed in (1, 1, 2))
    assert one == again != other


def test_relations_come_up_alike() -> None:
    people = [page((f"Person {n}", "PER"), ("Dawn", "MISC"), ("Oslo", "LOC"), facts=[]) for n in range(500)]
    first = islice(distractors([*people, *OTHERS], LABELS, [], seed=0), 600)
    assert min(Counter(triple.relation for triple in first).values()) > 250


def test_fill_stores_as_many_as_asked_for(memory: TripleMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("palimpsest.evaluation.growth.ADDED_AT_ONCE", 3)
    triples = distractors(OTHERS, LABELS, [], seed=0)
    for asked, held in ((0, 0), (7, 7), (2, 9)):
        fill(memory, triples, asked)
        assert len(memory) == held
    with pytest.raises(ValueError, match="there are only 3 distractors, expected 4"):
        fill(memory, triples, 4)
    assert {stored.triple for stored in memory} == ALL


def numbered() -> Iterator[Triple]:
    return (Triple(f"Book {n}", "author", f"Person {n}") for n in count())


def test_growth_is_measured_at_each_size(memory: TripleMemory) -> None:
    thresholds = Thresholds(entity=0.1, relation=0.1, pair=0.1)
    asked = [(Query("author", subject="Dawn"),), (Query("author", object="Bo"), Query("author", subject="Book 5"))]
    timed = [(Query("author", subject="Dawn"),)] * 3
    memory.add([Triple("Dawn", "author", "Ann")])
    with TripleMemory.open(":memory:", FunctionEmbedder(embed, "any", 64)) as other:
        lookups = Lookup(memory, thresholds), Lookup(other, thresholds)
        answers, table = grow(memory, numbered(), [9, 3], *lookups, asked, timed)
    assert {size: answered(found, [list(call) for call in asked]) for size, found in answers.items()} == {
        0: [["Ann"], []],
        3: [["Ann"], []],
        9: [["Ann"], ["Person 5"]],
    }
    assert len(memory) == 10
    assert list(table.columns) == ["distractors", "metric", "value", "low", "high", "n"]
    assert list(zip(table["distractors"], table["metric"], strict=True)) == [
        (size, metric) for size in (0, 3, 9) for metric in (LATENCY, EMPTY, LATENCY_RATIO)
    ]
    assert set(table["n"]) == {3}
    assert (table[["value", "low", "high"]] > 0).all(axis=None)
    values = table.pivot(index="distractors", columns="metric", values="value")
    assert (values[LATENCY] / values[EMPTY]).tolist() == pytest.approx(values[LATENCY_RATIO].tolist())


def test_latencies_are_the_least_of_each_call_of_each_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is moved by the memories alone, and once by something else."""
    now, order = [0.0], list[str]()

    class Slow(Lookup):
        def __init__(self, name: str, *seconds: float) -> None:
            self.name, self.seconds = name, seconds

        def __call__(self, calls: Sequence[Sequence[Query]]) -> list:
            for call in calls:
                now[0] += self.seconds[int(call[0].entity)]
            order.extend(self.name * len(calls))
            now[0] += 100 * (len(order) == 9)
            return []

    monkeypatch.setattr(growth.time, "perf_counter", lambda: now[0])
    calls = [(Query("author", subject=f"{number}"),) for number in range(2)]
    times = latencies([Slow("a", 1, 2), Slow("b", 3, 5)], calls, 3)
    assert times == pytest.approx(1000 * np.array([[1, 2], [3, 5]]))
    assert "".join(order) == "aabb" + "abab" + "baba" + "abab"


def test_perplexities_are_compared_on_the_same_documents() -> None:
    rows = [
        (size, page, "target", nats * (page + 1) * 2, (page + 1) * 2)
        for size, nats in ((0, 1.0), (1000, 1.5))
        for page in range(20)
    ]
    losses = pd.DataFrame(rows, columns=["split", "document", "tokens", "loss", "n"])
    everything = losses.assign(tokens="all", loss=1e9)
    table = perplexities(pd.concat([losses, everything])).set_index(["distractors", "metric"])
    assert table.loc[(1000, PERPLEXITY), "value"] == pytest.approx(np.exp(1.5))
    for bound in ("value", "low", "high"):
        assert table.loc[(1000, PERPLEXITY_RATIO), bound] == pytest.approx(np.exp(0.5))
        assert table.loc[(0, PERPLEXITY_RATIO), bound] == pytest.approx(1)
    assert set(table["n"]) == {sum(2 * (page + 1) for page in range(20))}


def test_ratios_are_named_by_size() -> None:
    rows = [(0, 1.0, 1.0), (1000, 1.5, 1.0), (1_000_000, 2.5, 8.0)]
    table = pd.DataFrame(
        [
            {"distractors": size, "metric": metric, "value": value, "low": value - 1, "high": value + 1, "n": 7}
            for size, *values in rows
            for metric, value in zip((PERPLEXITY_RATIO, LATENCY_RATIO), values, strict=True)
        ]
    )
    assert growth_ratios(pd.concat([table, table.assign(metric=LATENCY)])) == {
        "target_ppl_ratio_1e3": Interval(1.5, 0.5, 2.5, 7),
        "target_ppl_ratio_1e6": Interval(2.5, 1.5, 3.5, 7),
        "latency_ratio_1e3": Interval(1.0, 0.0, 2.0, 7),
        "latency_ratio_1e6": Interval(8.0, 7.0, 9.0, 7),
    }
