"""Many edits, one after the other or all at once, by editors of which some take a second an edit.

Questions and protocols are those of :mod:`palimpsest.evaluation.editing`. To ask about every edit right after it was
made, and about all of them after the last, would take longer than to make them: a sample is asked about.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from palimpsest.editors.editor import Editor, ReadingEditor
from palimpsest.evaluation.capacity import drawn
from palimpsest.evaluation.editing import Probing, Question, Row, greedy_answers, probe, questions
from palimpsest.evaluation.editing_runs import AFTER_EDIT, AFTER_LAST
from palimpsest.facts import Edit

SEQUENCE, BATCH = "sequence", "batch"


def edit_and_ask(
    editor: Editor,
    edits: Sequence[Edit],
    probing: Probing,
    *,
    mode: str,
    at_once: int,
    limit: int,
    seed: int,
    together: int = 1,
    after: Callable[[], Sequence[Row]] = tuple,
) -> list[Row]:
    """Make edits, and ask about some right after each was made and about others after the last.

    Args:
        editor: ends up without edits, whatever happens.
        mode: :data:`SEQUENCE`, one after the other; or :data:`BATCH`, all at once.
        at_once: about how many, evenly spread over the sequence, is asked right after they were made; in a batch about
            none.
        limit: about how many, drawn at random from ``seed``, is asked after the last.
        together: how many edits of a sequence, at the most, are made in one call if nothing is asked in between. An
            editor for which neither order nor company matters is spared time.
        after: called while all edits are made; its rows come last.

    Returns:
        Rows as of :func:`palimpsest.evaluation.editing.probe` with ``phase`` and ``edits``, the number of edits made by
        then. Neighbours are compared with what the editor says before its first edit; about facts that are themselves
        edited nobody is asked as a neighbour, for these shall not stay as they are.

    Raises:
        ValueError: an unknown mode.
    """
    if mode not in (SEQUENCE, BATCH):
        raise ValueError(f"mode {mode!r}: expected {SEQUENCE!r} or {BATCH!r}")
    places = _spread(len(edits), at_once) if mode == SEQUENCE else set()
    now = {place: _asked(edits[place : place + 1], edits, probing) for place in sorted(places)}
    last = _asked(drawn(edits, limit, seed), edits, probing)
    editor.reset()
    neighbors = dict.fromkeys(one for asked in (*now.values(), last) for one in asked if one.kind == "neighbor")
    baseline = greedy_answers(editor, list(neighbors), probing)
    meanwhile = _Meanwhile(editor, probing, baseline)
    try:
        if mode == BATCH:
            editor.apply(edits)
        else:
            made = 0
            for place in sorted({*now, len(edits) - 1}):
                for start in range(made, place + 1, together):
                    editor.apply(edits[start : min(start + together, place + 1)])
                made = place + 1
                if place in now:
                    meanwhile.ask(now[place], made)
        rows = meanwhile.rows()
        rows += _labelled(probe(editor, last, probing, baseline), AFTER_LAST, [len(edits)] * len(last))
        return [*rows, *after()]
    finally:
        editor.reset()


class _Meanwhile:
    """Asks about edits right after they were made; what can wait until all can be asked in one pass, waits."""

    def __init__(self, editor: Editor, probing: Probing, baseline: dict[Question, str]) -> None:
        self.editor, self.probing, self.baseline = editor, probing, baseline
        self._asked: list[Question] = []
        self._counts: list[int] = []
        self._readings: list[Any] = []
        self._rows: list[Row] = []

    def ask(self, asked: Sequence[Question], count: int) -> None:
        self._asked += asked
        self._counts += [count] * len(asked)
        if isinstance(self.editor, ReadingEditor):
            self._readings += self.editor.read([question.prompt for question in asked])
        else:
            self._rows += probe(self.editor, asked, self.probing, self.baseline)

    def rows(self) -> list[Row]:
        if isinstance(self.editor, ReadingEditor):
            self._rows = probe(self.editor, self._asked, self.probing, self.baseline, self._readings)
        return _labelled(self._rows, AFTER_EDIT, self._counts)


def _asked(edits: Sequence[Edit], made: Sequence[Edit], probing: Probing) -> list[Question]:
    """Questions about some edits, without neighbours whose fact one of those that are made is about: one that its
    prompt names, and whose true answer is the neighbour's."""
    found = questions(edits, probing.kinds)
    edited = [(edit.subject, edit.target_true) for edit in made]
    return [
        one
        for one in found
        if one.kind != "neighbor" or not any(one.answer in true and name in one.prompt for name, true in edited)
    ]


def _labelled(rows: Sequence[Row], phase: str, counts: Sequence[int]) -> list[Row]:
    return [row | {"phase": phase, "edits": count} for row, count in zip(rows, counts, strict=True)]


def _spread(count: int, wanted: int) -> set[int]:
    """At most ``wanted`` of ``count`` places, evenly spread; the last is one of them."""
    wanted = min(count, wanted)
    return {(number + 1) * count // wanted - 1 for number in range(wanted)}
