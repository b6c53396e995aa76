"""What a memory finds, on three small documents and with names whose distances are known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from palimpsest.evaluation.lookup import ask, cases, growth, headline, summarize
from palimpsest.facts import Document, Entity, Fact, Mention, Query, Triple
from palimpsest.memory import FunctionEmbedder, Thresholds, TripleMemory

LABELS = {"P50": "author", "P19": "born in"}
ALIASES = {"author": ["writer", "maker"]}
AXES = ["Dawn", "Dusk", "Ann Lee", "Bo", "Oslo", "Eve", "author", "born in", "maker"]
NEAR = {"writer": ("author", 0.5), "Lee": ("Ann Lee", 0.5)}  # at a cosine distance of 1 - 1 / sqrt(1.25) = 0.106


def embed(texts: Sequence[str]) -> np.ndarray:
    vectors = np.zeros((len(texts), 2 * len(AXES)))
    for vector, text in zip(vectors, texts, strict=True):
        base, turn = NEAR.get(text, (text, 0.0))
        vector[AXES.index(base)], vector[len(AXES) + AXES.index(base)] = 1, turn
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def page(title: str, head: tuple[str, ...], relation: str, tail: str, types: str) -> Document:
    mentions = tuple(Mention(name, 0, place, place + 1) for place, name in enumerate(head))
    entities = (Entity(mentions, types[0]), Entity((Mention(tail, 0, len(head), len(head) + 1),), types[1]))
    return Document(title, ((*head, tail),), entities, (Fact(0, relation, 1),))


PAGES = [
    page("one", ("Dawn",), "P50", "Ann Lee", "WP"),
    page("two", ("Ann Lee", "Lee"), "P19", "Oslo", "PL"),
    page("three", ("Bo",), "P50", "Eve", "PP"),  # of all people only he has an author, only she a birthplace
]
UNKNOWN = [page("four", ("Dusk",), "P50", "Eve", "WP"), page("five", ("Bo",), "P19", "Oslo", "PL")]
TIGHT = Thresholds(entity=0.05, relation=0.05, pair=0.05)
WIDE = Thresholds(entity=0.2, relation=1.1, pair=0.6)


@pytest.fixture
def memory() -> TripleMemory:
    memory = TripleMemory.open(":memory:", FunctionEmbedder(embed, "axes", 2 * len(AXES)))
    memory.add([triple for page in PAGES for triple in page.triples(LABELS)])
    return memory


def test_every_fact_is_asked_in_every_wording_and_what_is_missing_too() -> None:
    asked = {(case.wording, case.query, tuple(case.answers)) for case in cases(PAGES, LABELS, ALIASES, UNKNOWN)}
    assert asked == {
        ("as stored", Query("author", subject="Dawn"), ("Ann Lee",)),
        ("as stored", Query("born in", subject="Ann Lee"), ("Oslo",)),
        ("as stored", Query("author", subject="Bo"), ("Eve",)),
        ("other relation name", Query("writer", subject="Dawn"), ("Ann Lee",)),
        ("other relation name", Query("maker", subject="Dawn"), ("Ann Lee",)),
        ("other relation name", Query("writer", subject="Bo"), ("Eve",)),
        ("other relation name", Query("maker", subject="Bo"), ("Eve",)),
        ("other entity name", Query("born in", subject="Lee"), ("Oslo",)),
        ("unknown fact", Query("author", subject="Ann Lee"), ()),
        ("unknown fact", Query("born in", subject="Bo"), ()),
        ("unknown entity", Query("author", subject="Dusk"), ()),
    }


def found(memory: TripleMemory, thresholds: Thresholds) -> dict[tuple[str, str], float]:
    table = summarize(ask(memory, list(cases(PAGES, LABELS, ALIASES, UNKNOWN)), thresholds))
    return {(row["wording"], row["metric"]): row["value"] for row in table.to_dict("records")}


def test_tight_thresholds_find_what_is_asked_as_it_is_stored_and_nothing_else(memory: TripleMemory) -> None:
    shares = found(memory, TIGHT)
    assert shares["as stored", "first"] == 1
    assert {value for (wording, _), value in shares.items() if wording != "as stored"} == {0}
    assert not {("unknown fact", "first"), ("unknown entity", "among")} & shares.keys()


def test_wide_thresholds_find_more_and_invent_more(memory: TripleMemory) -> None:
    shares = found(memory, WIDE)
    assert shares["as stored", "first"] == 1
    assert shares["other relation name", "first"] == 1  # a relation at distance 1 and the entity at 0: mean 0.5
    assert shares["other entity name", "first"] == 1
    assert shares["unknown fact", "answered"] == 1
    assert shares["unknown entity", "answered"] == 0


def test_growth_asks_again_at_every_size(memory: TripleMemory) -> None:
    asked = list(cases(PAGES, LABELS, ALIASES, UNKNOWN))
    others = [Triple("Dusk", "author", "Ann Lee"), Triple("Dusk", "born in", "Oslo")]
    table = growth(memory, asked, others, [0, 2, 50], TIGHT)
    answered = table[(table["wording"] == "unknown entity") & (table["metric"] == "answered")]
    assert answered[["triples", "value"]].to_numpy().tolist() == [[3, 0], [5, 1]]


def test_headline_figures_have_their_intervals(memory: TripleMemory) -> None:
    rows = ask(memory, list(cases(PAGES, LABELS, ALIASES, UNKNOWN)), WIDE)
    figures = headline(summarize(rows).assign(setting="model editing"))["model_editing"]
    assert figures["as_stored"].value == 1
    assert figures["as_stored"].n == 3
    assert figures["unknown_fact"].value == 1
    assert figures["unknown_entity"].value == 0
