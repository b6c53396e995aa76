"""Figures of the data: which relations, how long the documents."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from palimpsest.figures.style import BLUE, canvas

MOST = 30  # relations shown


def relation_frequencies(counts: pd.DataFrame) -> Figure:
    """Facts by relation type, all splits together, the most frequent first."""
    totals = counts.groupby(["relation", "label"])["count"].sum().sort_values(ascending=False).head(MOST)[::-1]
    with canvas(height=0.8 + 0.2 * len(totals)) as (figure, (axes,)):
        axes.barh([f"{label} ({pid})" for pid, label in totals.index], totals.to_numpy(), color=BLUE)
        axes.set(xlabel="facts stated in the annotated documents", title="Relation types")
        axes.grid(axis="y", visible=False)
        return figure


def document_sizes(sizes: pd.DataFrame) -> Figure:
    """How long documents are and how much they mention and state, as shares of each split."""
    measures = ["words", "sentences", "mentions", "facts"]
    with canvas(2, 2, height=5) as (figure, panels):
        for axes, measure in zip(panels, measures, strict=True):
            for split, group in sizes[sizes["measure"] == measure].groupby("split", sort=False):
                values, weights = group["value"].to_numpy(), group["count"].to_numpy()
                cumulative = np.cumsum(weights) / weights.sum()
                axes.step(values, cumulative, where="post", label=f"{split} ({weights.sum():,})")
            axes.set(xlabel=f"{measure} a document", ylabel="share of documents", ylim=(0, 1.02))
        panels[0].legend(title="split (documents)", fontsize=8)
        figure.suptitle("Document sizes: the share of documents with at most so many", x=0.01, ha="left", fontsize=11)
        return figure
