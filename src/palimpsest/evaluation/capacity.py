"""How much an editor holds: what is left of edits, and of unrelated facts, as their number grows.

The edits are made in batches of growing size or one after the other. Questions, protocols and averages are those of
:mod:`palimpsest.evaluation.editing`; only how many of the edits are asked about is limited, for after thousands of them
a few hundred tell as much.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from random import Random

from tqdm import tqdm

from palimpsest.editors.editor import Editor
from palimpsest.evaluation.editing import Baseline, Probing, Question, Row, greedy_answers, probe, questions
from palimpsest.evaluation.editing_runs import AFTER_LAST, FORGETFUL, Sink
from palimpsest.evaluation.recall import begins_with
from palimpsest.facts import Edit

BATCH, SEQUENCE = "batch", "sequence"
UNRELATED = "unrelated"
"""The kind of a question about a fact that the unedited model knows and that no edit is about."""


def known_facts(editor: Editor, facts: Iterable[Edit], edits: Iterable[Edit], probing: Probing) -> dict[Question, str]:
    """Facts that an editor without edits answers exactly, and about whose subjects there is no edit.

    Args:
        facts: to choose from; what is right is in ``target_true``.
        edits: all that will be made.

    Returns:
        Questions about them, and what the model says, which is their :data:`~palimpsest.evaluation.editing.Baseline`.
    """
    edited = {edit.subject for edit in edits}
    asked = [
        Question(fact.case_id, "neighbor", 0, fact.prompt, answer)
        for fact in facts
        if fact.subject not in edited
        for answer in fact.target_true
    ]
    said = greedy_answers(editor, asked, replace(probing, generated=("neighbor",)))
    known: dict[str, Question] = {}
    for question, text in said.items():
        if begins_with(text, [question.answer]):
            known.setdefault(question.case_id, question)  # of a fact with several answers the one that was given
    return {question: said[question] for question in known.values()}


def retention(
    editor: Editor,
    edits: Sequence[Edit],
    probing: Probing,
    baseline: Baseline,
    *,
    unrelated: Sequence[Question],
    counts: Sequence[int],
    mode: str,
    limit: int,
    seed: int,
    sink: Sink = FORGETFUL,
    progress: bool = False,
) -> list[Row]:
    """Make more and more edits, and at each number of them ask about some of those made and about unrelated facts.

    Args:
        probing: of its ``kinds`` the edits are asked.
        baseline: what the unedited model says to ``unrelated``, and to neighbours if they are among the kinds.
        unrelated: questions of :func:`known_facts`; all are asked each time.
        counts: numbers of edits; those beyond the edits given are left out.
        mode: :data:`BATCH`, each number of edits at once, from none; or :data:`SEQUENCE`, one after the other, from
            those made before.
        limit: how many of the edits made are asked about at each number, drawn at random.

    Returns:
        Rows as of :func:`palimpsest.evaluation.editing.probe` with ``phase`` and ``edits``, those about unrelated facts
        of the kind :data:`UNRELATED`. Their ``exact`` says that the fact is still known, and their ``n`` in
        :func:`palimpsest.evaluation.editing.summarize` how many were asked.

    Raises:
        ValueError: an unknown mode.
    """
    if mode not in (BATCH, SEQUENCE):
        raise ValueError(f"mode {mode!r}: expected {BATCH!r} or {SEQUENCE!r}")
    rows: list[Row] = []
    made = 0
    reached = sorted({count for count in counts if count <= len(edits)})
    editor.reset()
    try:
        with tqdm(total=max(reached, default=0), desc=f"edits in {mode}", disable=not progress) as bar:
            for count in reached:
                name = f"retention-{mode}-{count}"
                found = sink.load(name)
                if found is None:
                    _make(editor, edits, made, count, mode)
                    made = count
                    asked = drawn(edits[:count], limit, seed)
                    found = _ask(editor, asked, unrelated, probing, baseline)
                    found = [row | {"phase": AFTER_LAST, "edits": count} for row in found]
                    sink.save(name, found)
                rows += found
                bar.update(count - bar.n)
    finally:
        editor.reset()
    return rows


def drawn(edits: Sequence[Edit], limit: int, seed: int) -> list[Edit]:
    """At most ``limit`` of some edits, at random, in their order; the same for the same number of edits."""
    places = Random(f"{seed}/{len(edits)}").sample(range(len(edits)), min(limit, len(edits)))
    return [edits[place] for place in sorted(places)]


def _make(editor: Editor, edits: Sequence[Edit], made: int, count: int, mode: str) -> None:
    """Bring an editor that has made some edits to a larger number."""
    if mode == BATCH:
        editor.reset()
        editor.apply(edits[:count])
    else:
        for edit in edits[made:count]:
            editor.apply([edit])


def _ask(
    editor: Editor, edits: Sequence[Edit], unrelated: Sequence[Question], probing: Probing, baseline: Baseline
) -> list[Row]:
    rows = probe(editor, questions(edits, probing.kinds), probing, baseline)
    facts = probe(editor, unrelated, replace(probing, generated=("neighbor",)), baseline)
    return rows + [row | {"kind": UNRELATED} for row in facts]
