"""Intervals against textbook numbers and simulation."""

import numpy as np
import pytest
from scipy.stats import binomtest

from palimpsest.evaluation.statistics import ratio, share


@pytest.mark.parametrize(("k", "n"), [(0, 10), (10, 10), (3, 7), (450, 500)])
def test_share_is_wilsons(k: int, n: int) -> None:
    found = share([True] * k + [False] * (n - k))
    expected = binomtest(k, n).proportion_ci(method="wilson")
    assert (found.value, found.n) == (k / n, n)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_share_counts_clusters_once() -> None:
    doubled = share([True, True, False, False], clusters=["a", "a", "b", "b"])
    assert doubled == share([True, False])


def test_ratio_is_a_perplexity_and_covers_the_truth() -> None:
    assert ratio([2 * np.log(4), 2 * np.log(4)], [2, 2], np.exp).value == pytest.approx(4)
    rng, hits = np.random.default_rng(0), 0
    for seed in range(200):
        counts = rng.integers(1, 20, 60)
        totals = np.array([rng.normal(1.0, 0.5) * n for n in counts])
        interval = ratio(totals, counts, seed=seed)
        hits += interval.low <= 1.0 <= interval.high
    assert 0.88 <= hits / 200 <= 0.99


def test_ratio_ignores_empty_clusters() -> None:
    assert ratio([1.0, 0.0, 3.0], [1, 0, 3]).n == 4
    assert ratio([1.0, 0.0, 3.0], [1, 0, 3]) == ratio([1.0, 3.0], [1, 3])


def test_nothing_has_no_average() -> None:
    with pytest.raises(ValueError, match="no trials"):
        share([])
    with pytest.raises(ValueError, match="all counts are zero"):
        ratio([0.0], [0])
