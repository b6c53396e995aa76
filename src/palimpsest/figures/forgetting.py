"""Figures of selective forgetting: recall of what was forgotten and of what was kept, and attacks.

Both read the table of :func:`palimpsest.evaluation.forgetting.summarize_forgetting`, with a column ``method``.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from palimpsest.figures.style import BLUE, GREY, ORANGE, canvas

STATE_COLOURS = {"before forgetting": GREY, "after forgetting": BLUE, "never seen": ORANGE}
GROUPS = {"forgotten": "Forgotten facts: should be as never seen", "kept": "Kept facts: should be as before"}
RECALL = "own prompt"  # the family that is no attack


def forgetting(table: pd.DataFrame) -> Figure:
    """Share of facts said to their own prompt against how many were forgotten: a row of panels a method."""
    table = table[(table["family"] == RECALL) & (table["protocol"] == "exact")]
    methods, counts = list(dict.fromkeys(table["method"])), sorted(set(table["forgotten"]))
    with canvas(len(methods), 2, width=9.0, height=0.9 + 2.5 * len(methods)) as (figure, panels):
        cells = [(method, group) for method in methods for group in GROUPS]
        for place, (axes, (method, group)) in enumerate(zip(panels, cells, strict=True)):
            chosen = table[(table["method"] == method) & (table["group"] == group)]
            for number, (state, colour) in enumerate(STATE_COLOURS.items()):
                rows = chosen[chosen["state"] == state].set_index("forgotten").reindex(counts)
                errors = [rows["value"] - rows["low"], rows["high"] - rows["value"]]
                places = np.arange(len(counts)) + (number - 1) * 0.27
                axes.bar(places, rows["value"], 0.25, yerr=errors, capsize=3, color=colour, label=state)
            axes.set_xticks(np.arange(len(counts)), [f"{count:,}" for count in counts])
            axes.yaxis.set_major_formatter(PercentFormatter(1))
            axes.grid(axis="x", visible=False)
            axes.set_ylim(0, 1.05)
            axes.set_title(GROUPS[group] if place < 2 else "", fontsize=10)
            axes.set_ylabel(f"{method}\nfacts said" if group == "forgotten" else "")
            axes.set_xlabel("facts forgotten at once" if method == methods[-1] else "")
        figure.suptitle(
            "Some facts are forgotten, the others kept: what is said of both", x=0.01, ha="left", fontsize=11
        )
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9)
        return figure


def leakage(table: pd.DataFrame) -> Figure:
    """How often each family of attacks brings a forgotten answer out: a panel a method, a row of points a family.

    Of the numbers forgotten at once it shows the largest.
    """
    count = int(table["forgotten"].max())
    table = table[(table["forgotten"] == count) & (table["group"] == "forgotten") & (table["protocol"] == "leaked")]
    methods, families = list(dict.fromkeys(table["method"])), list(dict.fromkeys(table["family"]))
    heights = np.arange(len(families))[::-1]
    with canvas(1, len(methods), width=2.6 + 3.4 * len(methods), height=1.4 + 0.45 * len(families)) as (figure, panels):
        for axes, method in zip(panels, methods, strict=True):
            chosen = table[table["method"] == method]
            for (state, colour), shift in zip(STATE_COLOURS.items(), (0.22, 0, -0.22), strict=True):
                rows = chosen[chosen["state"] == state].set_index("family").reindex(families)
                errors = [rows["value"] - rows["low"], rows["high"] - rows["value"]]
                axes.errorbar(
                    rows["value"], heights + shift, xerr=errors, fmt="o", color=colour, capsize=3, label=state
                )
            axes.set_yticks(heights, families)
            axes.xaxis.set_major_formatter(PercentFormatter(1))
            axes.grid(axis="y", visible=False)
            axes.tick_params(labelleft=axes is panels[0], left=False)
            axes.set_xlim(-0.03, 1.05)
            axes.set_title(method, fontsize=10)
            axes.set_xlabel("attempts that bring the answer out")
        figure.suptitle(
            f"Attacks on {count:,} forgotten facts: no more should come out than if never seen",
            x=0.01,
            ha="left",
            fontsize=11,
        )
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9)
        return figure
