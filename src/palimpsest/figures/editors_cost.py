"""Figures of what editing costs, of speed against quality, and of everything at a glance."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from palimpsest.figures.methods import NOWHERE, legend_of_homes, magnitudes, markers, method, ordered, points, rows
from palimpsest.figures.style import BLUE, GREY, ORANGE, SKY, canvas
from palimpsest.figures.units import duration, size

COSTS = {
    "edit": ("An edit", duration),
    "first answer": ("Its first answer", duration),
    "added to a later prompt": ("Added to a later\nprompt", duration),
    "peak memory": ("Memory for an edit", size),
}
PARTS = {"encoding": SKY, "memory": BLUE, "decoding": ORANGE}
CMAP = "YlGnBu"


def costs(table: pd.DataFrame) -> Figure:
    """Time and memory an edit: a row a method, a panel a measure.

    Args:
        table: of :func:`palimpsest.evaluation.cost.cost_table`.
    """
    names = ordered(table["method"])
    with canvas(1, len(COSTS), width=11, height=1.4 + 0.27 * len(names)) as (figure, panels):
        for axes, (measure, (title, read)) in zip(panels, COSTS.items(), strict=True):
            chosen = table[(table["measure"] == measure) & (table["value"] != 0)]
            if measure == "edit":
                chosen = chosen[[method(name).home != NOWHERE for name in chosen["method"]]]
            points(axes, chosen, rows(axes, names), names)
            magnitudes(axes, chosen["value"], read)
            axes.tick_params(labelleft=axes is panels[0])
            axes.set_title(title, fontsize=10)
        figure.suptitle("What one edit costs, all methods in turn in one process", x=0.01, ha="left", fontsize=11)
        legend_of_homes(figure, names)
        return figure


def parts(table: pd.DataFrame) -> Figure:
    """Where the time of an edit with its first answer goes, for the methods of which it is known.

    Args:
        table: as of :func:`costs`.
    """
    known = table[table["measure"].isin(list(PARTS))]
    names = ordered(known["method"])
    with canvas(width=8, height=1.3 + 0.35 * len(names)) as (figure, (axes,)):
        heights, left = rows(axes, names), np.zeros(len(names))
        for part, colour in PARTS.items():
            values = known[known["measure"] == part].set_index("method")["value"].reindex(names).to_numpy()
            axes.barh(heights, values * 1000, 0.6, left=left, color=colour, label=part)
            left += np.nan_to_num(values * 1000)
        axes.set_xlabel("milliseconds, median edit")
        axes.set_title("An edit and its first answer: where the time goes")
        figure.legend(loc="outside right center", fontsize=9)
        return figure


def speed_against_quality(table: pd.DataFrame) -> Figure:
    """Each method by the seconds that an edit takes and by how well it does: the upper left is where to be.

    Args:
        table: columns ``method``, ``seconds`` and ``quality``, each also with ``_low`` and ``_high``.
    """
    with canvas(width=8.5, height=4.4) as (figure, (axes,)):
        for name in table["method"]:
            own, looks = table[table["method"] == name], method(name)
            axes.errorbar(
                own["seconds"],
                own["quality"],
                xerr=[own["seconds"] - own["seconds_low"], own["seconds_high"] - own["seconds"]],
                yerr=[own["quality"] - own["quality_low"], own["quality_high"] - own["quality"]],
                fmt=looks.marker,
                color=looks.colour,
                markersize=7,
                elinewidth=1,
            )
        magnitudes(axes, table["seconds"], duration)
        axes.set_ylim(-0.03, 1.08)
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.set(xlabel="time of an edit", ylabel="harmonic mean of reliability,\ngeneralization and locality")
        axes.set_title("Speed against quality: upper left is best")
        handles = markers(ordered(table["method"]), lines=False)
        figure.legend(handles=handles, loc="outside right center", fontsize=9)
        return figure


def overview(cells: pd.DataFrame) -> Figure:
    """All methods at a glance: a row a method, a column a question, a darker and larger dot is better.

    Args:
        cells: columns ``method``, ``column``, ``value`` (of shares how large; of times seconds; missing where the
            method cannot) and ``unit`` (``share`` or ``seconds``). What was not measured has no row. Columns are shown
            in their order of appearance.
    """
    names, columns = _best_first(cells), list(dict.fromkeys(cells["column"]))
    with canvas(width=9.5, height=1.2 + 0.36 * len(names)) as (figure, (axes,)):
        heights = rows(axes, names)
        times = cells.loc[(cells["unit"] == "seconds") & (cells["value"] > 0), "value"]
        for name, column, value, unit in cells[["method", "column", "value", "unit"]].to_numpy().tolist():
            place = columns.index(column), heights[names.index(name)]
            _dot(axes, *place, value, _goodness(value, unit, times), unit)
        axes.set_xticks(np.arange(len(columns)), columns)
        axes.xaxis.tick_top()
        axes.tick_params(axis="x", top=False, labelsize=10)
        axes.set_xlim(-0.5, len(columns) - 0.3)
        axes.grid(visible=False)
        for height in heights[:-1]:
            axes.axhline(height - 0.5, color="#EEEEEE", linewidth=0.8, zorder=0)
        for side in axes.spines.values():
            side.set_visible(False)
        for label, name in zip(axes.get_yticklabels(), names, strict=True):
            label.set_color(method(name).colour)
        return figure


def _dot(axes: Axes, x: float, y: float, value: float, goodness: float, unit: str) -> None:
    if math.isnan(value):
        axes.text(x, y, "cannot", ha="center", va="center", fontsize=9, color=GREY)
        return
    axes.scatter(x - 0.14, y, s=30 + 170 * goodness, c=[goodness], cmap=CMAP, vmin=-0.25, vmax=1.1, linewidths=0)
    text = duration(value) if unit == "seconds" else f"{value:.0%}"
    axes.text(x + 0.02, y, text, ha="left", va="center", fontsize=9)


def _goodness(value: float, unit: str, times: pd.Series) -> float:
    """From 0 to 1; of times by their order of magnitude, from the slowest to the fastest."""
    if math.isnan(value):
        return 0.0
    if unit == "share":
        return float(np.clip(value, 0, 1))
    span = np.log(times.max() / times.min()) if len(times) else 0.0
    return float(np.log(times.max() / value) / span) if span and value > 0 else 1.0


def _best_first(cells: pd.DataFrame) -> list[str]:
    """Methods by the mean of their shares, of which what they cannot is none, and no edit last."""
    means = cells[cells["unit"] == "share"].fillna({"value": 0.0}).groupby("method")["value"].mean().to_dict()
    return sorted(ordered(cells["method"]), key=lambda name: (name == "none", -means.get(name, 0.0)))
