"""How well a scope detector tells prompts about an edit from those about its neighbours, or about its subject."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch

from palimpsest.editors.larimar import LarimarEditor
from palimpsest.evaluation.editing import questions
from palimpsest.facts import Edit
from palimpsest.larimar.scope import choose_threshold, operating_characteristic


def scope_scores(editor: LarimarEditor, edits: Sequence[Edit], stored: int = 1) -> pd.DataFrame:
    """Scores of all prompts about some edits while ``stored`` of them at a time are in memory; it ends up empty.

    Returns:
        Columns ``case_id``, ``inside`` (whether the prompt is about its edit, not about a neighbour) and ``score``.
    """
    rows = []
    for start in range(0, len(edits), stored):
        part = edits[start : start + stored]
        editor.reset()
        editor.apply(part)
        asked = questions(part, ("edit", "paraphrase", "neighbor"))
        scores = editor.scope_scores([question.prompt for question in asked]).tolist()
        rows += [(q.case_id, q.kind != "neighbor", score) for q, score in zip(asked, scores, strict=True)]
    editor.reset()
    return pd.DataFrame(rows, columns=["case_id", "inside", "score"])


def curve(scores: pd.DataFrame, threshold: float | None = None) -> tuple[pd.DataFrame, float]:
    """The receiver operating characteristic of scores, and the threshold where its two shares are farthest apart.

    Args:
        threshold: that which is used, if it was chosen by other scores.

    Returns:
        Columns ``threshold``, ``false_positives``, ``true_positives`` and ``chosen``, from the strictest threshold on.

    Raises:
        ValueError: there are only prompts of one sort.
    """
    inside = torch.tensor(scores["score"].to_numpy())
    known = torch.tensor(scores["inside"].to_numpy())
    found = operating_characteristic(inside[known], inside[~known])
    threshold = choose_threshold(found) if threshold is None else threshold
    table = pd.DataFrame(
        {
            "threshold": found.thresholds,
            "false_positives": found.false_positives,
            "true_positives": found.true_positives,
        }
    )
    chosen = (table["threshold"] >= threshold).sum() - 1  # where it lets in the same prompts
    return table.assign(chosen=table.index == chosen), threshold
