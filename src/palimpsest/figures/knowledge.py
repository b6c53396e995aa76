"""Figures of what a language model knows: recall of facts, perplexity on documents."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from palimpsest.figures.style import BLUE, GREY, ORANGE, canvas

TEMPLATE_NAMES = {"train": "wording seen in training", "heldout": "held-out wording"}
SPLIT_NAMES = {"train": "entities of the training text", "test": "entities unknown to the model"}
CLASS_NAMES = {"all": "all tokens", "entity": "entity mentions", "target": "target mentions"}


def recall_by_mentions(curve: pd.DataFrame, chance: float) -> Figure:
    """Share of facts recalled against how many chunks of the training text name subject and object together."""
    with canvas() as (figure, (axes,)):
        for (template, group), colour in zip(curve.groupby("template", sort=False), (BLUE, ORANGE), strict=False):
            places = np.arange(len(group))
            errors = [group["value"] - group["low"], group["high"] - group["value"]]
            axes.errorbar(
                places, group["value"], errors, fmt="o-", color=colour, capsize=3, label=TEMPLATE_NAMES[str(template)]
            )
        first = curve.drop_duplicates("stated")
        axes.set_xticks(np.arange(len(first)), first["stated"])
        axes.axhline(chance, color=GREY, linestyle=":", label="commonest answer of the relation")
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.set(
            xlabel="chunks of the training text that name both subject and object",
            ylabel="facts recalled",
            ylim=(-0.03, 1.05),
            title="What is told often is known, what is told once is not",
        )
        axes.legend(loc="upper left")
        return figure


def perplexity_bars(table: pd.DataFrame) -> Figure:
    """Perplexity by class of tokens, for known and for unknown entities."""
    with canvas(height=3.2) as (figure, (axes,)):
        splits = list(dict.fromkeys(table["split"]))
        # Real documents are not sorted by what the model has read of their entities: there is the test split alone.
        names = SPLIT_NAMES if len(splits) > 1 else {"test": "test documents"}
        classes = [name for name in CLASS_NAMES if name in set(table["tokens"])]
        width = 0.8 / len(splits)
        for number, (split, colour) in enumerate(zip(splits, (BLUE, ORANGE), strict=False)):
            rows = table[table["split"] == split].set_index("tokens").loc[classes]
            places = np.arange(len(classes)) + (number - (len(splits) - 1) / 2) * width
            errors = [rows["value"] - rows["low"], rows["high"] - rows["value"]]
            axes.bar(places, rows["value"], width * 0.95, yerr=errors, capsize=3, color=colour, label=names[split])
            for place, value, top in zip(places, rows["value"], rows["high"], strict=True):
                axes.annotate(
                    f"{value:,.0f}" if value >= 100 else f"{value:.3g}",
                    (place, top),
                    (0, 3),
                    textcoords="offset points",
                    ha="center",
                    fontsize=8,
                )
        axes.set_yscale("log")
        axes.set_ylim(bottom=1)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.set_xticks(np.arange(len(classes)), [CLASS_NAMES[name] for name in classes])
        axes.grid(axis="x", visible=False)
        axes.set(ylabel="perplexity (log scale)", title="Perplexity of the base language model on unread documents")
        axes.legend()
        return figure
