"""How much an editor holds: what is left of edits, and of unrelated facts, as their number grows.

The edits are made in batches of growing size or one after the other. Questions, protocols and averages are those of
:mod:`palimpsest.evaluation.editing`; only how many of the edits are asked about is limited, for after thousands of them
a few hundred tell as much.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd
from tqdm import tqdm

from palimpsest.editors.editor import Editor, ReadingEditor
from palimpsest.editors.larimar import LarimarEditor
from palimpsest.evaluation.editing import Baseline, Probing, Question, Row, greedy_answers, probe, questions, summarize
from palimpsest.evaluation.editing_runs import AFTER_LAST, drawn
from palimpsest.evaluation.recall import begins_with
from palimpsest.evaluation.rows import FORGETFUL, Sink
from palimpsest.evaluation.selection import interval_of
from palimpsest.evaluation.statistics import Interval
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
    together: int = 1,
    ready: Callable[[int], object] = lambda count: None,
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
        together: how many edits of a sequence are made in one call. An editor for which neither order nor company
            matters is spared time.
        ready: called with the number of edits when they are made and nothing has been asked yet, for what depends on
            it, such as the threshold of a scope detector.

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
    others = _Unrelated(editor, unrelated, probing, baseline)
    try:
        with tqdm(total=max(reached, default=0), desc=f"edits in {mode}", disable=not progress) as bar:
            for count in reached:
                name = f"retention-{mode}-{count}"
                found = sink.load(name)
                if found is None:
                    _make(editor, edits, made, count, mode, together)
                    ready(count)
                    made = count
                    asked = drawn(edits[:count], limit, seed)
                    found = probe(editor, questions(asked, probing.kinds), probing, baseline) + others.ask()
                    found = [row | {"phase": AFTER_LAST, "edits": count} for row in found]
                    sink.save(name, found)
                rows += found
                bar.update(count - bar.n)
    finally:
        editor.reset()
    return rows


@dataclass(frozen=True, kw_only=True)
class Retention:
    """The same edits made by one Larimar editor after another; see :func:`retention`."""

    edits: Sequence[Edit]
    probing: Probing
    limit: int
    seed: int
    together: int

    def table(
        self,
        editor: LarimarEditor,
        known: Baseline,
        counts: Iterable[int],
        mode: str,
        thresholds: Mapping[int, float] | None = None,
    ) -> pd.DataFrame:
        """What is retained, as :func:`palimpsest.evaluation.editing.summarize` has it.

        Args:
            known: unrelated facts, of :func:`known_facts`.
            counts: numbers of edits.
            thresholds: of the editor's scope detector, if it has one, by the number of edits.
        """

        def ready(count: int) -> None:
            if editor.scope is not None:
                editor.threshold = (thresholds or {})[count]

        rows = retention(
            editor,
            self.edits,
            self.probing,
            known,
            unrelated=list(known),
            counts=list(counts),
            mode=mode,
            limit=self.limit,
            seed=self.seed,
            together=self.together,
            ready=ready,
        )
        return summarize(rows).drop(columns="phase").assign(mode=mode)


def headline(table: pd.DataFrame, counts: Iterable[int]) -> dict[int, dict[str, Interval]]:
    """``success``, ``paraphrase`` and ``retained`` by number of edits; what was not asked is left out.

    Args:
        table: of one editor and mode, as of :meth:`Retention.table`.
    """
    parts = {
        "success": ("edit", "success_mean"),
        "paraphrase": ("paraphrase", "success_mean"),
        "retained": (UNRELATED, "exact"),
    }
    there = set(zip(table["edits"], table["kind"], table["protocol"], strict=True))
    return {
        count: {
            name: interval_of(table, edits=count, kind=kind, protocol=protocol)
            for name, (kind, protocol) in parts.items()
            if (count, kind, protocol) in there
        }
        for count in counts
    }


def _make(editor: Editor, edits: Sequence[Edit], made: int, count: int, mode: str, together: int) -> None:
    """Bring an editor that has made some edits to a larger number."""
    if mode == BATCH:
        editor.reset()
        made, together = 0, count
    for start in range(made, count, together):
        editor.apply(edits[start : min(start + together, count)])


class _Unrelated:
    """Questions about unrelated facts, to whose prompts edits seldom contribute anything.

    Of a :class:`~palimpsest.editors.editor.ReadingEditor` those alone are asked again where they do.
    """

    def __init__(self, editor: Editor, asked: Sequence[Question], probing: Probing, baseline: Baseline) -> None:
        self.editor, self.asked, self.baseline = editor, asked, baseline
        self.probing = replace(probing, generated=("neighbor",))
        self.prompts = [question.prompt for question in asked]
        self.bare = editor.read(self.prompts) if isinstance(editor, ReadingEditor) else []
        self.untouched: dict[int, Row] = {}  # what an editor without edits says, by the question's place

    def ask(self) -> list[Row]:
        """A row a question, of the editor as it is."""
        if not isinstance(self.editor, ReadingEditor):
            return self._labelled(probe(self.editor, self.asked, self.probing, self.baseline))
        readings = self.editor.read(self.prompts)
        same = {place for place, reading in enumerate(readings) if reading == self.bare[place]}
        places = [place for place in range(len(self.asked)) if place not in same or place not in self.untouched]
        asked, read = [self.asked[place] for place in places], [readings[place] for place in places]
        rows = dict(zip(places, probe(self.editor, asked, self.probing, self.baseline, read), strict=True))
        self.untouched |= {place: row for place, row in rows.items() if place in same}
        return self._labelled((self.untouched | rows)[place] for place in range(len(self.asked)))

    def _labelled(self, rows: Iterable[Row]) -> list[Row]:
        return [row | {"kind": UNRELATED} for row in rows]
