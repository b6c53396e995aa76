"""Figures of forgetting show the numbers of their table."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.colors import to_hex
from matplotlib.container import ErrorbarContainer

from palimpsest.evaluation.attacks import OWN_PROMPT
from palimpsest.evaluation.forgetting import AFTER, BEFORE, FORGOTTEN, KEPT, NEVER
from palimpsest.figures import forgetting

STATES = {BEFORE: 0.9, AFTER: 0.3, NEVER: 0.2}
ROWS = [
    (method, count, group, family, state, protocol, value + count / 1000 - (method == "best") / 10)
    for method in ("published", "best")
    for count in (10, 1, 100)
    for group in (FORGOTTEN, KEPT)
    for family in (OWN_PROMPT, "paraphrase", "question")
    for state, value in STATES.items()
    for protocol in ("exact", "leaked", "retained")
    if not (protocol == "retained" and state == BEFORE)
]
TABLE = pd.DataFrame(ROWS, columns=["method", "forgotten", "group", "family", "state", "protocol", "value"])
TABLE = TABLE.assign(low=TABLE["value"] - 0.05, high=TABLE["value"] + 0.1, n=9)


def test_names_are_those_of_the_evaluation() -> None:
    assert list(forgetting.STATE_COLOURS) == [BEFORE, AFTER, NEVER]
    assert list(forgetting.GROUPS) == [FORGOTTEN, KEPT]
    assert forgetting.RECALL == OWN_PROMPT


def test_forgetting_has_a_bar_a_state_and_number() -> None:
    figure = forgetting.forgetting(TABLE)
    assert len(figure.axes) == 4
    for axes, lower in zip(figure.axes, (0, 0, 0.1, 0.1), strict=True):
        bars = [container for container in axes.containers if not isinstance(container, ErrorbarContainer)]
        for container, (state, value) in zip(bars, STATES.items(), strict=True):
            heights = [bar.get_height() for bar in container]
            np.testing.assert_allclose(heights, [value + 0.001 - lower, value + 0.01 - lower, value + 0.1 - lower])
            assert to_hex(container[0].get_facecolor()).upper() == forgetting.STATE_COLOURS[state]
        assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "10", "100"]
    assert [axes.get_ylabel() for axes in figure.axes] == ["published\nfacts said", "", "best\nfacts said", ""]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(STATES)
    figure.draw_without_rendering()


def test_leakage_has_a_point_a_family_and_state_for_the_most_forgotten_at_once() -> None:
    figure = forgetting.leakage(TABLE)
    assert "100 forgotten facts" in figure.get_suptitle()
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["published", "best"]
    for axes, lower in zip(figure.axes, (0, 0.1), strict=True):
        points = [container.lines[0].get_xydata() for container in axes.containers]
        for drawn, value in zip(points, STATES.values(), strict=True):
            np.testing.assert_allclose(drawn[:, 0], value + 0.1 - lower)
            assert (np.diff(drawn[:, 1]) < 0).all()  # from above
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [OWN_PROMPT, "paraphrase", "question"]
    figure.draw_without_rendering()
