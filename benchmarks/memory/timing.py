"""Taking times fairly, and keeping what comes out."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.memory.cases import Case
from palimpsest.facts import Query, Triple

BATCH = 1000  # triples, or vectors, that are added together
TOGETHER = 64  # queries that are asked together

Found = TypeVar("Found")
Seconds = NDArray[np.float64]


@dataclass(slots=True)
class Report:
    """Figures by name, and rows of the table ``memory_speed``."""

    figures: dict[str, float] = field(default_factory=dict)
    rows: list[dict[str, object]] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)

    def spread(self, name: str, values: Sequence[float]) -> None:
        """A figure: the median of some repetitions, with the smallest and the largest."""
        self.figures |= {
            name: statistics.median(values),
            f"{name}.low": min(values),
            f"{name}.high": max(values),
            f"{name}.n": float(len(values)),
        }

    def row(self, method: str, case: Case, operation: str, thresholds: str, metric: str, value: float, n: int) -> None:
        labels = {"method": method, "dimension": case.dimension, "triples": len(case.triples)}
        labels |= {"operation": operation, "thresholds": thresholds, "metric": metric}
        self.rows.append(labels | {"value": shortened(value), "n": n})

    def latencies(self, method: str, case: Case, operation: str, thresholds: str, seconds: Seconds) -> None:
        """Rows with the percentiles of ``seconds`` (repetitions, queries): the median repetition's."""
        for metric, percent in (("p50_ms", 50), ("p99_ms", 99)):
            value = float(np.median(np.percentile(seconds, percent, axis=1))) * 1e3
            self.row(method, case, operation, thresholds, metric, value, seconds.size)

    def table(self) -> pd.DataFrame:
        return pd.DataFrame(self.rows)

    def say(self, text: str) -> None:
        print(f"  {time.perf_counter() - self.started:4.0f} s: {text}", flush=True)


def shortened(value: float) -> float:
    """A measured number with as many digits as it deserves: four."""
    return float(f"{value:.4g}")


def timed(do: Callable[..., Found], *arguments: object) -> tuple[float, Found]:
    """Seconds, and what came out."""
    started = time.perf_counter()
    found = do(*arguments)
    return time.perf_counter() - started, found


def fill(triples: Sequence[Triple], *adds: Callable[[Sequence[Triple]], object]) -> list[float]:
    """Seconds in which each memory takes all triples in batches.

    The memories take turns, so that a machine that becomes slower does so for all.
    """
    seconds = [0.0] * len(adds)
    for start in range(0, len(triples), BATCH):
        for place, add in enumerate(adds):
            seconds[place] += timed(add, triples[start : start + BATCH])[0]
    return seconds


def time_each(ask: Callable[[Query], object], queries: Sequence[Query]) -> Seconds:
    """Seconds for each query."""
    return np.array([timed(ask, query)[0] for query in queries])


def time_groups(ask: Callable[[Sequence[Query]], object], queries: Sequence[Query]) -> Seconds:
    """Seconds for each group of 64 queries; the last may be smaller."""
    return np.array([timed(ask, queries[start : start + TOGETHER])[0] for start in range(0, len(queries), TOGETHER)])


def alternate(repetitions: int, *measures: Callable[[], Seconds]) -> list[Seconds]:
    """All measures in turn, several times: for each an array (repetitions, ...)."""
    rounds = [[measure() for measure in measures] for _ in range(repetitions)]
    return [np.stack(column) for column in zip(*rounds, strict=True)]


def percentile_ratios(slow: Seconds, fast: Seconds, percent: float) -> list[float]:
    """By repetition, how many times longer a percentile of ``slow`` (R, N) is than the same of ``fast``."""
    return (np.percentile(slow, percent, axis=1) / np.percentile(fast, percent, axis=1)).tolist()
