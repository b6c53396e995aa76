"""How editing methods are named and coloured in figures and tables: by where they keep what they were told."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from palimpsest.figures.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY

OTHER, NOWHERE = "another place", "nowhere"
HOMES = {
    "triples in a memory": BLUE,
    "vectors in a memory": GREEN,
    "in the prompt": SKY,
    "beside the weights": PURPLE,
    "in weights, by solving": RED,
    "in weights, by descent": ORANGE,
    OTHER: "#000000",
    NOWHERE: GREY,
}


@dataclass(frozen=True)
class Method:
    """A method's label, where its edits live, and the marker by which it is told from others of the same home."""

    label: str
    home: str = OTHER
    marker: str = "o"

    @property
    def colour(self) -> str:
        return HOMES[self.home]


METHODS = {
    "memllm": Method("MemLLM", "triples in a memory"),
    "larimar_best": Method("Larimar (best)", "vectors in a memory"),
    "larimar": Method("Larimar (published)", "vectors in a memory", "s"),
    "incontext": Method("in-context", "in the prompt"),
    "grace": Method("GRACE", "beside the weights"),
    "wise": Method("WISE", "beside the weights", "s"),
    "rome": Method("ROME", "in weights, by solving"),
    "memit": Method("MEMIT", "in weights, by solving", "s"),
    "alphaedit": Method("AlphaEdit", "in weights, by solving", "^"),
    "lora": Method("LoRA", "in weights, by descent"),
    "ft": Method("FT", "in weights, by descent", "s"),
    "ft_l": Method("FT-L", "in weights, by descent", "^"),
    "none": Method("no edit", NOWHERE),
}


def method(name: str) -> Method:
    """A method's looks. One that is not known here goes by its own name."""
    return METHODS.get(name, Method(name))


def ordered(names: Iterable[str]) -> list[str]:
    """Each name once: known methods in the order in which they are listed here, then the others, and no edit last."""
    found = dict.fromkeys(names)
    known = [name for name in METHODS if name in found and name != "none"]
    return [*known, *(name for name in found if name not in METHODS), *(name for name in found if name == "none")]


def rows(axes: Axes, names: list[str]) -> np.ndarray:
    """Give each method a row, the first on top, and return their heights."""
    heights = np.arange(len(names))[::-1].astype(float)
    axes.set_yticks(heights, [method(name).label for name in names])
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.tick_params(axis="y", left=False)
    axes.grid(axis="y", visible=False)
    return heights


def shares(axes: Axes, *, left: float = -0.04, right: float = 1.04) -> None:
    """An x axis of shares, with few labels, for there are several panels side by side."""
    axes.set_xlim(left, right)
    axes.set_xticks([0, 0.5, 1])
    axes.xaxis.set_major_formatter(PercentFormatter(1))


def magnitudes(axes: Axes, values: pd.Series, read: Callable[[float], str] = "{:g}".format) -> None:
    """An x axis for some numbers, labelled at few; logarithmic where they are positive and of several orders."""
    if values.max() > 10 * values.min() > 0:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(numticks=4))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: read(value)))


def points(axes: Axes, table: pd.DataFrame, heights: np.ndarray, names: list[str], *, filled: bool = True) -> None:
    """A point with its interval in each method's row.

    Args:
        table: columns ``method``, ``value``, ``low``, ``high``; a row a method, of which some may be absent.
        filled: or a ring, for what is shown beside another.
    """
    for height, name in zip(heights, names, strict=True):
        own = table[table["method"] == name]
        axes.errorbar(
            own["value"],
            np.full(len(own), height),
            xerr=[(own["value"] - own["low"]).clip(lower=0), (own["high"] - own["value"]).clip(lower=0)],
            fmt="o",
            markersize=5.5,
            color=method(name).colour,
            markerfacecolor=method(name).colour if filled else "white",
            elinewidth=1.2,
            capsize=2,
        )


def markers(names: Iterable[str], *, lines: bool = True) -> list[Line2D]:
    """What a legend shows of each method: colour and marker, on a line or alone."""
    return [
        Line2D(
            [], [], color=one.colour, marker=one.marker, markersize=5, linestyle="-" if lines else "", label=one.label
        )
        for one in map(method, names)
    ]


def legend_of_homes(figure: Figure, names: Iterable[str], more: Iterable[Line2D] = (), columns: int = 4) -> None:
    """Say below a figure what the colours mean, of those that occur."""
    there = {method(name).home for name in names}
    handles = [
        Line2D([], [], marker="o", linestyle="", color=colour, label=home)
        for home, colour in HOMES.items()
        if home in there
    ]
    figure.legend(handles=[*handles, *more], loc="outside lower center", ncols=columns, fontsize=9)
