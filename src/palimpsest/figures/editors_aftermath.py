"""Figures of what editing does besides: drift, contradictions, and what is left of what was forgotten.

All tables have a column ``method``.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from palimpsest.figures.forgetting import RECALL
from palimpsest.figures.methods import legend_of_homes, magnitudes, method, ordered, points, rows, shares
from palimpsest.figures.style import BLUE, GREY, ORANGE, SKY, canvas

DRIFT = {
    "perplexity ratio": "Perplexity of other text,\nmultiple of the unedited model's",
    "divergence": "Distance from the unedited\nmodel (KL, nats a token)",
    "fluency": "Fluency: entropy of what\nit writes (bits)",
}
LOGARITHMIC = ("perplexity ratio", "divergence")
LEAST = 1e-4  # nats a token below which distances are drawn as this one
OUTCOMES = {"later edit": BLUE, "earlier edit": ORANGE, "before any edit": SKY, "something else": "#CCCCCC"}
ASKED = {"first": "in the words of the earlier edit", "second": "in those of the later", "third": "in yet others"}
GROUPS = {
    "forgotten": ("Forgotten facts said", "after forgetting", "never seen"),
    "kept": ("Kept facts said", "after forgetting", "before forgetting"),
}


def drift(table: pd.DataFrame, edits: int) -> Figure:
    """How far edits have moved the rest of the model: a row a method, a panel a measure.

    Args:
        table: columns ``measure``, ``value``, ``low``, ``high``; a row a method and measure. The one without any edit,
            if it is there, is a line to compare with.
    """
    names = ordered(table["method"])
    with canvas(1, len(DRIFT), width=9.5, height=1.4 + 0.27 * len(names)) as (figure, panels):
        for axes, (measure, title) in zip(panels, DRIFT.items(), strict=True):
            chosen = table[table["measure"] == measure]
            if measure in LOGARITHMIC:
                chosen = chosen.assign(**{name: chosen[name].clip(lower=LEAST) for name in ("value", "low", "high")})
            points(axes, chosen, rows(axes, names), names)
            if measure in LOGARITHMIC:
                magnitudes(axes, chosen["value"])
            for value in chosen.loc[chosen["method"] == "none", "value"]:
                axes.axvline(value, color=GREY, linestyle=":", linewidth=1, zorder=0)
            axes.tick_params(labelleft=axes is panels[0])
            axes.set_title(title, fontsize=10)
        figure.suptitle(f"What {edits:,} edits do to the rest of the language model", x=0.01, ha="left", fontsize=11)
        legend_of_homes(figure, names)
        return figure


def contradictions(table: pd.DataFrame) -> Figure:
    """What is said of facts that were edited twice: a row a method, a panel a wording and way of asking.

    Args:
        table: columns ``wording``, ``asked``, ``says``, ``value``, ``low``, ``high``. The bar at the end of the later
            edit's share is its interval.
    """
    names = ordered(table["method"])
    ways = list(dict.fromkeys(zip(table["wording"], table["asked"], strict=True)))
    across = min(3, len(ways))
    lines = -(-len(ways) // across)
    with canvas(lines, across, width=10, height=0.9 + lines * (0.7 + 0.23 * len(names))) as (figure, panels):
        for axes in panels[len(ways) :]:
            axes.axis("off")
        for place, (axes, (wording, asked)) in enumerate(zip(panels, ways, strict=False)):
            heights = rows(axes, names)
            chosen = table[(table["wording"] == wording) & (table["asked"] == asked)]
            wide = chosen.pivot(index="method", columns="says", values="value").reindex(names)
            left = np.zeros(len(names))
            for outcome, colour in OUTCOMES.items():
                values = wide[outcome].to_numpy() if outcome in wide else np.zeros(len(names))
                axes.barh(heights, values, 0.75, left=left, color=colour, label=outcome)
                left += np.nan_to_num(values)
            later = chosen[chosen["says"] == "later edit"].set_index("method").reindex(names)
            errors = [later["value"] - later["low"], later["high"] - later["value"]]
            axes.errorbar(later["value"], heights, xerr=errors, fmt="none", color="black", elinewidth=0.9, capsize=1.5)
            axes.tick_params(labelleft=place % across == 0)
            shares(axes, left=0, right=1)
            axes.set_title(f"Edited again {wording},\nasked {ASKED[asked]}", fontsize=9)
        figure.suptitle("Two edits contradict one another: which answer is given?", x=0.01, ha="left", fontsize=11)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=9)
        return figure


def forgetting(table: pd.DataFrame) -> Figure:
    """What is said of forgotten and of kept facts to their own prompts: a row a method; rings are what to compare with.

    Args:
        table: of :func:`palimpsest.evaluation.forgetting.summarize_forgetting`. Of the numbers forgotten at once it
            shows the largest.
    """
    count = int(table["forgotten"].max())
    said = table[(table["forgotten"] == count) & (table["family"] == RECALL) & (table["protocol"] == "exact")]
    names = ordered(said["method"])
    with canvas(1, 2, width=8.5, height=1.6 + 0.33 * len(names)) as (figure, panels):
        for axes, (group, (title, after, beside)) in zip(panels, GROUPS.items(), strict=True):
            heights = rows(axes, names)
            chosen = said[said["group"] == group]
            points(axes, chosen[chosen["state"] == beside], heights + 0.16, names, filled=False)
            points(axes, chosen[chosen["state"] == after], heights - 0.16, names)
            axes.tick_params(labelleft=axes is panels[0])
            shares(axes)
            axes.set_title(f"{title}\n(ring: {beside})", fontsize=10)
        figure.suptitle(
            f"{count:,} facts are forgotten at once: point and ring should meet", x=0.01, ha="left", fontsize=11
        )
        legend_of_homes(figure, names)
        return figure


def leakage(table: pd.DataFrame) -> Figure:
    """How much more of the forgotten comes out than if it had never been seen: a panel a method, a row a family.

    Args:
        table: of :func:`palimpsest.evaluation.forgetting.excess_leakage`. Of the numbers forgotten at once it shows the
            largest.
    """
    count = int(table["forgotten"].max())
    table = table[table["forgotten"] == count]
    names, families = ordered(table["method"]), list(dict.fromkeys(table["family"]))
    heights = np.arange(len(families))[::-1]
    with canvas(1, len(names), width=2.2 + 1.7 * len(names), height=1.4 + 0.3 * len(families)) as (figure, panels):
        for axes, name in zip(panels, names, strict=True):
            chosen = table[table["method"] == name].set_index("family").reindex(families)
            errors = [chosen["value"] - chosen["low"], chosen["high"] - chosen["value"]]
            axes.axvline(0, color=GREY, linewidth=1, zorder=0)
            axes.errorbar(
                chosen["value"], heights, xerr=errors, fmt="o", color=method(name).colour, markersize=5, capsize=2
            )
            axes.set_yticks(heights, families)
            axes.tick_params(labelleft=axes is panels[0], left=False)
            axes.grid(axis="y", visible=False)
            axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            axes.set_title(method(name).label, fontsize=9)
        reach = max(0.1, *(abs(bound) for axes in panels for bound in axes.get_xlim()))
        for axes in panels:
            axes.set_xlim(-reach, reach)
        figure.suptitle(
            f"Attacks on {count:,} forgotten facts: how much more comes out than if never seen",
            x=0.01,
            ha="left",
            fontsize=11,
        )
        return figure
