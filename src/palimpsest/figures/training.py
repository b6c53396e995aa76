"""The figure of a training run."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from palimpsest.figures.style import BLUE, ORANGE, canvas


def training_curve(history: pd.DataFrame) -> Figure:
    """Loss against tokens."""
    with canvas() as (figure, (axes,)):
        axes.plot(
            history["tokens"] / 1e6, history["loss"], color=BLUE, label="training text (mean since the last point)"
        )
        dev = history.dropna(subset="dev_loss")
        axes.plot(dev["tokens"] / 1e6, dev["dev_loss"], "o-", color=ORANGE, label="unread text")
        axes.set(
            xlabel="million tokens read", ylabel="loss (nats a token)", title="Training of the base language model"
        )
        axes.legend()
        return figure
