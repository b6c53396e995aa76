"""The figures of the memory's speed show the numbers of the benchmark's tables."""

import pandas as pd
import pytest

from palimpsest.figures import memory

SPEED = pd.DataFrame(
    [
        ("ours", 768, 1000, "insert", "", "per_second", 30_000.0),
        ("ours", 768, 100, "insert", "", "per_second", 20_000.0),
        ("official", 768, 100, "insert", "", "per_second", 9_000.0),
        ("ours", 384, 100, "insert", "", "per_second", 1.0),
        ("ours", 768, 1000, "query", "language modelling", "p50_ms", 0.4),
        ("ours", 768, 100, "query", "language modelling", "p50_ms", 0.3),
        ("ours", 768, 100, "query", "language modelling", "p99_ms", 0.9),
        ("ours", 768, 100, "query", "editing", "p50_ms", 7.0),
        ("official", 768, 100, "query", "language modelling", "p50_ms", 2.0),
    ],
    columns=["method", "dimension", "triples", "operation", "thresholds", "metric", "value"],
).assign(n=5)


def test_speed_lines_are_the_longest_vectors_in_order_of_size() -> None:
    asking, storing = memory.speed_by_size(SPEED).axes
    lines = {str(line.get_label()): line.get_xydata().tolist() for line in asking.lines}
    assert lines["this repository, on disk: median"] == [[100, 0.3], [1000, 0.4]]
    assert lines["this repository, on disk: 99 of 100 are faster"] == [[100, 0.9]]
    assert lines["official design, in RAM: median"] == [[100, 2.0]]
    ours, official = storing.lines
    assert ours.get_xydata().tolist() == [[100, 20_000], [1000, 30_000]]
    assert official.get_xydata().tolist() == [[100, 9_000]]


def test_index_bars_are_the_table_from_above_with_ours_in_colour() -> None:
    table = pd.DataFrame(
        [
            ("palimpsest: cells", 384, 9.0, 9.0, 9.0, 0.9),
            ("palimpsest: cells", 768, 2.0, 0.5, 1500.0, 0.99),
            ("hnswlib: graph", 768, 30.0, 2.0, 3000.0, 1.0),
        ],
        columns=["index", "dimension", "build_seconds", "p50_ms", "bytes_per_vector", "recall_within_0.15"],
    ).assign(vectors=60_000)
    figure = memory.index_choice(table)
    widths = [[bar.get_width() for bar in axes.patches] for axes in figure.axes]
    assert widths[:3] == [[30.0, 2.0], [2.0, 0.5], [3000.0, 1500.0]]
    assert widths[3] == pytest.approx([0, 0.01])
    first = figure.axes[0]
    assert [label.get_text() for label in first.get_yticklabels()] == ["hnswlib: graph", "palimpsest: cells"]
    theirs, ours = (bar.get_facecolor() for bar in first.patches)
    assert theirs != ours
    assert "60,000" in figure.get_suptitle()
