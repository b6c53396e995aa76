"""Perplexity of a model that looks things up, setting by setting, and what became of its calls."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from hashlib import sha256

import numpy as np
import pandas as pd
import pytest

from palimpsest.evaluation import lookup_perplexity as evaluation
from palimpsest.evaluation.lookup_perplexity import Pages, call_quality, call_table, headline
from palimpsest.evaluation.perplexity import table
from palimpsest.evaluation.statistics import Interval
from palimpsest.facts import Document, Entity, Fact, Mention, Query
from palimpsest.lm.load import LanguageModel
from palimpsest.lm.scoring import token_losses
from palimpsest.lm.tokenizer import train_tokenizer
from palimpsest.lm.train import Architecture
from palimpsest.memllm.examples import PlannedCall
from palimpsest.memllm.filling import store_gold
from palimpsest.memllm.lookup import Lookup
from palimpsest.memllm.perplexity import Gold, Reading, ScoredCall
from palimpsest.memllm.tokens import CallTokens, add_call_tokens
from palimpsest.memory import FunctionEmbedder, Thresholds, TripleMemory

LABELS = {"P50": "author", "P17": "country"}
RULES = {"skip": ["(?, country, X)"], "max_results": 30, "max_queries": 3}


def page(book: str, person: str, land: str) -> Document:
    sentences = ((book, "is", "by", *person.split(), "."), (book, "is", "from", land, "."))
    last = 3 + len(person.split())
    entities = (
        Entity((Mention(book, 0, 0, 1), Mention(book, 1, 0, 1)), "MISC"),
        Entity((Mention(person, 0, 3, last),), "PER"),
        Entity((Mention(land, 1, 3, 4),), "LOC"),
    )
    return Document(f"On {book}", sentences, entities, (Fact(0, "P50", 1, (0,)), Fact(0, "P17", 2, (1,))))


PAGES = [page("Dawn", "Ann Lee", "Peru"), page("Dusk", "Bo", "Chad")]


def embed(names: Sequence[str]) -> np.ndarray:
    seeds = (int.from_bytes(sha256(name.encode()).digest()[:8], "little") for name in names)
    vectors = np.array([np.random.default_rng(seed).standard_normal(64) for seed in seeds])
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def tokens() -> CallTokens:
    tokenizer = train_tokenizer([document.text for document in PAGES] * 3, 300, 128)
    shape = Architecture(layers=2, width=32, feedforward=64, heads=4, context_length=128)
    return CallTokens(add_call_tokens(LanguageModel(shape.build(tokenizer, seed=0), tokenizer)), spaced=True)


@pytest.fixture(scope="module")
def pages(tokens: CallTokens) -> Pages:
    return Pages.prepare(PAGES, LABELS, RULES, tokens)


@pytest.fixture
def lookup() -> Iterator[Lookup]:
    with TripleMemory.open(":memory:", FunctionEmbedder(embed, "exact", 64)) as memory:
        store_gold(memory, PAGES, LABELS)
        yield Lookup(memory, Thresholds(entity=0.1, relation=0.1, pair=0.1))


def test_settings_are_the_experiments() -> None:
    assert evaluation.SETTINGS == (
        "no memory",
        "finetuned no memory",
        "own writes",
        "gold writes",
        "gold position",
        "gold query",
        "gold result",
        "gold position and query",
        "gold all",
    )
    for setting, gold in evaluation.READS.items():
        parts = {name for name in ("position", "query", "result") if name in setting or setting == "gold all"}
        assert gold == Gold(**dict.fromkeys(parts, True))


def test_pages_know_what_could_be_looked_up_and_where(pages: Pages, tokens: CallTokens) -> None:
    for document, text, targets, calls in zip(PAGES, pages.texts, pages.targets, pages.calls, strict=True):
        book, person, land = (entity.name for entity in document.entities)
        assert [target.mention.name for target in targets] == [call.mention.name for call in calls] == [person, land]
        assert [call.queries for call in calls] == [
            (Query("author", subject=book),),
            (Query("country", subject=book),),
        ]
        assert [tokens.decode(text.ids[: call.place]).rstrip() for call in calls] == [
            f" {book} is by",
            f" {book} is by {person}. {book} is from",
        ]


def test_losses_without_memory_are_the_models(pages: Pages, tokens: CallTokens) -> None:
    rows = evaluation.without_memory(tokens.lm, pages, "finetuned no memory", window=64)
    assert set(rows["split"]) == {"finetuned no memory"}
    for index, losses in enumerate(token_losses(tokens.lm, [document.text for document in PAGES], window=64)):
        row = rows[(rows["document"] == index) & (rows["tokens"] == "all")].iloc[0]
        assert (row["loss"], row["n"]) == (pytest.approx(losses.losses.sum()), len(losses.losses))


@pytest.mark.parametrize("setting", evaluation.READS)
def test_losses_with_memory_are_of_the_same_tokens(
    setting: str, pages: Pages, tokens: CallTokens, lookup: Lookup
) -> None:
    reading = Reading(lookup.names, evaluation.READS[setting])
    rows, calls = evaluation.with_memory(tokens.lm, tokens, pages, {setting: reading}, window=64)
    alone = evaluation.without_memory(tokens.lm, pages, "no memory", window=64)
    assert rows[["document", "tokens", "n"]].equals(alone[["document", "tokens", "n"]])
    assert set(rows["split"]) == set(calls["setting"]) == {setting}
    gold = evaluation.READS[setting]
    assert calls["document"].tolist() == [0, 0, 1, 1]
    assert (calls["probability"] == 1).all() == gold.position
    assert calls["right"].all() == calls["hit"].all() == gold.query  # the random model asks nothing of its own accord
    assert calls["results"].tolist() == [int(gold.query)] * 4
    different = not np.allclose(rows["loss"], alone["loss"])
    assert different == (gold.position or gold.query or not np.allclose(calls["probability"], 0))


def scored(mention: str, *asked: str, results: tuple[str, ...] = (), probability: float = 0.5) -> ScoredCall:
    """Of a place where Dawn and Dusk may be asked for."""
    planned = tuple(Query("author", subject=book) for book in ("Dawn", "Dusk"))
    plan = PlannedCall(3, planned, Mention(mention, 0, 0, 1))
    return ScoredCall(plan, probability, tuple(Query("author", subject=book) for book in asked), results)


CALLS = [
    [scored("Ann", "Dusk", "Tides", results=("Bo", "Ann"), probability=0.25), scored("Bo", probability=0.75)],
    [],
    [scored("Bo", "Tides", results=("Ann",)), scored("Bo", "Dawn", probability=0.1)],
]


def test_calls_are_tabled_one_a_row() -> None:
    assert call_table(CALLS).to_dict("split")["data"] == [
        [0, 0.25, True, True, True, True, 2],
        [0, 0.75, False, False, False, False, 0],
        [2, 0.5, True, False, True, False, 1],
        [2, 0.1, True, True, False, False, 0],
    ]
    columns = ["document", "probability", "asked", "right", "answered", "hit", "results"]
    assert list(call_table(CALLS).columns) == list(call_table([[], []]).columns) == columns


def test_call_quality_is_a_mean_over_calls_by_setting() -> None:
    one = call_table(CALLS).assign(setting="own writes")
    two = call_table(CALLS[:1]).assign(setting="gold query")
    quality = call_quality(pd.concat([one, two])).set_index(["setting", "metric"])
    assert quality.loc["own writes", "value"].to_dict() == pytest.approx(
        {"probability": 0.4, "asked": 0.75, "right": 0.5, "answered": 0.5, "hit": 0.25}
    )
    assert set(quality.loc["own writes", "n"]) == {4}
    asked = quality.loc[("own writes", "asked")]
    assert (asked["low"], asked["high"]) == (0.5, 1.0)  # documents are resampled: one half of a document's, or all
    assert quality.loc[("gold query", "hit")][["value", "low", "high", "n"]].tolist() == [0.5, 0.5, 0.5, 2]


def test_headline_names_class_and_setting() -> None:
    rows = pd.DataFrame(
        [("own writes", "target", 2 * math.log(3), 2), ("gold position and query", "all", 0.0, 5)],
        columns=["split", "tokens", "loss", "n"],
    ).assign(document=0)
    figures = headline(table(rows))
    assert list(figures) == ["target.own_writes", "all.gold_position_and_query"]
    assert figures["target.own_writes"] == Interval(*[pytest.approx(3.0)] * 3, 2)
    assert figures["all.gold_position_and_query"] == Interval(1.0, 1.0, 1.0, 5)
