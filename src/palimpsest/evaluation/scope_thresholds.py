"""Thresholds of a scope detector for memories that hold many edits at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import pandas as pd

from palimpsest.editors.larimar import LarimarEditor
from palimpsest.evaluation.editing import questions
from palimpsest.evaluation.same_subject import other_facts
from palimpsest.evaluation.scope import curve
from palimpsest.facts import Edit

MEMORIES = 40  # filled one after the other, at the most, for the threshold at one number of edits


def scope_thresholds(
    editor: LarimarEditor, dev: Sequence[Edit], others: Sequence[Edit], counts: Iterable[int], facts: Sequence[Edit]
) -> dict[int, float]:
    """The best threshold (see :func:`palimpsest.evaluation.scope.curve`) at each number of edits in memory.

    Args:
        editor: with a scope detector; whatever its memory, and it ends up empty.
        dev: whose prompts are told from their neighbours' and from other facts of their subjects. Few edits in memory
            are some of these at a time.
        others: what fills a memory that is to hold more.
        facts: among which are other facts of those subjects.
    """
    found = {}
    for count in counts:
        parts = [dev[start : start + count] for start in range(0, len(dev), count)][:MEMORIES]
        fill = others[: max(count - len(dev), 0)]
        rows = [row for part in parts for row in _scores(editor, part, fill, facts)]
        found[count] = curve(pd.DataFrame(rows, columns=["inside", "score"]))[1]
    return found


def _scores(
    editor: LarimarEditor, asked: Sequence[Edit], others: Sequence[Edit], facts: Sequence[Edit]
) -> list[tuple[bool, float]]:
    """Whether each prompt is about an edit, and its score, while those asked about and others are in memory."""
    inside = [question.prompt for question in questions(asked, ("edit", "paraphrase"))]
    outside = [*_neighbors(asked, others), *_beside(asked, others, facts)]
    editor.reset()
    editor.apply([*others, *asked])
    scores = editor.scope_scores([*inside, *outside]).tolist()
    editor.reset()
    return [(place < len(inside), score) for place, score in enumerate(scores)]


def _neighbors(asked: Sequence[Edit], others: Sequence[Edit]) -> list[str]:
    """Prompts of all neighbours but those that are edited themselves: these are in scope."""
    subjects: dict[str | None, set[str]] = defaultdict(set)
    for edit in (*asked, *others):
        subjects[edit.relation].add(edit.subject)
    relations = {edit.case_id: edit.relation for edit in asked}
    return [
        question.prompt
        for question in questions(asked, ("neighbor",))
        if not any(subject in question.prompt for subject in subjects[relations[question.case_id]])
    ]


def _beside(asked: Sequence[Edit], others: Sequence[Edit], facts: Sequence[Edit]) -> list[str]:
    """Prompts of other facts about the subjects of edits, but those that are edited themselves."""
    edited = {(edit.subject, edit.relation) for edit in (*asked, *others)}
    found = (fact for _, beside in other_facts(asked, facts) for fact in beside)
    return [fact.prompt for fact in found if (fact.subject, fact.relation) not in edited]
