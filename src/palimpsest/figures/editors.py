"""Figures that compare editing methods by whether their edits work: alone, in sequence, in batches.

All read tables of :func:`palimpsest.evaluation.comparison.editing_table`.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, PercentFormatter

from palimpsest.figures.methods import legend_of_homes, method, ordered, points, rows, shares
from palimpsest.figures.style import BLUE, GREEN, GREY, ORANGE, canvas

CORNERS = {
    ("edit", "exact"): "reliability",
    ("paraphrase", "exact"): "generalization",
    ("neighbor", "unchanged"): "locality",
}
SCORE = ("score", "exact")
MEASURES = {
    ("edit", "success_mean"): "New answer above the old",
    ("edit", "exact"): "Reliability: new answer said",
    ("paraphrase", "exact"): "Generalization: … in other words",
    ("neighbor", "unchanged"): "Locality: others as before",
    SCORE: "Harmonic mean of these three",
}
KINDS = {"edit": "own prompt", "paraphrase": "in other words", "neighbor": "neighbours"}
PROTOCOLS = {
    "success_mean": ("more probable than its rival", BLUE),
    "token_accuracy": ("token by token, given the answer so far", ORANGE),
    "exact": ("said, generating freely", GREEN),
}
AFTER_EDIT, AFTER_LAST = "after_edit", "after_last"
EVERY_RUN = "all"  # all runs together
SETTINGS = {"sequence": "one after the other", "batch": "all at once"}
ACROSS = 7  # triangles in a row
DIRECTIONS = np.exp(1j * np.pi * (0.5 + np.array([0, 2, 1]) * 2 / 3))  # of the corners, in the complex plane


def triangles(table: pd.DataFrame) -> Figure:
    """Reliability, generalization and locality of each method as a triangle: the fuller the better.

    Args:
        table: a row a method, metric and protocol; the best score comes first.
    """
    scores = table[_is(table, SCORE)].set_index("method")["value"].to_dict()
    names = sorted(ordered(table["method"]), key=lambda name: -scores.get(name, -1.0))
    lines = math.ceil((len(names) + 1) / ACROSS)
    with canvas(lines, ACROSS, width=10.5, height=0.5 + 1.75 * lines) as (figure, panels):
        for axes in panels:
            axes.set(aspect="equal", xlim=(-1.15, 1.15), ylim=(-0.8, 1.12))
            axes.axis("off")
        _frame(panels[0])
        for corner, name in zip(DIRECTIONS, CORNERS.values(), strict=True):
            axes, place = panels[0], 1.12 * corner
            axes.text(place.real, place.imag, name, ha="center", va="bottom" if place.imag > 0 else "top", fontsize=8)
        panels[0].text(0, 0, "full is\nperfect", ha="center", va="center", fontsize=8, color=GREY)
        for axes, name in zip(panels[1:], names, strict=False):
            _frame(axes)
            _triangle(axes, table[table["method"] == name], method(name).colour)
            score = f"{scores[name]:.0%}" if name in scores else ""
            axes.set_title(f"{method(name).label}\n", fontsize=9, loc="center", pad=-6)
            axes.text(0, 1.06, score, ha="center", va="bottom", fontsize=9, fontweight="bold", color=GREY)
        figure.suptitle(
            "One edit: is it said, is it said in other words, is all else as before? Above: harmonic mean",
            x=0.01,
            ha="left",
            fontsize=11,
        )
        legend_of_homes(figure, names)
        return figure


def _frame(axes: Axes) -> None:
    for size in (0.5, 1.0):
        axes.fill((size * DIRECTIONS).real, (size * DIRECTIONS).imag, fill=False, edgecolor="#CCCCCC", linewidth=0.8)
    for corner in DIRECTIONS:
        axes.plot([0, corner.real], [0, corner.imag], color="#E5E5E5", linewidth=0.8, zorder=0)


def _triangle(axes: Axes, table: pd.DataFrame, colour: str) -> None:
    found = [table[_is(table, corner)] for corner in CORNERS]
    values = np.array([rows["value"].iloc[0] if len(rows) else 0.0 for rows in found])
    corners = values * DIRECTIONS
    axes.fill(corners.real, corners.imag, color=colour, alpha=0.35, linewidth=0)
    axes.fill(corners.real, corners.imag, fill=False, edgecolor=colour, linewidth=1.3)
    for rows_, direction in zip(found, DIRECTIONS, strict=True):
        if len(rows_):
            ends = direction * rows_[["low", "high"]].iloc[0].to_numpy(float)
            axes.plot(ends.real, ends.imag, color=colour, linewidth=2.2, solid_capstyle="butt")


def protocols(table: pd.DataFrame, edits: int) -> Figure:
    """One method by three protocols and at two moments.

    Args:
        table: of one method and number of edits, a row a metric, protocol and phase.
    """
    (name,) = set(table["method"])
    phases = [phase for phase in (AFTER_EDIT, AFTER_LAST) if phase in set(table["phase"])]
    bars = [(protocol, phase) for protocol in PROTOCOLS for phase in phases]
    width = 0.84 / len(bars)
    with canvas(width=9.5, height=3.6) as (figure, (axes,)):
        for number, (protocol, phase) in enumerate(bars):
            chosen = table[(table["protocol"] == protocol) & (table["phase"] == phase)]
            chosen = chosen.set_index("metric").reindex(list(KINDS))
            words, colour = PROTOCOLS[protocol]
            axes.bar(
                np.arange(len(KINDS)) + (number - (len(bars) - 1) / 2) * width,
                chosen["value"],
                width * 0.93,
                yerr=[chosen["value"] - chosen["low"], chosen["high"] - chosen["value"]],
                color=colour,
                alpha=0.45 if phase == AFTER_EDIT and len(phases) > 1 else 1,
                error_kw={"elinewidth": 1},
                capsize=2,
                label=f"{words}, {'right after the edit' if phase == AFTER_EDIT else 'after the last'}",
            )
        axes.set_xticks(np.arange(len(KINDS)), list(KINDS.values()))
        axes.grid(axis="x", visible=False)
        axes.set_ylim(0, 1.05)
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.set_title(f"{method(name).label}, {edits:,} edits: the same model by three protocols, at two moments")
        figure.legend(loc="outside lower center", ncols=2, fontsize=9)
        return figure


def against_edits(table: pd.DataFrame) -> Figure:
    """What is left after the last edit, against how many were made: a panel a measure, a line a method.

    Args:
        table: of one setting, after the last edit. Rows of a ``run`` of its own are shown as small points beside those
            of all runs together.
    """
    names, counts = ordered(table["method"]), sorted(set(table["edits"]))
    (setting,) = set(table["setting"])
    with canvas(2, 3, width=10.5, height=6.0) as (figure, panels):
        for axes, (measure, title) in zip(panels, MEASURES.items(), strict=False):
            chosen = table[_is(table, measure)]
            for name in names:
                own = chosen[chosen["method"] == name]
                _line(axes, own[own["run"] == EVERY_RUN], name)
                each = own[own["run"] != EVERY_RUN]
                axes.plot(each["edits"], each["value"], ".", color=method(name).colour, markersize=2.5, alpha=0.6)
            axes.set_ylim(-0.03, 1.05)
            axes.yaxis.set_major_formatter(PercentFormatter(1))
            _counts(axes, counts)
            axes.set_title(title, fontsize=10)
        for axes in panels[2:5]:
            axes.set_xlabel("edits made")
        panels[5].axis("off")
        handles = [
            Line2D(
                [], [], color=method(name).colour, marker=method(name).marker, markersize=5, label=method(name).label
            )
            for name in names
        ]
        panels[5].legend(handles=handles, loc="center", ncols=2, fontsize=9)
        figure.suptitle(
            f"Edits made {SETTINGS.get(setting, setting)}: what is left of them after the last",
            x=0.01,
            ha="left",
            fontsize=11,
        )
        return figure


def retained(table: pd.DataFrame, edits: int) -> Figure:
    """Right after the edit and after the last one: a row a method, a panel a measure; rings are right after.

    Args:
        table: of one number of edits, a row a method, metric, protocol and phase.
    """
    names = ordered(table["method"])
    with canvas(1, len(CORNERS), width=9.5, height=1.5 + 0.27 * len(names)) as (figure, panels):
        for axes, (measure, title) in zip(panels, CORNERS.items(), strict=True):
            heights = rows(axes, names)
            chosen = table[_is(table, measure)]
            before, after = (chosen[chosen["phase"] == phase] for phase in (AFTER_EDIT, AFTER_LAST))
            for height, name in zip(heights, names, strict=True):
                way = chosen.loc[chosen["method"] == name, "value"]
                axes.plot(way, np.full(len(way), height), color="#BBBBBB", linewidth=1.5, zorder=1)
            points(axes, before, heights, names, filled=False)
            points(axes, after, heights, names)
            axes.tick_params(labelleft=axes is panels[0])
            shares(axes)
            axes.set_title(title.capitalize(), fontsize=10)
        figure.suptitle(f"{edits:,} edits: what later edits undo of earlier ones", x=0.01, ha="left", fontsize=11)
        moments = [
            Line2D([], [], marker="o", color=GREY, markerfacecolor="white", linestyle="", label="right after the edit"),
            Line2D([], [], marker="o", color=GREY, linestyle="", label="after the last edit"),
        ]
        figure.legend(handles=moments, loc="outside lower center", ncols=2, fontsize=9)
        return figure


def _is(table: pd.DataFrame, measure: tuple[str, str]) -> pd.Series:
    metric, protocol = measure
    return (table["metric"] == metric) & (table["protocol"] == protocol)


def _line(axes: Axes, table: pd.DataFrame, name: str) -> None:
    table, looks = table.sort_values("edits"), method(name)
    axes.errorbar(
        table["edits"],
        table["value"],
        [table["value"] - table["low"], table["high"] - table["value"]],
        fmt=f"{looks.marker}-",
        color=looks.colour,
        markersize=4.5,
        linewidth=1.3,
        elinewidth=0.6,
    )


def _counts(axes: Axes, counts: list[int]) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(counts))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
