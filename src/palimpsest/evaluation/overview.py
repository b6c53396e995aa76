"""The comparison at a glance, from the tables of its parts."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from palimpsest.evaluation.attacks import OWN_PROMPT
from palimpsest.evaluation.comparison import EVERY_RUN, GENERATED
from palimpsest.evaluation.cost import EDIT
from palimpsest.evaluation.editing_runs import AFTER_LAST
from palimpsest.evaluation.forgetting import AFTER, FORGOTTEN, NEVER

UNEDITED = "none"  # the method that makes no edits, which takes no time
SHARE, SECONDS = "share", "seconds"
SAID = {
    "reliability": "says the\nnew answer",
    "generalization": "… in other\nwords",
    "locality": "leaves\nothers alone",
    "same_subject": "… the subject's\nother facts, too",
}
CELL = ["method", "column", "value", "unit"]


def cells(
    single: pd.DataFrame, sequential: pd.DataFrame, forgetting: pd.DataFrame, costs: pd.DataFrame
) -> pd.DataFrame:
    """What a newcomer asks of each method, all by free generation.

    Args:
        single: of :func:`palimpsest.evaluation.comparison.editing_table`, of single edits; ``sequential`` of sequences.
        forgetting: of :func:`palimpsest.evaluation.forgetting.summarize_forgetting`, with a column ``method``. Methods
            that are not in it cannot forget.
        costs: of :func:`palimpsest.evaluation.cost.cost_table`.

    Returns:
        Columns ``method``, ``column``, ``value`` (missing where the method cannot) and ``unit``. The score of a
        sequence is of the longest there is; of facts that were said and then forgotten, the share that is said no more,
        beyond what would be if they had never been seen.
    """
    parts = [_column(single, GENERATED[name], words) for name, words in SAID.items()]
    longest = int(sequential["edits"].max())
    last = sequential[
        (sequential["edits"] == longest) & (sequential["phase"] == AFTER_LAST) & (sequential["run"] == EVERY_RUN)
    ]
    parts.append(_column(last, GENERATED["score"], f"all three after\n{longest:,} edits"))
    parts.append(_gone(forgetting, [str(name) for name in single["method"].unique()]))
    times = costs[(costs["measure"] == EDIT) & (costs["method"] != UNEDITED)]
    parts.append(times.assign(column="an edit\ntakes", unit=SECONDS)[CELL])
    return pd.concat(parts, ignore_index=True)


def _column(table: pd.DataFrame, measure: tuple[str, str], words: str) -> pd.DataFrame:
    metric, protocol = measure
    rows = table[(table["metric"] == metric) & (table["protocol"] == protocol)]
    return rows.assign(column=words, unit=SHARE)[CELL]


def _gone(table: pd.DataFrame, methods: Sequence[str]) -> pd.DataFrame:
    """Of the largest number forgotten at once, what is gone of what was said before; nothing where nothing was said."""
    asked = table[(table["family"] == OWN_PROMPT) & (table["protocol"] == "retained") & (table["group"] == FORGOTTEN)]
    asked = asked[asked["forgotten"] == table["forgotten"].max()]
    said = asked.pivot(index="method", columns="state", values="value").reindex(columns=[AFTER, NEVER])
    gone = dict(1 - (said[AFTER] - said[NEVER]).clip(lower=0))
    cannot = dict.fromkeys(name for name in methods if name not in set(table["method"]))
    rows = [(name, "forgets when\ntold to", value, SHARE) for name, value in {**gone, **cannot}.items()]
    return pd.DataFrame(rows, columns=CELL).astype({"value": float})


def speed_and_quality(single: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """Of each method that has both, the seconds of an edit and the score of single edits by free generation.

    Returns:
        Columns ``method``, ``seconds`` and ``quality``, each also with ``_low`` and ``_high``.
    """
    metric, protocol = GENERATED["score"]
    scores = single[(single["metric"] == metric) & (single["protocol"] == protocol)]
    times = costs[(costs["measure"] == EDIT) & (costs["method"] != UNEDITED)]
    renamed = [
        rows[["method", "value", "low", "high"]].set_axis(["method", name, f"{name}_low", f"{name}_high"], axis=1)
        for name, rows in (("seconds", times), ("quality", scores))
    ]
    return renamed[0].merge(renamed[1], on="method")
