"""Figures of what a memory of triples finds."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, PercentFormatter

from palimpsest.figures.style import BLUE, GREEN, GREY, ORANGE, RED, canvas

WORDING_NAMES = {
    "as stored": "as stored",
    "other relation name": "other name\nof the relation",
    "other entity name": "other name\nof the entity",
    "unknown fact": "nothing stored in\nthis relation",
    "unknown entity": "entity not\nstored",
}

SILENT = ("unknown fact", "unknown entity")


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    """How often the closest result is right; and of what is not stored, how often there is a result."""
    return table[np.where(table["wording"].isin(SILENT), table["metric"] == "answered", table["metric"] == "first")]


def found_by_wording(table: pd.DataFrame) -> Figure:
    """Share of queries answered rightly, by how they are worded and by the thresholds; last, what should be silence."""
    settings = list(dict.fromkeys(table["setting"]))
    wordings = [wording for wording in WORDING_NAMES if wording in set(table["wording"])]
    shown = _shown(table)
    with canvas(width=8.5) as (figure, (axes,)):
        width = 0.8 / len(settings)
        for number, (setting, colour) in enumerate(zip(settings, (BLUE, ORANGE, GREEN), strict=False)):
            rows = shown[shown["setting"] == setting].set_index("wording").loc[wordings]
            places = np.arange(len(wordings)) + (number - (len(settings) - 1) / 2) * width
            errors = [rows["value"] - rows["low"], rows["high"] - rows["value"]]
            axes.bar(places, rows["value"], width * 0.95, yerr=errors, capsize=3, color=colour, label=setting)
        empty = sum(wording in SILENT for wording in wordings)
        axes.axvline(len(wordings) - empty - 0.5, color=GREY, linestyle=":")
        axes.set_xticks(np.arange(len(wordings)), [WORDING_NAMES[wording] for wording in wordings])
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.grid(axis="x", visible=False)
        axes.set(
            ylabel="queries",
            ylim=(0, 1.05),
            title="Answered rightly; right of the line: answered though nothing is stored",
        )
        axes.legend(title="thresholds", loc="center left", bbox_to_anchor=(1, 0.5))
        return figure


def found_while_growing(table: pd.DataFrame) -> Figure:
    """The same shares against how many triples the memory holds."""
    shown = _shown(table)
    with canvas(width=8.5) as (figure, (axes,)):
        lines = shown.groupby("wording", sort=False)
        for (wording, rows), colour in zip(lines, (BLUE, ORANGE, GREEN, GREY, RED), strict=False):
            errors = [rows["value"] - rows["low"], rows["high"] - rows["value"]]
            label = WORDING_NAMES[str(wording)].replace("\n", " ") + (": answered" if wording in SILENT else "")
            axes.errorbar(rows["triples"], rows["value"], errors, fmt="o-", color=colour, capsize=3, label=label)
        axes.set_xscale("log")
        axes.set_xticks(sizes := sorted(set(shown["triples"])), [f"{size:,}" for size in sizes])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.set(
            xlabel="triples in the memory",
            ylabel="queries",
            ylim=(-0.03, 1.05),
            title="What is found while the memory grows (thresholds of language modelling)",
        )
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        return figure
