"""Figures of the comparison show the numbers of their tables, of whatever methods there are."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.container import BarContainer, ErrorbarContainer

from palimpsest.evaluation import contradictions as evaluated
from palimpsest.evaluation import cost, drift, forgetting
from palimpsest.evaluation.comparison import EVERY_RUN, GENERATED
from palimpsest.evaluation.editing_runs import AFTER_EDIT, AFTER_LAST
from palimpsest.figures import editors, editors_aftermath, editors_cost, methods, units

MEASURES = [*editors.MEASURES, ("edit", "token_accuracy")]
VALUES = {"none": 0.1, "mine": 0.4, "rome": 0.6, "memllm": 0.9}
ORDER = ["memllm", "rome", "mine", "none"]  # one that nobody knows comes after those that are known


def with_bounds(rows: list[tuple], *columns: str) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=[*columns, "value"])
    return table.assign(low=table["value"] - 0.1, high=table["value"] + 0.05, n=1)


def results(phases: tuple[str, ...] = (AFTER_LAST,), counts: tuple[int, ...] = (1,)) -> pd.DataFrame:
    rows = [
        (method, *measure, phase, count, value + (phase == AFTER_EDIT) * 0.05 - math.log10(count) / 100)
        for method, value in VALUES.items()
        for measure in MEASURES
        for phase in phases
        for count in counts
        if (method, count) != ("rome", 1000)
    ]
    table = with_bounds(rows, "method", "metric", "protocol", "phase", "edits")
    return table.assign(run="all", setting="sequence", dataset="zsre")


def rows_of(axes) -> list[str]:
    """Labels of the rows, from above."""
    pairs = zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
    return [label.get_text() for _, label in sorted(pairs, key=lambda pair: -pair[0])]


def drawn(axes) -> list[tuple[float, float]]:
    """Where points with intervals are."""
    found = [container for container in axes.containers if isinstance(container, ErrorbarContainer)]
    return [tuple(point) for container in found if container.lines[0] for point in container.lines[0].get_xydata()]


def test_names_are_those_of_the_evaluation() -> None:
    assert dict(zip(editors.CORNERS.values(), editors.CORNERS, strict=True)).items() < GENERATED.items()
    assert GENERATED["score"] == editors.SCORE
    assert (editors.AFTER_EDIT, editors.AFTER_LAST) == (AFTER_EDIT, AFTER_LAST)
    assert editors.EVERY_RUN == EVERY_RUN
    assert set(editors_aftermath.DRIFT) == {drift.PERPLEXITY, drift.DIVERGENCE, drift.FLUENCY}
    assert tuple(editors_aftermath.OUTCOMES) == evaluated.OUTCOMES
    assert editors_aftermath.ASKED == evaluated.PLACES
    assert list(editors_aftermath.GROUPS) == [forgetting.FORGOTTEN, forgetting.KEPT]
    assert set(editors_cost.COSTS) == {cost.EDIT, cost.ANSWER, cost.ADDED, cost.PEAK}
    assert list(editors_cost.PARTS) == [cost.ENCODING, cost.MEMORY, cost.DECODING]


def test_methods_are_ordered_and_named_whether_known_or_not() -> None:
    assert methods.ordered(["none", "mine", "rome", "memllm", "rome"]) == ORDER
    assert methods.method("mine").label == "mine"
    assert methods.method("mine").home == methods.OTHER


def test_triangles_have_their_corners_at_the_values_and_the_best_comes_first() -> None:
    figure = editors.triangles(results())
    legend, *panels = figure.axes
    assert [text.get_text() for text in legend.texts[:3]] == ["reliability", "generalization", "locality"]
    titles = [axes.get_title(loc="center").strip() for axes in panels[: len(ORDER)]]
    assert titles == [methods.method(name).label for name in ORDER]
    corners = panels[0].patches[-1].get_xy()[:3]
    np.testing.assert_allclose(np.hypot(*corners.T), 0.9)
    assert corners[0] == pytest.approx([0, 0.9])
    assert panels[0].texts[0].get_text() == "90%"


def test_protocols_have_a_bar_each_and_moment() -> None:
    table = results((AFTER_EDIT, AFTER_LAST))
    figure = editors.protocols(table[table["method"] == "rome"], 1)
    bars = [container for container in figure.axes[0].containers if isinstance(container, BarContainer)]
    assert [bar[0].get_height() for bar in bars] == pytest.approx([0.65, 0.6] * 3)
    assert "ROME, 1 edits" in figure.axes[0].get_title(loc="left")


def test_lines_end_where_a_method_was_not_run() -> None:
    table = results(counts=(1, 1000))
    single_run = table[table["method"] == "memllm"].assign(run="0", value=0.2)
    figure = editors.against_edits(pd.concat([table, single_run]))
    lines = [container.lines[0] for container in figure.axes[1].containers]
    assert [len(line.get_xdata()) for line in lines] == [2, 1, 2, 2]
    assert list(lines[0].get_ydata()) == pytest.approx([0.9, 0.87])
    small = [line.get_ydata().tolist() for line in figure.axes[1].lines if line.get_marker() == "."]
    assert small == [[0.2, 0.2], [], [], []]
    assert [text.get_text() for text in figure.axes[-1].get_legend().get_texts()] == [
        "MemLLM",
        "ROME",
        "mine",
        "no edit",
    ]


def test_what_is_retained_has_a_ring_and_a_point_in_each_row() -> None:
    figure = editors.retained(results((AFTER_EDIT, AFTER_LAST)), 1)
    assert rows_of(figure.axes[0]) == ["MemLLM", "ROME", "mine", "no edit"]
    points = drawn(figure.axes[0])
    assert points[0] == pytest.approx((0.95, 3))
    assert points[len(ORDER)] == pytest.approx((0.9, 3))
    figure.draw_without_rendering()


def test_drift_shows_small_distances_at_the_edge() -> None:
    rows = [(method, measure, value) for method, value in VALUES.items() for measure in editors_aftermath.DRIFT]
    table = with_bounds(rows, "method", "measure")
    table.loc[table["method"] == "none", ["value", "low", "high"]] = 0.0
    figure = editors_aftermath.drift(table, 10)
    assert drawn(figure.axes[1])[-1] == (editors_aftermath.LEAST, 0)
    assert drawn(figure.axes[2])[0] == pytest.approx((0.9, 3))
    figure.draw_without_rendering()


@pytest.mark.parametrize("ways", [1, 5])
def test_contradictions_stack_up_to_all(ways: int) -> None:
    asked = [("in the same words", "first"), ("in the same words", "third")]
    asked += [("in other words", place) for place in editors_aftermath.ASKED]
    rows = [
        (method, *way, outcome, share)
        for method in VALUES
        for way in asked[:ways]
        for outcome, share in zip(editors_aftermath.OUTCOMES, (0.5, 0.25, 0.25, 0.0), strict=True)
    ]
    figure = editors_aftermath.contradictions(with_bounds(rows, "method", "wording", "asked", "says"))
    bars = [container for container in figure.axes[0].containers if isinstance(container, BarContainer)]
    assert [bar[0].get_x() for bar in bars] == [0, 0.5, 0.75, 1]
    assert "in the words of the earlier edit" in figure.axes[0].get_title(loc="left")
    figure.draw_without_rendering()


def test_forgetting_and_leakage_show_the_most_forgotten_at_once() -> None:
    states = {"before forgetting": 0.9, "after forgetting": 0.3, "never seen": 0.2}
    rows = [
        (method, count, group, family, state, "exact", value + count / 100)
        for method in ("memllm", "mine")
        for count in (1, 10)
        for group in ("forgotten", "kept")
        for family in ("own prompt", "question")
        for state, value in states.items()
    ]
    table = with_bounds(rows, "method", "forgotten", "group", "family", "state", "protocol")
    figure = editors_aftermath.forgetting(table)
    assert "10 facts" in figure.get_suptitle()
    forgotten, kept = ([x for x, _ in drawn(axes)] for axes in figure.axes)
    assert forgotten == pytest.approx([0.3, 0.3, 0.4, 0.4])
    assert kept == pytest.approx([1.0, 1.0, 0.4, 0.4])
    leaked = [
        (method, count, family, count / 100) for method, count, _, family, state, *_ in rows if state == "never seen"
    ]
    leaked = [row for row in dict.fromkeys(leaked) if row[0] == "mine"]
    figure = editors_aftermath.leakage(with_bounds(leaked, "method", "forgotten", "family"))
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["mine"]
    assert [x for x, _ in drawn(figure.axes[0])] == pytest.approx([0.1, 0.1])
    figure.draw_without_rendering()


def costs() -> pd.DataFrame:
    measures = [*editors_cost.COSTS, *editors_cost.PARTS]
    rows = [(method, measure, 0.2 * value) for method, value in VALUES.items() for measure in measures]
    return with_bounds(rows, "method", "measure").assign(low=0.01, high=0.3)


def test_costs_and_parts_show_seconds() -> None:
    figure = editors_cost.costs(costs())
    np.testing.assert_allclose(drawn(figure.axes[0]), [(0.18, 3), (0.12, 2), (0.08, 1)])  # no edit takes no time
    assert drawn(figure.axes[2])[-1] == pytest.approx((0.02, 0))  # of no edit too, by which it is reckoned
    figure.draw_without_rendering()
    figure = editors_cost.parts(costs())
    widths = [container[0].get_width() for container in figure.axes[0].containers]
    assert widths == pytest.approx([180, 180, 180])


def test_speed_stands_against_quality() -> None:
    table = pd.DataFrame({"method": ["memllm", "mine"], "seconds": [0.01, 2.0], "quality": [0.9, 0.4]})
    bounds = {f"{name}_{end}": table[name] for name in ("seconds", "quality") for end in ("low", "high")}
    figure = editors_cost.speed_against_quality(table.assign(**bounds))
    assert drawn(figure.axes[0]) == [(0.01, 0.9), (2.0, 0.4)]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["MemLLM", "mine"]


def test_the_overview_says_what_each_method_does_and_what_it_cannot() -> None:
    rows = [(method, "says", value, "share") for method, value in VALUES.items()]
    rows += [("memllm", "forgets", 1.0, "share"), ("rome", "forgets", math.nan, "share")]
    rows += [("memllm", "takes", 0.02, "seconds"), ("rome", "takes", 2.0, "seconds")]
    figure = editors_cost.overview(pd.DataFrame(rows, columns=["method", "column", "value", "unit"]))
    (axes,) = figure.axes
    assert rows_of(axes) == ["MemLLM", "mine", "ROME", "no edit"]  # what one cannot counts as nothing
    texts = {(round(text.get_position()[0]), text.get_position()[1]): text.get_text() for text in axes.texts}
    assert texts[0, 3] == "90%"
    assert texts[1, 1] == "cannot"
    assert (texts[2, 3], texts[2, 1]) == ("20 ms", "2 s")
    assert (1, 0) not in texts  # not measured
    sizes = [dots.get_sizes()[0] for dots in axes.collections]
    assert sizes[-2] == max(sizes) == sizes[4]  # the fastest, and what is wholly forgotten
    assert to_hex(axes.get_yticklabels()[0].get_color()).upper() == methods.method("memllm").colour
    figure.draw_without_rendering()


@pytest.mark.parametrize(
    ("number", "read", "text"),
    [
        (2.0, units.duration, "2 s"),
        (0.0123, units.duration, "12 ms"),
        (1.23e-3, units.duration, "1.2 ms"),
        (0.0, units.duration, "0"),
        (1.5e6, units.size, "1.5 MB"),
        (999.0, units.size, "999 B"),
    ],
)
def test_amounts_are_readable(number: float, read, text: str) -> None:
    assert read(number) == text
