"""Thresholds of a scope detector for memories that hold many edits at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import pandas as pd

from palimpsest.editors.larimar import LarimarEditor
from palimpsest.evaluation.editing import Question, questions
from palimpsest.evaluation.scope import curve
from palimpsest.facts import Edit

MEMORIES = 40  # filled one after the other, at the most, for the threshold at one number of edits


def scope_thresholds(
    editor: LarimarEditor, dev: Sequence[Edit], others: Sequence[Edit], counts: Iterable[int]
) -> dict[int, float]:
    """The best threshold (see :func:`palimpsest.evaluation.scope.curve`) at each number of edits in memory.

    Args:
        editor: with a scope detector; whatever its memory, and it ends up empty.
        dev: whose prompts and neighbours' prompts are told apart. Few edits in memory are some of these at a time.
        others: what fills a memory that is to hold more.
    """
    found = {}
    for count in counts:
        parts = [dev[start : start + count] for start in range(0, len(dev), count)][:MEMORIES]
        fill = others[: max(count - len(dev), 0)]
        rows = [row for part in parts for row in _scores(editor, part, fill)]
        found[count] = curve(pd.DataFrame(rows, columns=["inside", "score"]))[1]
    return found


def _scores(editor: LarimarEditor, asked: Sequence[Edit], others: Sequence[Edit]) -> list[tuple[bool, float]]:
    """Whether each prompt is about an edit, and its score, while those asked about and others are in memory."""
    probes = _told_apart(asked, others)
    editor.reset()
    editor.apply([*others, *asked])
    scores = editor.scope_scores([question.prompt for question in probes]).tolist()
    editor.reset()
    return [(question.kind != "neighbor", score) for question, score in zip(probes, scores, strict=True)]


def _told_apart(asked: Sequence[Edit], others: Sequence[Edit]) -> list[Question]:
    """All questions but those about neighbours that themselves are edited: these are in scope."""
    subjects: dict[str | None, set[str]] = defaultdict(set)
    for edit in (*asked, *others):
        subjects[edit.relation].add(edit.subject)
    relations = {edit.case_id: edit.relation for edit in asked}
    return [
        question
        for question in questions(asked, ("edit", "paraphrase", "neighbor"))
        if question.kind != "neighbor"
        or not any(subject in question.prompt for subject in subjects[relations[question.case_id]])
    ]
