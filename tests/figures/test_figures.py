"""Figures show the numbers of their tables; pages show the text of their documents."""

import re
from html import unescape

import numpy as np
import pandas as pd
import pytest

from palimpsest.facts import Document, Entity, Fact, Mention
from palimpsest.figures import data, knowledge, lookup, training
from palimpsest.figures.losses import show_losses
from palimpsest.figures.pages import show_document
from palimpsest.lm.scoring import TextLosses

PAGE = Document(
    "A <b>",
    (("Dawn", "&", "Dusk", "is", "by", "Ann", "."),),
    (Entity((Mention("Dawn & Dusk", 0, 0, 3),), "MISC"), Entity((Mention("Ann", 0, 5, 6),), "PER")),
    (Fact(0, "P50", 1, (0,)),),
)


def text_of(html: str) -> str:
    return unescape(re.sub(r"<[^>]+>", "", re.sub(r"<sub>.*?</sub>", "", html)))


def test_relation_bars_are_totals_in_order() -> None:
    counts = pd.DataFrame(
        [("train", "P17", "country", 3), ("test", "P17", "country", 4), ("train", "P50", "author", 9)],
        columns=["split", "relation", "label", "count"],
    )
    (axes,) = data.relation_frequencies(counts).axes
    assert [bar.get_width() for bar in axes.patches] == [7, 9]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["country (P17)", "author (P50)"]


def test_size_curves_are_cumulative_shares() -> None:
    sizes = pd.DataFrame(
        [("train", m, v, n) for m in ("words", "sentences", "mentions", "facts") for v, n in ((2, 1), (5, 3))],
        columns=["split", "measure", "value", "count"],
    )
    figure = data.document_sizes(sizes)
    (line,) = figure.axes[0].lines
    assert line.get_xydata().tolist() == [[2, 0.25], [5, 1.0]]


def test_recall_curve_has_a_point_a_bin_with_its_interval() -> None:
    curve = pd.DataFrame(
        [
            (t, s, v, v - 0.1, v + 0.1, 9)
            for t in ("train", "heldout")
            for s, v in (("0", 0.1), ("1", 0.2), ("2–3", 0.4))
        ],
        columns=["template", "stated", "value", "low", "high", "n"],
    )
    (axes,) = knowledge.recall_by_mentions(curve, chance=0.05).axes
    assert axes.containers[0].lines[0].get_ydata().tolist() == [0.1, 0.2, 0.4]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0", "1", "2–3"]
    assert 0.05 in [line.get_ydata()[0] for line in axes.lines]


@pytest.mark.parametrize("splits", [["train", "test"], ["test"]])
def test_perplexity_bars(splits: list[str]) -> None:
    table = pd.DataFrame(
        [(s, c, v, v - 1, v + 1, 9) for s in splits for c, v in (("all", 5.0), ("target", 50.0), ("entity", 20.0))],
        columns=["split", "tokens", "value", "low", "high", "n"],
    )
    (axes,) = knowledge.perplexity_bars(table).axes
    assert [bar.get_height() for bar in axes.patches] == [5.0, 20.0, 50.0] * len(splits)


def test_training_curve_shows_both_losses_and_may_be_empty() -> None:
    history = pd.DataFrame({"tokens": [1e6, 2e6], "loss": [3.0, 2.0], "dev_loss": [np.nan, 2.5]})
    (axes,) = training.training_curve(history).axes
    assert [line.get_ydata().tolist() for line in axes.lines] == [[3.0, 2.0], [2.5]]
    training.training_curve(pd.DataFrame(columns=["tokens", "loss", "dev_loss"]))


def test_a_document_page_shows_text_entities_and_triples_escaped() -> None:
    html = show_document(PAGE, {"P50": "author"}).data
    assert "A &lt;b&gt;" in html
    assert "Dawn & Dusk is by Ann." in text_of(html)
    assert re.search(r"Dawn &amp; Dusk<sub>0</sub></td><td>author</td><td>Ann<sub>1</sub>", html)


def test_a_loss_page_shows_the_text_token_by_token() -> None:
    offsets = np.array([[0, 4], [4, 11], [11, 21], [21, 22]])
    html = show_losses(PAGE, TextLosses(np.arange(4), np.array([0.0, 5.0, 20.0, 1.0]), offsets)).data
    assert PAGE.text in text_of(html)
    assert [float(alpha) for alpha in re.findall(r"213,94,0,([0-9.]+)\)", html)] == [0.0, 0.5, 1.0, 0.1]


def lookup_table() -> pd.DataFrame:
    shares = {"as stored": 1.0, "other relation name": 0.5, "unknown entity": 0.25}
    rows = [
        (wording, "answered" if wording.startswith("unknown") else "first", value, value - 0.1, value + 0.1, 20)
        for wording, value in shares.items()
    ]
    rows.append(("as stored", "among", 0.9, 0.8, 1.0, 20))
    return pd.DataFrame(rows, columns=["wording", "metric", "value", "low", "high", "n"])


def test_lookup_bars_are_the_shares_that_matter_of_each_wording() -> None:
    table = pd.concat([lookup_table().assign(setting=setting) for setting in ("training", "editing")])
    (axes,) = lookup.found_by_wording(table).axes
    assert [bar.get_height() for bar in axes.patches] == [1.0, 0.5, 0.25] * 2
    (line,) = [line for line in axes.lines if line.get_linestyle() == ":"]
    assert list(line.get_xdata()) == [1.5, 1.5]  # between what can be found and what cannot


def test_growth_lines_have_a_point_a_size() -> None:
    table = pd.concat([lookup_table().assign(triples=size) for size in (10, 1000)])
    (axes,) = lookup.found_while_growing(table).axes
    lines = [line for line in axes.lines if len(line.get_xdata()) == 2 and line.get_linestyle() == "-"]
    assert {tuple(line.get_ydata()) for line in lines} == {(1.0, 1.0), (0.5, 0.5), (0.25, 0.25)}
    assert [label.get_text() for label in axes.get_xticklabels()] == ["10", "1,000"]
