"""One figure out of a table of many, to report it by name."""

from __future__ import annotations

import pandas as pd

from palimpsest.evaluation.statistics import Interval


def interval_of(table: pd.DataFrame, **where: object) -> Interval:
    """The figure in the one row of a table that fits: ``interval_of(table, edits=512, kind="edit", ...)``.

    Args:
        table: has columns ``value``, ``low``, ``high`` and ``n``.
        where: what other columns hold.

    Raises:
        ValueError: no row fits, or several do; says what was asked for.
    """
    rows = table
    for column, wanted in where.items():
        rows = rows[rows[column] == wanted]
    if len(rows) != 1:
        asked = ", ".join(f"{column} {wanted}" for column, wanted in where.items())
        raise ValueError(f"{len(rows)} rows with {asked}: expected one")
    value, low, high, n = rows[["value", "low", "high", "n"]].iloc[0].tolist()
    return Interval(float(value), float(low), float(high), int(n))
