"""Figures of MemLLM: perplexity by setting, write quality, growth of the memory."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from palimpsest.figures.knowledge import CLASS_NAMES
from palimpsest.figures.style import BLUE, GREEN, GREY, ORANGE, canvas

METRIC_COLOURS = {"precision": BLUE, "recall": ORANGE, "f1": GREEN}
METRIC_NAMES = {"precision": "precision", "recall": "recall", "f1": "F1"}


def perplexity_by_setting(table: pd.DataFrame, plain: frozenset[str]) -> Figure:
    """A panel a class of tokens, a bar a setting; settings named in ``plain`` have no memory and are grey."""
    classes = [name for name in CLASS_NAMES if name in set(table["tokens"])]
    settings = list(dict.fromkeys(table["split"]))[::-1]
    with canvas(1, len(classes), width=10.0, height=0.8 + 0.3 * len(settings)) as (figure, panels):
        for axes, name in zip(panels, classes, strict=True):
            rows = table[table["tokens"] == name].set_index("split").loc[settings]
            colours = [GREY if setting in plain else BLUE for setting in settings]
            errors = [rows["value"] - rows["low"], rows["high"] - rows["value"]]
            bars = axes.barh(settings, rows["value"], xerr=errors, color=colours, capsize=2)
            axes.bar_label(bars, [_short(value) for value in rows["value"]], padding=12, fontsize=8)
            axes.set(xscale="log", xlim=(1, float(rows["high"].max()) * 6), title=CLASS_NAMES[name])
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
            axes.grid(axis="y", visible=False)
            axes.tick_params(labelleft=axes is panels[0], left=False)
        figure.supxlabel("perplexity on documents about unknown entities (log scale; shorter is better)", fontsize=10)
        return figure


def write_quality(by_delay: pd.DataFrame, by_confidence: pd.DataFrame) -> Figure:
    """Precision, recall and F1 of extracted triples against the stopping delay and the confidence that is asked for."""
    with canvas(1, 2, width=10.0) as (figure, (left, right)):
        delays, least = sorted(set(by_delay["delay"])), sorted(set(by_confidence["least"]))
        for metric, colour in METRIC_COLOURS.items():
            _line(left, by_delay[by_delay["metric"] == metric], "delay", delays, colour, METRIC_NAMES[metric])
            rows = by_confidence[by_confidence["metric"] == metric]
            _line(right, rows, "least", least, colour, METRIC_NAMES[metric])
        left.set_xticks(np.arange(len(delays)), [f"{delay}" if delay else "0 (early)" for delay in delays])
        right.set_xticks(np.arange(len(least)), [f"{value:g}" for value in least])
        left.set(xlabel="stopping delay", ylabel="share", title="By when a call may end")
        right.set(xlabel="least mean log-probability a token", title="By how sure a stored call is")
        for axes in (left, right):
            axes.yaxis.set_major_formatter(PercentFormatter(1))
        right.legend()
        return figure


def growth(table: pd.DataFrame) -> Figure:
    """Target perplexity, and the time of a read, against how many other triples the memory holds; beside it, in grey,
    the time of the same reads of a memory without them, which shows what the machine did meanwhile."""
    with canvas(1, 2, width=9.0) as (figure, (left, right)):
        sizes = sorted(set(table["distractors"]))
        names = [f"{size:,}" for size in sizes]
        _line(left, table[table["metric"] == "target perplexity"], "distractors", sizes, BLUE, "target perplexity")
        for metric, colour, label in (
            ("milliseconds a read", ORANGE, "this memory"),
            ("milliseconds a read without distractors", GREY, "without distractors, asked in turn"),
        ):
            _line(right, table[table["metric"] == metric], "distractors", sizes, colour, label)
        right.legend(loc="lower left", fontsize=8)
        left.set(ylabel="perplexity of target mentions", title="Quality", ylim=(1, None))
        right.set(ylabel="milliseconds", title="Latency of a read", ylim=(0, None))
        for axes in (left, right):
            axes.set_xticks(np.arange(len(sizes)), names)
            axes.set_xlabel("triples about other entities in the memory")
        return figure


def _line(axes: Axes, rows: pd.DataFrame, column: str, places: list, colour: str, label: str) -> None:
    rows = rows.set_index(column).loc[places]
    errors = [rows["value"] - rows["low"], rows["high"] - rows["value"]]
    axes.errorbar(np.arange(len(places)), rows["value"], errors, fmt="o-", color=colour, capsize=3, label=label)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


PANELS = dict.fromkeys(("write", "read", "plain"), "From documents") | dict.fromkeys(
    ("edit_write", "edit_read"), "From edits"
)


def training_curves(histories: Mapping[str, pd.DataFrame]) -> Figure:
    """Loss on training and held-out examples of each adapter or model against tokens read; of the adapters for editing,
    which read far fewer, in a panel of their own."""
    groups: dict[str, list[str]] = {}
    for name, history in histories.items():
        if len(history):
            groups.setdefault(PANELS.get(name, ""), []).append(name)
    with canvas(1, len(groups), width=5.0 * len(groups)) as (figure, panels):
        for axes, (title, names) in zip(panels, groups.items(), strict=True):
            for name, colour in zip(names, (BLUE, ORANGE, GREY), strict=False):
                _curves(axes, name, histories[name], colour)
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1e6:g} M"))
            axes.set(xlabel="tokens read", title=title, ylim=(0, None))
            axes.legend(ncols=len(names), fontsize=7)
        panels[0].set_ylabel("nats a learnt token")
        return figure


def _curves(axes: Axes, name: str, history: pd.DataFrame, colour: str) -> None:
    trained, held_out = history.dropna(subset="loss"), history.dropna(subset="dev_loss")
    axes.plot(trained["tokens"], trained["loss"], color=colour, label=name)
    axes.plot(held_out["tokens"], held_out["dev_loss"], "o--", color=colour, label=f"{name}, held out")
