"""What was extracted from three documents, counted by hand."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest

from palimpsest.evaluation.extraction import by_delay, extraction_counts, extraction_quality, loosest, mistakes
from palimpsest.evaluation.statistics import Interval
from palimpsest.facts import Document, Entity, Fact, Mention, Triple
from palimpsest.memllm.calls import Malformed
from palimpsest.memllm.writing import SentenceWrite

LABELS = {"P50": "author", "P19": "place of birth"}
SENTENCES = (("Dawn", "is", "by", "Ann", "Lee", "."), ("The", "Dawn", "made", "Lee", "rich", "in", "Oslo", "."))
DAWN = Entity((Mention("Dawn", 0, 0, 1), Mention("The Dawn", 1, 0, 2)), "MISC")
LEE = Entity((Mention("Ann Lee", 0, 3, 5), Mention("Lee", 1, 3, 4)), "PER")
OSLO = Entity((Mention("Oslo", 1, 6, 7),), "LOC")
FACTS = (Fact(0, "P50", 1, (0,)), Fact(1, "P19", 2), Fact(0, "P50", 1, (1,)))  # two facts, one stated twice
PAGES = [
    Document("A", SENTENCES, (DAWN, LEE, OSLO), FACTS),
    Document("B", SENTENCES, (DAWN, LEE, OSLO), FACTS[:1]),
    Document("C", SENTENCES, (DAWN, LEE, OSLO), FACTS[1:2]),
]
RIGHT, BORN = Triple("Dawn", "author", "Ann Lee"), Triple("Lee", "place of birth", "Oslo")
WRONG = Triple("Dawn", "author", "Oslo")
BAD = (Malformed("Dawn>>author", "expected three parts"), Malformed("", "expected three parts"))


def write(document: int, sentence: int, *triples: Triple, rejected: tuple[Malformed, ...] = ()) -> SentenceWrite:
    return SentenceWrite(document, sentence, "", triples, rejected)


WRITES = [
    write(0, 0, RIGHT, WRONG, rejected=BAD),
    write(0, 1, Triple("The Dawn", "author", "Lee"), WRONG, rejected=BAD[:1]),  # the same two again
    write(1, 0),
    write(2, 1, BORN),
]


def counts(writes: list[SentenceWrite] = WRITES) -> pd.DataFrame:
    return extraction_counts(PAGES, LABELS, writes)


def test_facts_count_once_by_whatever_name_and_so_do_wrong_triples() -> None:
    assert list(counts().columns) == ["document", "facts", "written", "found", "rejected"]
    assert counts().to_numpy().tolist() == [["A", 2, 2, 1, 3], ["B", 1, 0, 0, 0], ["C", 1, 1, 1, 0]]


@pytest.mark.parametrize(
    ("triple", "found"),
    [
        (RIGHT, 1),
        (Triple("The Dawn", "author", "Ann Lee"), 1),
        (Triple("Ann Lee", "author", "Dawn"), 0),
        (Triple("Dawn", "Author", "Ann Lee"), 0),
        (Triple("Dawn", "P50", "Ann Lee"), 0),
        (BORN, 0),  # a fact of the other documents only
    ],
    ids=str,
)
def test_a_triple_is_right_if_the_document_states_it_by_the_relations_label(triple: Triple, found: int) -> None:
    row = counts([write(1, 0, triple)]).iloc[1]
    assert (row["written"], row["found"]) == (1, found)


def test_quality_is_worked_out_over_all_triples_together() -> None:
    quality = extraction_quality(counts())
    assert list(quality) == ["precision", "recall", "f1"]
    values = {metric: (figure.value, figure.n) for metric, figure in quality.items()}
    assert values == {
        "precision": (pytest.approx(2 / 3), 3),
        "recall": (pytest.approx(2 / 4), 4),
        "f1": (pytest.approx(2 * (2 / 3 * 1 / 2) / (2 / 3 + 1 / 2)), 7),
    }


def test_intervals_come_from_resampled_documents() -> None:
    facts, found = np.array([2, 1, 1]), np.array([1, 0, 1])
    draws = [list(rows) for rows in product(range(3), repeat=3)]  # all there are, equally likely
    recalls = np.sort([found[rows].sum() / facts[rows].sum() for rows in draws])
    recall = extraction_quality(counts())["recall"]
    assert (recall.low, recall.high) == (recalls[0], recalls[-1]) == (0, 1)  # each more likely than 1 in 40
    perfect = extraction_quality(counts([write(0, 0, RIGHT, BORN), write(1, 0, RIGHT), write(2, 0, BORN)]))
    assert {(figure.value, figure.low, figure.high) for figure in perfect.values()} == {(1, 1, 1)}


def test_where_nothing_is_written_nothing_is_precise() -> None:
    quality = extraction_quality(counts([]))
    assert quality["precision"] == Interval(0, 0, 0, 0)
    assert quality["recall"] == Interval(0, 0, 0, 4)
    assert quality["f1"] == Interval(0, 0, 0, 4)
    assert set(extraction_quality(counts().iloc[:0]).values()) == {Interval(0, 0, 0, 0)}


def test_mistakes_are_named_by_the_nearest_fact() -> None:
    wrong = {
        WRONG: "object",
        Triple("Oslo", "author", "Lee"): "subject",
        Triple("The Dawn", "place of birth", "Oslo"): "subject",
        Triple("Dawn", "made", "Lee"): "relation",
        Triple("Oslo", "author", "Dawn"): "subject and object",
        Triple("Rain", "is", "wet"): "all",
    }
    table = mistakes(PAGES, LABELS, [write(0, 0, RIGHT), write(0, 1, BORN, *wrong), write(1, 0)])
    assert dict(zip(table["triple"], table["wrong"], strict=True)) == wrong
    assert set(table["document"]) == {"A"}
    assert set(table["sentence"]) == {"The Dawn made Lee rich in Oslo."}
    nothing_stated = Document("D", SENTENCES, (DAWN, LEE, OSLO))
    assert mistakes([nothing_stated], LABELS, [write(0, 0, RIGHT)])["wrong"].tolist() == ["all"]
    assert mistakes(PAGES, LABELS, []).columns.tolist() == ["document", "sentence", "triple", "wrong"]


def test_delays_are_compared() -> None:
    table = by_delay({0: counts([write(0, 0, RIGHT)]), 5: counts()})
    assert list(table.columns) == ["delay", "metric", "value", "low", "high", "n"]
    recalls = table[table["metric"] == "recall"].set_index("delay")["value"]
    assert recalls.to_dict() == {0: 1 / 4, 5: 1 / 2}
    assert len(table) == 6


def test_the_loosest_confidence_that_is_surely_precise() -> None:
    levels = pd.DataFrame(
        [(-3.0, "precision", 0.93), (-2.0, "precision", 0.94), (-1.0, "precision", 0.95), (-0.5, "precision", 0.97)]
        + [(level, "recall", 0.99) for level in (-3.0, -2.0, -1.0, -0.5)],
        columns=["least", "metric", "low"],
    )
    assert loosest(levels, wrong=0.05) == -1.0
    assert loosest(levels, wrong=0.1) == -3.0
    assert loosest(levels, wrong=0.01) == -0.5  # none is: the strictest
