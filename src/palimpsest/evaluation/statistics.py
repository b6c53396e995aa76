"""Averages with their 95 % confidence intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

LEVEL = 0.95
Z = 1.959963984540054  # of a standard normal variable so much lies within ±Z
RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure, the bounds of its 95 % confidence interval, and how many observations it rests on."""

    value: float
    low: float
    high: float
    n: int


def share(outcomes: ArrayLike, clusters: ArrayLike | None = None) -> Interval:
    """The share of successes, with Wilson's score interval, which is sound at 0 % and 100 % too.

    Args:
        outcomes: whether each trial succeeded, (N,).
        clusters: what each trial is about, (N,). Trials of one cluster (two wordings of one question) are not
            independent, so ``n`` then counts clusters: the interval is wide enough even if they agree entirely.

    Raises:
        ValueError: there are no trials.
    """
    outcomes = np.asarray(outcomes, float)
    n = len(outcomes) if clusters is None else len(set(np.asarray(clusters).tolist()))
    if n == 0:
        raise ValueError("a share of nothing: there are no trials")
    p, z = float(outcomes.mean()), Z
    center = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * float(np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)))
    return Interval(p, max(0.0, min(p, center - half)), min(1.0, max(p, center + half)), n)  # p within, to the last bit


def ratio(
    totals: ArrayLike, counts: ArrayLike, transform: Callable[[NDArray], NDArray] = lambda x: x, seed: int = 0
) -> Interval:
    """``transform(sum(totals) / sum(counts))`` over clusters, with a bootstrap interval.

    The clusters (documents, subjects) are resampled, not their members, since members of one cluster depend on one
    another. With ``transform=np.exp`` and losses in nats as totals this is a perplexity.

    Args:
        totals: the sum over each cluster's members, (N,); counts: how many members each has, (N,).

    Raises:
        ValueError: no cluster has any member.
    """
    totals, counts = np.asarray(totals, float), np.asarray(counts, float)
    if not counts.sum():
        raise ValueError("a ratio over nothing: all counts are zero")
    totals, counts = totals[counts > 0], counts[counts > 0]
    draws = np.random.default_rng(seed).integers(len(counts), size=(RESAMPLES, len(counts)))
    resampled = transform(totals[draws].sum(1) / counts[draws].sum(1))
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    value = transform(np.asarray(totals.sum() / counts.sum()))
    return Interval(float(value), float(low), float(high), int(counts.sum()))


def interval_table(figures: Mapping[str, Interval]) -> pd.DataFrame:
    """Figures with their intervals, a row each, to show in a notebook."""
    return pd.DataFrame([asdict(figure) for figure in figures.values()], index=list(figures))
