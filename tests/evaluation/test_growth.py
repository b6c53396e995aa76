"""A memory that fills with other things: what they are, how many there are, what is measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from hashlib import sha256
from itertools import count, islice

import numpy as np
import pandas as pd
import pytest

from palimpsest.evaluation.growth import LATENCY, PERPLEXITY, distractors, fill, grow, growth_ratios, latencies
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
    asked = [[Query("author", subject="Dawn")], [Query("author", object="Bo"), Query("author", subject="Dusk")]]
    memory.add([Triple("Dawn", "author", "Ann")])

    def losses() -> pd.DataFrame:
        """Three nats a document for each triple that is held, over two and four tokens."""
        rows = [(0, "target", 3.0 * len(memory), 2), (1, "target", 3.0 * len(memory), 4), (1, "all", 1e9, 9)]
        return pd.DataFrame(rows, columns=["document", "tokens", "loss", "n"])

    lookup = Lookup(memory, Thresholds(entity=0.1, relation=0.1, pair=0.1))
    table = grow(memory, numbered(), [9, 3], losses, lookup, asked)
    assert list(table.columns) == ["distractors", "metric", "value", "low", "high", "n"]
    assert list(zip(table["distractors"], table["metric"], strict=True)) == [
        (size, metric) for size in (0, 3, 9) for metric in (PERPLEXITY, LATENCY)
    ]
    assert len(memory) == 10
    perplexity = table[table["metric"] == PERPLEXITY]
    assert perplexity["value"].tolist() == pytest.approx([np.exp(held) for held in (1, 4, 10)])
    assert perplexity["low"].tolist() == pytest.approx([np.exp(0.75 * held) for held in (1, 4, 10)])
    assert perplexity["high"].tolist() == pytest.approx([np.exp(1.5 * held) for held in (1, 4, 10)])
    assert set(perplexity["n"]) == {6}
    latency = table[table["metric"] == LATENCY]
    assert set(latency["n"]) == {2}
    assert (latency["value"] > 0).all()


def test_latencies_are_of_each_call(memory: TripleMemory) -> None:
    memory.add(islice(numbered(), 5))
    lookup = Lookup(memory, Thresholds(entity=0.1, relation=0.1, pair=0.1))
    times = latencies(lookup, [[Query("author", subject=f"Book {n}")] for n in range(4)])
    assert times.shape == (4,)
    assert (times > 0).all()


def test_ratios_are_to_the_memory_without_distractors() -> None:
    rows = [(0, 2.0, 0.5), (1000, 3.0, 0.5), (1_000_000, 5.0, 4.0)]
    table = pd.DataFrame(
        [
            {"distractors": size, "metric": metric, "value": value}
            for size, *values in rows
            for metric, value in zip((PERPLEXITY, LATENCY), values, strict=True)
        ]
    )
    assert growth_ratios(table) == {
        "target_ppl_ratio_1e3": 1.5,
        "target_ppl_ratio_1e6": 2.5,
        "latency_ratio_1e3": 1.0,
        "latency_ratio_1e6": 8.0,
    }
