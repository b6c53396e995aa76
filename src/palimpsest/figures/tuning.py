"""Figures of the search for the editors' settings."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from palimpsest.figures.style import BLUE, GREY, ORANGE, canvas

STATES = {"hidden": ("what the whole layer returns", BLUE), "mlp": ("what its MLP returns", ORANGE)}


def trials(table: pd.DataFrame) -> Figure:
    """The score of every trial, a row a method; the best one of each, which is chosen, stands out.

    Args:
        table: as :func:`palimpsest.evaluation.tuning.trial_table` makes it.
    """
    methods = list(dict.fromkeys(table["method"]))
    place = table["method"].map({method: -number for number, method in enumerate(methods)})
    groups = {"tried": (table["failed"] == "") & ~table["chosen"], "broke the model": table["failed"] != ""}
    groups["chosen"] = table["chosen"]
    looks = {"tried": ("o", GREY, 26), "broke the model": ("x", GREY, 30), "chosen": ("D", ORANGE, 52)}
    with canvas(height=1.1 + 0.36 * len(methods)) as (figure, (axes,)):
        for name, rows in groups.items():
            marker, colour, size = looks[name]
            edge = None if marker == "x" else "white"
            scores = table["score"][rows]
            axes.scatter(scores, place[rows], size, colour, marker=marker, label=name, zorder=3, edgecolors=edge)
        axes.set_yticks([-number for number in range(len(methods))], methods)
        axes.set_xlim(-0.03, 1.03)
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.set_xlabel("harmonic mean of reliability, generalization and locality on dev")
        count = int(table.groupby("method").size().max())
        axes.set_title(f"Each point is one choice of a method's settings, {count} for each method")
        handles, labels = axes.get_legend_handles_labels()
        kept = [number for number, rows in enumerate(groups.values()) if rows.any()]
        names = [labels[number] for number in kept]
        figure.legend([handles[number] for number in kept], names, loc="outside lower center", ncols=3, fontsize=9)
        return figure


def traced(table: pd.DataFrame) -> Figure:
    """Causal tracing: how much of an answer's probability each layer's state brings back, with 95 % of the mean.

    Args:
        table: as :func:`palimpsest.editors.tracing.trace` makes it.
    """
    facts = table["case_id"].nunique()
    with canvas() as (figure, (axes,)):
        for kind, (label, colour) in STATES.items():
            effects = table[table["kind"] == kind].groupby("layer")["indirect_effect"]
            mean: pd.Series = effects.mean()
            error: pd.Series = 1.96 * effects.std() / np.sqrt(effects.size())
            axes.errorbar(mean.index, mean, yerr=error, fmt="o-", capsize=3, color=colour, label=label)
        whole = table.groupby("case_id")["total_effect"].first().mean()
        axes.axhline(whole, color=GREY, linestyle=":", label="all that the noise took away")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(0, None)
        axes.set_xlabel("layer")
        axes.set_ylabel("probability brought back")
        axes.set_title(f"One state at the subject's last token is put back ({facts} facts that the model knows)")
        figure.legend(loc="outside lower center", ncols=3, fontsize=9)
        return figure
