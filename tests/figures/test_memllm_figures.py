"""Figures of MemLLM show the numbers of their tables; pages of calls show what was learnt, asked and answered."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from html import unescape
from typing import get_args

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from palimpsest.facts import Query, Triple
from palimpsest.figures import memllm
from palimpsest.figures.calls import LEARNT, OUTCOMES, READ_ONLY, show_examples, show_traces
from palimpsest.figures.style import BLUE, GREY
from palimpsest.lm.load import LanguageModel
from palimpsest.lm.tokenizer import train_tokenizer
from palimpsest.lm.train import Architecture
from palimpsest.memllm.examples import Example
from palimpsest.memllm.lookup import Found
from palimpsest.memllm.reading import Call, Outcome, Span, Trace
from palimpsest.memllm.tokens import CallTokens, add_call_tokens
from palimpsest.memory import FunctionEmbedder, Source, TripleMemory


def table(rows: list[tuple], *columns: str) -> pd.DataFrame:
    """Rows with a value, and an interval from a tenth below it to a fifth above."""
    frame = pd.DataFrame(rows, columns=[*columns, "value"])
    return frame.assign(low=frame["value"] - 0.1, high=frame["value"] + 0.2, n=9)


def points(axes, place: int = 0) -> list[list[float]]:
    return axes.containers[place].lines[0].get_xydata().tolist()


def bounds(axes, place: int = 0) -> list[list[float]]:
    (bars,) = axes.containers[place].lines[2]
    return [segment[:, 1].tolist() for segment in bars.get_segments()]


def labels(axis) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


def test_perplexity_has_a_panel_a_class_and_a_bar_a_setting() -> None:
    rows = table(
        [
            (setting, kind, value)
            for setting, values in {"no memory": (900.0, 8.0), "own writes": (50.0, 4.0)}.items()
            for kind, value in zip(("target", "all"), values, strict=True)
        ],
        "split",
        "tokens",
    )
    figure = memllm.perplexity_by_setting(rows, frozenset({"no memory"}))
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        memllm.CLASS_NAMES[name] for name in memllm.CLASS_NAMES if name in ("all", "target")
    ]
    shown = {axes.get_title(loc="left"): axes for axes in figure.axes}
    for name, values in {"all": [4, 8], "target": [50, 900]}.items():
        axes = shown[memllm.CLASS_NAMES[name]]
        assert [bar.get_width() for bar in axes.patches] == values  # from below
        assert [to_hex(bar.get_facecolor(), keep_alpha=False) for bar in axes.patches] == [BLUE.lower(), GREY.lower()]
        assert axes.get_xscale() == "log"
        assert axes.get_xlim()[1] > values[1]
    assert labels(figure.axes[0].yaxis) == ["own writes", "no memory"]
    figure.draw_without_rendering()


@pytest.mark.parametrize(("value", "text"), [(3.14159, "3.14"), (42.4242, "42.4"), (123.4, "123"), (45678.9, "45,679")])
def test_bars_are_labelled_in_three_digits_or_whole(value: float, text: str) -> None:
    figure = memllm.perplexity_by_setting(table([("x", "all", value)], "split", "tokens"), frozenset())
    assert text in [label.get_text() for label in figure.axes[0].texts]


def test_quality_is_drawn_by_delay_and_by_confidence() -> None:
    values = {"precision": [0.9, 0.8, 0.7], "recall": [0.2, 0.4, 0.5], "f1": [0.33, 0.53, 0.58]}
    tables = [
        table(
            [(key, name, value[n]) for n, key in enumerate(keys) for name, value in values.items()][::-1],
            column,
            "metric",
        )
        for column, keys in {"delay": (0, 1, 5), "least": (-2.0, -1.0, -0.5)}.items()
    ]
    left, right = memllm.write_quality(*tables).axes
    for axes in (left, right):
        for place, value in enumerate(values.values()):
            assert points(axes, place) == [[0, value[0]], [1, value[1]], [2, value[2]]]
            assert bounds(axes, place) == pytest.approx(np.array([[v - 0.1, v + 0.2] for v in value]))
    assert labels(left.xaxis) == ["0 (early)", "1", "5"]
    assert labels(right.xaxis) == ["-2", "-1", "-0.5"]
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["precision", "recall", "F1"]


def test_growth_has_quality_and_latency() -> None:
    names = {"target perplexity": [4.0, 5.0, 6.0], "milliseconds a read": [0.5, 0.6, 7.0]}
    names["milliseconds a read without distractors"] = [0.5, 0.5, 0.7]
    rows = [(size, name, value[n]) for n, size in enumerate((0, 1000, 1_000_000)) for name, value in names.items()]
    left, right = memllm.growth(table(rows, "distractors", "metric")).axes
    assert [y for _, y in points(left)] == names["target perplexity"]
    assert [y for _, y in points(right)] == names["milliseconds a read"]
    assert [y for _, y in points(right, 1)] == names["milliseconds a read without distractors"]
    assert bounds(right)[2] == pytest.approx([6.9, 7.2])
    assert labels(left.xaxis) == labels(right.xaxis) == ["0", "1,000", "1,000,000"]
    assert (left.get_ylim()[0], right.get_ylim()[0]) == (1, 0)


def test_training_curves_show_both_losses_of_each_adapter() -> None:
    history = pd.DataFrame({"tokens": [1e6, 2e6, 3e6], "loss": [5.0, 3.0, None], "dev_loss": [None, 3.5, 3.2]})
    (axes,) = memllm.training_curves({"read": history, "write": history.assign(loss=1.0), "plain": history}).axes
    lines = {str(line.get_label()): line.get_xydata().tolist() for line in axes.lines}
    assert lines["read"] == [[1e6, 5.0], [2e6, 3.0]]
    assert lines["read, held out"] == lines["plain, held out"] == [[2e6, 3.5], [3e6, 3.2]]
    assert lines["write"] == [[1e6, 1.0], [2e6, 1.0], [3e6, 1.0]]
    assert len(lines) == 6
    assert len({line.get_color() for line in axes.lines}) == 3
    both = memllm.training_curves({"read": history, "edit_write": history[:0], "edit_read": history}).axes
    assert [[line.get_label() for line in axes.lines] for axes in both] == [
        ["read", "read, held out"],
        ["edit_read", "edit_read, held out"],
    ]
    (larimar,) = memllm.training_curves({"published": history, "best": history}).axes
    assert len(larimar.lines) == 4


@pytest.fixture(scope="module")
def tokens() -> CallTokens:
    tokenizer = train_tokenizer(["Dawn & <b>Dusk</b> was written by Ann Lee."], 300, 64)
    shape = Architecture(layers=1, width=8, feedforward=8, heads=1, context_length=64, induction=False)
    model = shape.build(tokenizer, seed=0)
    return CallTokens(add_call_tokens(LanguageModel(model, tokenizer)), spaced=True)


def blocks(html: str) -> list[str]:
    return re.findall(r"<div.*?>(.*?)</div>", html, re.DOTALL)


def plain(html: str) -> str:
    return unescape(re.sub(r"<[^>]+>", "", html))


def test_learnt_parts_of_examples_are_shaded(tokens: CallTokens) -> None:
    text, call = tokens.text("Dawn & <b>Dusk</b> was").ids, tokens.write([Triple("<b Dawn", "author", "Ann")])
    examples = [
        Example.of(tokens.start, (text, False), (call, True), (text, False), max_tokens=99),
        Example.of(tokens.start, (call, True), max_tokens=99),
    ]
    first, second = blocks(show_examples(examples, tokens).data)
    written = "({MEM_WRITE--> <b Dawn>> author>> Ann})"
    parts = re.findall(r'<span style="(.*?)">(.*?)</span>', first, re.DOTALL)
    assert [(style, unescape(part)) for style, part in parts] == [
        (READ_ONLY, " Dawn & <b>Dusk</b> was"),
        (LEARNT, written),
        (READ_ONLY, " Dawn & <b>Dusk</b> was"),
    ]
    assert plain(second) == written
    assert "<b" not in first + second
    assert len(blocks(show_examples(iter(examples[:1]), tokens).data)) == 1


def embed(names: Sequence[str]) -> np.ndarray:
    return np.eye(16)[[sum(map(ord, name)) % 16 for name in names]]


@pytest.fixture
def memory() -> Iterator[TripleMemory]:
    with TripleMemory.open(":memory:", FunctionEmbedder(embed, "any", 16)) as opened:
        opened.add([Triple("Dawn", "author", "Ann <i>")] * 3, [Source("Page <1>"), Source("Two"), Source("Two", 3)])
        opened.add([Triple("Dawn", "author", "Bo")])
        yield opened


def found(name: str) -> Found:
    return Found(name, Triple("Dawn", "author", name), 0.0)


QUERY = (Query("author", subject="Dawn"),)


def test_a_trace_shows_what_was_asked_what_came_back_and_from_where(memory: TripleMemory) -> None:
    call = Call("({MEM_READ(", "answered", QUERY, (found("Ann <i>"), found("Bo"), found("Cleo")))
    more = Call("", "answered", (Query("lies <in>", object="Oslo"), *QUERY), tuple(map(found, "abcde")))
    trace = Trace("Dawn <u>", [Span(" is by"), Span(" Ann <i>.", call), Span(" So & so.", more)])
    (html,) = blocks(show_traces([trace], memory).data)
    assert plain(html) == (
        "Dawn <u> is by"
        " [(Dawn, author, ?) → Ann <i> (from “Page <1>”, “Two”); Bo (no source); Cleo (no source)]  Ann <i>."
        " [(?, lies <in>, Oslo); (Dawn, author, ?) → a (no source); b (no source); c (no source) and 2 more]  So & so."
    )
    assert not {"<i>", "<u>", "<1>", "<in>"} & set(re.findall(r"<[^>]*>", html))


def test_dropped_calls_say_why_and_follow_their_span(memory: TripleMemory) -> None:
    dropped = [
        Call("({MEM_READ(<x>", "malformed", reason="expected -->"),
        Call("", "empty", QUERY),
        Call("", "repeated", QUERY),
        Call("", "too long", QUERY),
    ]
    one, two = blocks(show_traces([Trace("A", [Span(" b", None, dropped)]), Trace("C", [])], memory).data)
    assert plain(one) == (
        "A b [({MEM_READ(<x> → malformed: expected -->]  [(Dawn, author, ?) → empty] "
        " [(Dawn, author, ?) → repeated]  [(Dawn, author, ?) → too long] "
    )
    assert re.findall(r"color:(#\w+);", one) == [OUTCOMES[call.outcome] for call in dropped]
    assert plain(two) == "C"
    assert set(OUTCOMES) == set(get_args(Outcome))
