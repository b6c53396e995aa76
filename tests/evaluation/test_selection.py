"""Figures by name."""

import pandas as pd
import pytest

from palimpsest.evaluation.selection import interval_of
from palimpsest.evaluation.statistics import Interval

TABLE = pd.DataFrame(
    [(1, "edit", 0.5, 0.4, 0.6, 9), (2, "edit", 0.3, 0.2, 0.4, 8)],
    columns=["edits", "kind", "value", "low", "high", "n"],
)


def test_a_figure_is_the_one_row_that_fits() -> None:
    assert interval_of(TABLE, edits=2, kind="edit") == Interval(0.3, 0.2, 0.4, 8)
    with pytest.raises(ValueError, match="2 rows with kind edit: expected one"):
        interval_of(TABLE, kind="edit")
    with pytest.raises(ValueError, match="0 rows with edits 3, kind edit"):
        interval_of(TABLE, edits=3, kind="edit")
