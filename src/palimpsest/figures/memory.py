"""Figures of the memory of triples: how its speed changes with size, and why it has the vector index that it has."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from palimpsest.figures.style import BLUE, GREY, ORANGE, canvas

METHODS = {"ours": ("this repository, on disk", BLUE), "official": ("official design, in RAM", ORANGE)}
PERCENTILES = {"p50_ms": ("-", "median"), "p99_ms": ("--", "99 of 100 are faster")}
OWN = "palimpsest"  # how the name of this repository's index begins
PANELS = {
    "build_seconds": ("seconds to build", "{:,.1f}"),
    "p50_ms": ("milliseconds a search", "{:,.2f}"),
    "bytes_per_vector": ("bytes a vector", "{:,.0f}"),
    "missed": ("of what is near, missed", "{:.1%}"),
}


def speed_by_size(table: pd.DataFrame) -> Figure:
    """Latency of a query and triples stored a second against how many triples there are, for the longest vectors."""
    table = table[table["dimension"] == table["dimension"].max()].sort_values("triples")
    queries = table[(table["operation"] == "query") & (table["thresholds"] == "language modelling")]
    inserts = table[(table["operation"] == "insert") & (table["metric"] == "per_second")]
    with canvas(1, 2, width=9.0, height=3.8) as (figure, (left, right)):
        for method, (name, colour) in METHODS.items():
            for metric, (line, words) in PERCENTILES.items():
                rows = queries[(queries["method"] == method) & (queries["metric"] == metric)]
                left.plot(rows["triples"], rows["value"], f"o{line}", color=colour, label=f"{name}: {words}")
            rows = inserts[inserts["method"] == method]
            right.plot(rows["triples"], rows["value"], "o-", color=colour)
        for axes in (left, right):
            axes.set(xscale="log", yscale="log", xlabel="triples in the memory")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_formatter(
                    FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
                )
                axis.set_minor_locator(NullLocator())
        left.set(ylabel="milliseconds", title="A query: lower is better")
        right.set(ylabel="triples a second", title="Storing, with the index: higher is better")
        figure.legend(loc="outside lower center", ncols=2, fontsize=8)
        return figure


def index_choice(table: pd.DataFrame) -> Figure:
    """Vector indexes on the same vectors, the longest: a panel a measure, and a bar an index. Shorter is better."""
    table = table[table["dimension"] == table["dimension"].max()][::-1]  # bars stand from below
    table = table.assign(missed=1 - table["recall_within_0.15"])
    colours = [BLUE if str(name).startswith(OWN) else GREY for name in table["index"]]
    with canvas(1, len(PANELS), width=10.0, height=2.6) as (figure, panels):
        for axes, (measure, (words, form)) in zip(panels, PANELS.items(), strict=True):
            bars = axes.barh(table["index"], table[measure], color=colours)
            axes.bar_label(bars, [form.format(value) for value in table[measure]], padding=3, fontsize=8)
            axes.margins(x=0.35)
            axes.set_title(words, fontsize=10)
            axes.grid(visible=False)
            axes.xaxis.set_visible(False)
            axes.spines["bottom"].set_visible(False)
            axes.tick_params(labelleft=axes is panels[0], left=False)
        count = int(table["vectors"].max())
        figure.suptitle(
            f"Vector indexes with the same {count:,} vectors: shorter is better", x=0.01, ha="left", fontsize=11
        )
        return figure
