"""Edits made singly, in sequence and in a batch, and asked about.

Rows are those of :func:`palimpsest.evaluation.editing.probe` with ``phase`` and ``edits``, the number of edits that the
model had when it was asked. To ask about every edit right after it was made, and about all of them after the last,
would take longer than to make them: of sequences and batches a sample is asked about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from random import Random
from typing import Any

from tqdm import tqdm

from palimpsest.editors.editor import Editor, ReadingEditor
from palimpsest.evaluation.editing import Baseline, Probing, Question, Row, greedy_answers, probe, questions
from palimpsest.evaluation.rows import FORGETFUL, Sink, kept
from palimpsest.facts import Edit

AFTER_EDIT, AFTER_LAST = "after_edit", "after_last"


def neighbor_answers(editor: Editor, edits: Sequence[Edit], probing: Probing) -> dict[Question, str]:
    """What an editor that has no edits says of the neighbours of some: the baseline of everything here."""
    asked = questions(edits, [kind for kind in probing.kinds if kind == "neighbor"])
    return greedy_answers(editor, list(dict.fromkeys(asked)), probing)


def single_edits(
    editor: Editor,
    edits: Sequence[Edit],
    probing: Probing,
    baseline: Baseline,
    *,
    sink: Sink = FORGETFUL,
    chunk: int = 25,
    progress: bool = False,
) -> list[Row]:
    """Make each edit alone, ask about it, and take it back. ``chunk`` edits are kept at a time.

    Of a :class:`~palimpsest.editors.editor.ReadingEditor` the questions about a chunk's edits are asked in one pass.
    """
    rows = []
    with clean(editor), tqdm(total=len(edits), desc="single edits", disable=not progress) as bar:
        for start in range(0, len(edits), chunk):
            part = edits[start : start + chunk]
            rows += kept(sink, f"single-{start}", partial(_single, editor, part, probing, baseline))
            bar.update(len(part))
    return rows


def _single(editor: Editor, edits: Sequence[Edit], probing: Probing, baseline: Baseline) -> list[Row]:
    if isinstance(editor, ReadingEditor):
        return _single_read(editor, edits, probing, baseline)
    rows = []
    for edit in edits:
        editor.apply([edit])
        rows += _labelled(probe(editor, questions([edit], probing.kinds), probing, baseline), AFTER_EDIT, 1)
        editor.reset()
    return rows


def _single_read(editor: ReadingEditor[Any], edits: Sequence[Edit], probing: Probing, baseline: Baseline) -> list[Row]:
    """As one by one: what each edit contributes is read while it is made, and then all are asked about at once."""
    asked = [questions([edit], probing.kinds) for edit in edits]
    editor.prepare(edits, [question.prompt for own in asked for question in own])
    readings = []
    for edit, own in zip(edits, asked, strict=True):
        editor.apply([edit])
        readings += editor.read([question.prompt for question in own])
        editor.reset()
    return _labelled(probe(editor, list(chain(*asked)), probing, baseline, readings), AFTER_EDIT, 1)


def sequence(
    editor: Editor,
    edits: Sequence[Edit],
    probing: Probing,
    baseline: Baseline,
    *,
    at_once: int = 0,
    limit: int | None = None,
    seed: int = 0,
    together: int = 1,
    after: Callable[[], Sequence[Row]] = tuple,
    made: Callable[[int], object] = lambda count: None,
) -> list[Row]:
    """Make edits one after the other, and ask about some right after each was made and about others after the last.

    Args:
        editor: ends up without edits, whatever happens.
        baseline: of :func:`neighbor_answers`.
        at_once: about how many, evenly spread over the sequence, is asked right after they were made.
        limit: about how many, drawn at random from ``seed``, is asked after the last; None for all.
        together: how many edits, at the most, are made in one call if nothing is asked in between.
        after: called while all edits are made; its rows come last.
        made: told after each call how many edits it has made.

    Nobody is asked about neighbours that are themselves edited, for these shall not stay as they are.
    """
    now = {place: _asked(edits[place : place + 1], edits, probing) for place in sorted(_spread(len(edits), at_once))}
    meanwhile = _Meanwhile(editor, probing, baseline)
    done = 0
    with clean(editor):
        for place in sorted({*now, len(edits) - 1}):
            for start in range(done, place + 1, together):
                part = edits[start : min(start + together, place + 1)]
                editor.apply(part)
                made(len(part))
            done = place + 1
            if place in now:
                meanwhile.ask(now[place], done)
        return meanwhile.rows() + _after_last(editor, edits, probing, baseline, limit, seed, after)


def batch(
    editor: Editor,
    edits: Sequence[Edit],
    probing: Probing,
    baseline: Baseline,
    *,
    limit: int | None = None,
    seed: int = 0,
    after: Callable[[], Sequence[Row]] = tuple,
) -> list[Row]:
    """Make all edits at once and ask about some of them; see :func:`sequence`."""
    with clean(editor):
        editor.apply(edits)
        return _after_last(editor, edits, probing, baseline, limit, seed, after)


def asked_about(edits: Sequence[Edit], *, at_once: int = 0, limit: int | None = None, seed: int = 0) -> list[Edit]:
    """The edits of a sequence or batch about which anything is asked; see :func:`sequence`."""
    return list(dict.fromkeys([*(edits[place] for place in _spread(len(edits), at_once)), *drawn(edits, limit, seed)]))


def drawn(edits: Sequence[Edit], limit: int | None, seed: int) -> list[Edit]:
    """At most ``limit`` of some edits (None: all), at random, in their order; the same for the same number of edits."""
    wanted = len(edits) if limit is None else min(limit, len(edits))
    return [edits[place] for place in sorted(Random(f"{seed}/{len(edits)}").sample(range(len(edits)), wanted))]


@contextmanager
def clean(editor: Editor) -> Iterator[None]:
    """Begin without edits, and leave none, whatever happens."""
    editor.reset()
    try:
        yield
    finally:
        editor.reset()


class _Meanwhile:
    """Asks about edits right after they were made; what can wait until all can be asked in one pass, waits."""

    def __init__(self, editor: Editor, probing: Probing, baseline: Baseline) -> None:
        self.editor, self.probing, self.baseline = editor, probing, baseline
        self._waiting: list[tuple[Question, int]] = []  # and how many edits were made then
        self._readings: list[Any] = []
        self._rows: list[Row] = []

    def ask(self, asked: Sequence[Question], count: int) -> None:
        if isinstance(self.editor, ReadingEditor):
            self._waiting += [(question, count) for question in asked]
            self._readings += self.editor.read([question.prompt for question in asked])
        else:
            self._rows += _labelled(probe(self.editor, asked, self.probing, self.baseline), AFTER_EDIT, count)

    def rows(self) -> list[Row]:
        asked = [question for question, _ in self._waiting]
        rows = probe(self.editor, asked, self.probing, self.baseline, self._readings) if asked else []
        late = zip(rows, self._waiting, strict=True)
        return [*self._rows, *(row | {"phase": AFTER_EDIT, "edits": count} for row, (_, count) in late)]


def _after_last(
    editor: Editor,
    edits: Sequence[Edit],
    probing: Probing,
    baseline: Baseline,
    limit: int | None,
    seed: int,
    after: Callable[[], Sequence[Row]],
) -> list[Row]:
    asked = _asked(drawn(edits, limit, seed), edits, probing)
    return [*_labelled(probe(editor, asked, probing, baseline), AFTER_LAST, len(edits)), *after()]


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


def _labelled(rows: Iterable[Row], phase: str, count: int) -> list[Row]:
    return [row | {"phase": phase, "edits": count} for row in rows]


def _spread(count: int, wanted: int) -> set[int]:
    """At most ``wanted`` of ``count`` places, evenly spread; the last is one of them."""
    wanted = min(count, wanted)
    return {(number + 1) * count // wanted - 1 for number in range(wanted)}
