"""Figures of the search show the numbers of their tables."""

from __future__ import annotations

import pandas as pd
import pytest
from matplotlib.container import ErrorbarContainer

from palimpsest.figures import tuning

TRIALS = pd.DataFrame(
    [
        ("rome", 0.9, True, ""),
        ("rome", 0.2, False, ""),
        ("rome", 0.4, False, ""),
        ("ft", 0.0, False, "no place"),
        ("ft", 0.1, True, ""),
        ("ft", 0.05, False, ""),
    ],
    columns=["method", "score", "chosen", "failed"],
)


def points(name: str, table: pd.DataFrame) -> list[tuple[float, float]]:
    (axes,) = tuning.trials(table).axes
    (found,) = (group for group in axes.collections if group.get_label() == name)
    return [(x, y) for x, y in found.get_offsets().tolist()]


def test_each_trial_is_a_point_in_its_methods_row() -> None:
    assert points("chosen", TRIALS) == [(0.9, 0), (0.1, -1)]
    assert points("tried", TRIALS) == [(0.2, 0), (0.4, 0), (0.05, -1)]
    assert points("broke the model", TRIALS) == [(0, -1)]
    figure = tuning.trials(TRIALS)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["rome", "ft"]
    assert "3 for each method" in figure.axes[0].get_title(loc="left")


def test_the_legend_names_only_what_there_is() -> None:
    def named(table: pd.DataFrame) -> list[str]:
        return [text.get_text() for text in tuning.trials(table).legends[0].get_texts()]

    assert named(TRIALS) == ["tried", "broke the model", "chosen"]
    assert named(TRIALS[TRIALS["failed"] == ""]) == ["tried", "chosen"]


def test_tracing_averages_over_facts_by_layer() -> None:
    rows = [
        (case, kind, layer, effect * (1 if kind == "hidden" else 0.5), 0.8)
        for case, effects in (("a", (0.6, 0.1)), ("b", (0.4, 0.1)))
        for kind in ("hidden", "mlp")
        for layer, effect in enumerate(effects)
    ]
    columns = ["case_id", "kind", "layer", "indirect_effect", "total_effect"]
    (axes,) = tuning.traced(pd.DataFrame(rows, columns=columns)).axes
    bars = [container for container in axes.containers if isinstance(container, ErrorbarContainer)]
    assert [container.lines[0].get_ydata().tolist() for container in bars] == [[0.5, 0.1], [0.25, 0.05]]
    spread = 1.96 * 0.1 / 2**0.5 * 2**0.5  # of 0.4 and 0.6, whose standard deviation is 0.1 √2
    lower, upper = (line[1] for line in bars[0].lines[2][0].get_segments()[0])
    assert (upper - lower) / 2 == pytest.approx(spread)
    assert [line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == ":"] == [0.8]
