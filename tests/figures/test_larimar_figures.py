"""Figures of Larimar's experiments show the numbers of their tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.container import ErrorbarContainer

from palimpsest.evaluation import ablations
from palimpsest.evaluation.capacity import BATCH, SEQUENCE, UNRELATED
from palimpsest.evaluation.prefixes import PREFIXED
from palimpsest.figures import larimar
from palimpsest.figures.style import BLUE, ORANGE


def table(rows: list[tuple], *columns: str) -> pd.DataFrame:
    """Rows with a value, and an interval from a tenth below it to a twentieth above."""
    frame = pd.DataFrame(rows, columns=[*columns, "value"])
    return frame.assign(low=frame["value"] - 0.1, high=frame["value"] + 0.05, n=9)


def lines(axes) -> dict[str, list[list[float]]]:
    """Points by colour."""
    drawn = [container.lines[0] for container in axes.containers if isinstance(container, ErrorbarContainer)]
    return {line.get_color(): line.get_xydata().tolist() for line in drawn}


def labels(axis) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


def test_names_are_those_of_the_evaluation() -> None:
    assert {BATCH, SEQUENCE} == set(larimar.MODES)
    assert UNRELATED in {kind for kind, _ in larimar.RETAINED}
    assert PREFIXED in {kind for kind, _ in larimar.SINGLE}
    assert larimar.READ == ablations.READ
    assert {ablations.MASKED, ablations.ZERO} == set(larimar.ABSENT)


def test_single_edits_have_a_bar_a_method_and_scope_in_each_measure() -> None:
    values = {("published", False): (0.9, 0.5), ("published", True): (0.8, 0.95), ("best", True): (0.7, 0.6)}
    rows = [
        (method, scope, kind, "success_mean", value)
        for (method, scope), pair in values.items()
        for kind, value in zip(("neighbor", "edit"), pair, strict=True)
    ]
    figure = larimar.single_edits(table([*rows, ("best", True, "edit", "token_accuracy", 0.1)], *COLUMNS))
    (axes,) = figure.axes
    bars = [container for container in axes.containers if not isinstance(container, ErrorbarContainer)]
    assert [[bar.get_height() for bar in container] for container in bars] == [[0.5, 0.9], [0.95, 0.8], [0.6, 0.7]]
    assert labels(axes.xaxis) == [larimar.SINGLE["edit", "success_mean"], larimar.SINGLE["neighbor", "success_mean"]]
    first, second, third = (to_hex(container[0].get_facecolor()).upper() for container in bars)
    assert (second, third) == (BLUE, ORANGE)
    assert sum(to_rgb(first)) > sum(to_rgb(second))  # paler
    segments = bars[0].errorbar.lines[2][0].get_segments()
    assert np.array(segments)[:, :, 1] == pytest.approx(np.array([[0.4, 0.55], [0.8, 0.95]]))
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["published, always read", "published, scope detected", "best, scope detected"]
    figure.draw_without_rendering()


COLUMNS = ("method", "scope", "kind", "protocol")


def test_retention_has_a_line_a_method_and_memory_in_each_panel() -> None:
    rows = [
        (mode, method, slots, edits, kind, protocol, round(edits / 100 + slots / 1000 + (mode == "batch"), 3))
        for mode in larimar.MODES
        for method in ("published", "best")
        for slots in (128, 512)
        for edits in (4, 1, 16)
        for kind, protocol in larimar.RETAINED
    ]
    columns = ("mode", "method", "slots", "edits", "kind", "protocol")
    figure = larimar.retention(table(rows, *columns), "sequence")
    assert [axes.get_title(loc="left") for axes in figure.axes] == list(larimar.RETAINED.values())
    for axes in figure.axes:
        drawn = lines(axes)
        assert len(drawn) == 4  # each in a colour of its own
        assert drawn[BLUE.lower()] == drawn[ORANGE.lower()] == [[1, 0.522], [4, 0.552], [16, 0.672]]
    figure.draw_without_rendering()
    assert labels(figure.axes[0].xaxis) == ["1", "4", "16"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "published",
        "best",
        "128 slots",
        "512 slots",
    ]
    one = larimar.retention(table(rows, *columns).query("slots == 128"), "batch")
    assert set(lines(one.axes[0])) == {BLUE.lower(), ORANGE.lower()}
    assert [text.get_text() for text in one.legends[0].get_texts()] == ["published", "best"]


def test_of_many_numbers_every_second_is_labelled_the_last_among_them() -> None:
    rows = [("batch", "best", 1, 2**power, "edit", "exact", 0.5) for power in range(13)]
    figure = larimar.retention(table(rows, "mode", "method", "slots", "edits", "kind", "protocol"), "batch")
    figure.draw_without_rendering()
    assert set(labels(figure.axes[1].xaxis)) == {"1", "4", "16", "64", "256", "1,024", "4,096"}


def test_wordings_written_along_have_a_panel_a_wording_asked() -> None:
    rows = [
        (method, prompts, kind, protocol, value + prompts / 10 + (kind == "edit") / 100)
        for method, value in (("published", 0.2), ("best", 0.5))
        for prompts in (0, 1, 2)
        for kind in ("edit", "paraphrase")
        for protocol in ("success_mean", "exact")
    ]
    figure = larimar.rephrased(table(rows, "method", "rephrased", "kind", "protocol"))
    edit, paraphrase = (lines(axes)[ORANGE] for axes in figure.axes)
    assert np.array(edit) == pytest.approx(np.array([[0, 0.51], [1, 0.61], [2, 0.71]]))
    assert np.array(paraphrase) == pytest.approx(np.array([[0, 0.5], [1, 0.6], [2, 0.7]]))
    assert [axes.get_title(loc="left") for axes in figure.axes] == list(larimar.WORDINGS.values())
    figure.draw_without_rendering()


def test_ablations_have_a_panel_each() -> None:
    methods = ("published", "best")
    noise = table([(m, x, 1 - x / 4) for m in methods for x in (0.0, 0.5, 2.0)], "method", "noise")
    slots = table([(m, x, 8, x / 64) for m in methods for x in (32, 8, 16)], "method", "slots", "edits")
    beside = table(
        [(m, n, s, 1 + n / 10) for m in methods for s in (ablations.READ, ablations.SCOPED) for n in (1, 4)]
        + [(m, 0, s, v) for m in methods for s, v in ((ablations.ZERO, 1.5), (ablations.MASKED, 1.0))],
        "method", "written", "setting",
    )  # fmt: skip
    figure = larimar.ablations(noise, slots, beside)
    left, middle, right = figure.axes
    assert lines(left)[ORANGE] == [[0, 1], [0.5, 0.875], [2, 0.5]]
    assert lines(middle)[BLUE] == [[8, 0.125], [16, 0.25], [32, 0.5]]
    assert len(lines(right)) == 4  # two of them pale
    assert lines(right)[BLUE.lower()] == [[1, 1.1], [4, 1.4]]
    flat = {
        line.get_label(): (line.get_ydata()[0], line.get_linestyle())
        for line in right.lines
        if "memory" in line.get_label()
    }
    assert flat == {"no memory: zero vector": (1.5, "--"), "no memory: masked": (1.0, ":")}
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["published", "best", "scope detected"]
    figure.draw_without_rendering()


@pytest.mark.parametrize("kinds", [["edit"], ["edit", "paraphrase"]])
def test_recall_by_length_has_a_panel_a_wording(kinds: list[str]) -> None:
    rows = [
        (method, chunks, kind, protocol, value / chunks)
        for method, value in (("memory", 1.0), ("text in context", 0.5))
        for chunks in (1, 2, 4)
        for kind in kinds
        for protocol in ("exact", "success_mean")
    ]
    figure = larimar.recall_by_length(table(rows, "method", "chunks", "kind", "protocol"))
    assert [axes.get_title(loc="left") for axes in figure.axes] == [larimar.WORDINGS[kind] for kind in kinds]
    for axes in figure.axes:
        assert list(lines(axes).values()) == [[[1, 1], [2, 0.5], [4, 0.25]], [[1, 0.5], [2, 0.25], [4, 0.125]]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["memory", "text in context"]
    figure.draw_without_rendering()


def test_scope_curves_have_their_area_and_the_threshold_in_use() -> None:
    rows = [
        ("near", "nearest", 0.0, 0.0, False), ("near", "nearest", 0.0, 0.8, True), ("near", "nearest", 1.0, 1.0, False),
        ("near", "chance", 0.0, 0.0, False), ("near", "chance", 1.0, 1.0, False),
        ("hard", "nearest", 0.0, 0.0, False), ("hard", "nearest", 1.0, 1.0, True),
    ]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["outside", "detector", "false_positives", "true_positives", "chosen"])
    figure = larimar.scope_curves(frame)
    near, hard = figure.axes
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["near", "hard"]
    curve, point, chance, none, _ = near.lines
    assert curve.get_xydata().tolist() == [[0, 0], [0, 0.8], [1, 1]]
    assert point.get_xydata().tolist() == [[0, 0.8]]
    assert chance.get_xydata().tolist() == [[0, 0], [1, 1]]
    assert none.get_xydata().tolist() == []
    assert hard.lines[1].get_xydata().tolist() == [[1, 1]]
    texts = [text.get_text() for axes in figure.axes for text in axes.get_legend().get_texts()]
    assert texts == ["nearest (area 0.900)", "chance (area 0.500)", "nearest (area 0.500)"]
    figure.draw_without_rendering()
