"""The experiments that every editing method goes through, in the same form and with the same questions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain, groupby
from typing import Any, NamedTuple

from tqdm import tqdm

from palimpsest.data.prepared import PreparedData
from palimpsest.editors.editor import Editor, ReadingEditor
from palimpsest.evaluation.attacks import families
from palimpsest.evaluation.contradictions import contradict, contradictions
from palimpsest.evaluation.drift import Drift
from palimpsest.evaluation.editing import Baseline, Probing, Row, questions
from palimpsest.evaluation.editing_runs import asked_about, batch, neighbor_answers, sequence, single_edits
from palimpsest.evaluation.forgetting import forget_some, plan_rounds
from palimpsest.evaluation.rows import FORGETFUL, Sink, kept
from palimpsest.evaluation.same_subject import SAME_SUBJECT, other_facts, probes_of
from palimpsest.facts import Edit

TOGETHER = 64  # edits of a sequence made in one call, where that is the same as a call for each


@dataclass(frozen=True, kw_only=True)
class Experiments:
    """All experiments on one editor; a run that was killed goes on from what its sink has.

    Args:
        prepared: the test split is asked, edits in CounterFact's form and questions in ZsRE's.
        settings: the section ``editing`` of the parameters.
    """

    editor: Editor
    prepared: PreparedData
    settings: Mapping[str, Any]
    sink: Sink = FORGETFUL
    progress: bool = False

    def rows(self) -> dict[str, list[Row]]:
        """The rows of each of :data:`~palimpsest.evaluation.rows.EXPERIMENTS`; none of what the editor cannot do."""
        sequential = self._sequential()
        return {
            "single": self._single(),
            "sequential": [row for row in sequential if "measure" not in row],
            "batch": self._batch(),
            "drift": [row for row in sequential if "measure" in row],
            "forgetting": self._forgetting() if self.editor.forgets else [],
            "contradictions": kept(self.sink, "contradictions", self._contradictions),
        }

    @cached_property
    def probing(self) -> Probing:
        return Probing(max_new_tokens=self.settings["max_new_tokens"])

    @cached_property
    def edits(self) -> list[Edit]:
        """In CounterFact's form, one a fact, each with as many questions as are asked."""
        most = self.settings["questions"]
        facts = {(edit.subject, edit.relation): edit for edit in reversed(self.prepared.edits("test"))}
        return [
            replace(
                edit,
                neighbors=edit.neighbors[: most["neighbors"]],
                portability=edit.portability[: most["portability"]],
            )
            for edit in reversed(facts.values())
        ]

    def _single(self) -> list[Row]:
        """Other facts of an edit's subject are asked as further neighbours, and told apart afterwards."""
        own = self.settings["single"]
        edits = self._first(self.edits, own["edits"])
        beside = other_facts(edits, self.prepared.recall("train"), self.settings["questions"]["same_subject"])
        asked = [replace(edit, neighbors=(*edit.neighbors, *probes_of(facts))) for edit, facts in beside]
        baseline = neighbor_answers(self.editor, asked, self.probing)
        rows = single_edits(
            self.editor, asked, self.probing, baseline, sink=self.sink, chunk=own["chunk"], progress=self.progress
        )
        neighbors = {edit.case_id: len(edit.neighbors) for edit in edits}
        return [
            row | {"kind": SAME_SUBJECT, "number": row["number"] - neighbors[row["case_id"]]}
            if row["kind"] == "neighbor" and row["number"] >= neighbors[row["case_id"]]
            else row
            for row in rows
        ]

    def _sequential(self) -> list[Row]:
        own, measured, drift = self.settings["sequential"], self.settings["drift"]["lengths"], self._unedited()
        runs = _slices(self.prepared.questions("test"), own["sequences"])
        with tqdm(desc="edits in sequences", disable=not self.progress) as bar:

            def run(edits: Sequence[Edit], baseline: Baseline, asking: Mapping[str, int]) -> list[Row]:
                return sequence(
                    self.editor,
                    edits,
                    self.probing,
                    baseline,
                    **asking,
                    together=TOGETHER if self.editor.one_by_one else 1,
                    after=partial(self._drift, drift, edits) if len(edits) in measured else tuple,
                    made=bar.update,
                )

            return self._several("sequential", runs, run, at_once=own["at_once"], limit=own["limit"])

    def _batch(self) -> list[Row]:
        own = self.settings["batch"]
        runs = _slices(self.edits, own["sizes"])

        def run(edits: Sequence[Edit], baseline: Baseline, asking: Mapping[str, int]) -> list[Row]:
            return batch(self.editor, edits, self.probing, baseline, limit=asking["limit"], seed=asking["seed"])

        return self._several("batch", runs, run, at_once=0, limit=own["limit"])

    def _several(
        self,
        name: str,
        runs: Mapping[Run, Sequence[Edit]],
        make: Callable[[Sequence[Edit], Baseline, Mapping[str, int]], list[Row]],
        *,
        at_once: int,
        limit: int,
    ) -> list[Row]:
        """The rows of several sequences or batches, with ``length`` and ``run``.

        What can be worked out for all of one length is, before the first of them.
        """
        several: list[Row] = []
        for length, group in groupby(runs.items(), key=lambda item: item[0].length):
            # Of a single edit both phases are the same.
            asking = {"at_once": at_once if length > 1 else 0, "limit": limit, "seed": self.settings["seed"]}
            of_length = dict(group)
            names = {run: f"{name}-{length}-{run.number}" for run in of_length}
            found = {run: rows for run in of_length if (rows := self.sink.load(names[run])) is not None}
            missing = {run: edits for run, edits in of_length.items() if run not in found}
            baseline = self._prepared(list(missing.values()), asking)
            for run, edits in missing.items():
                found[run] = make(edits, baseline, asking)
                self.sink.save(names[run], found[run])
            several += [row | {"length": length, "run": run.number} for run in of_length for row in found[run]]
        return several

    def _prepared(self, runs: Sequence[Sequence[Edit]], asking: Mapping[str, int]) -> Baseline:
        """Make an editor ready for some sequences or batches."""
        asked = list(dict.fromkeys(edit for edits in runs for edit in asked_about(edits, **asking)))
        if isinstance(self.editor, ReadingEditor):
            prompts = [question.prompt for question in questions(asked, self.probing.kinds)]
            self.editor.prepare(list(chain(*runs)), prompts)
        return neighbor_answers(self.editor, asked, self.probing)

    def _drift(self, unedited: Drift, edits: Sequence[Edit]) -> list[Row]:
        """How far the editor is now; fluency is of what it writes after the subjects' names."""
        own = self.settings["drift"]["fluency"]
        named = [replace(edit, generation_prompts=(edit.subject,)) for edit in edits[: own["edits"]]]
        return unedited.rows(self.editor, named, max_new_tokens=own["max_new_tokens"])

    def _unedited(self) -> Drift:
        own = self.settings["drift"]
        texts = list(self.prepared.text("dev"))[: own["texts"]]
        return Drift.of(self.editor, texts, sampled_tokens=own["sampled_tokens"], seed=self.settings["seed"])

    def _forgetting(self) -> list[Row]:
        own, seed = self.settings["forgetting"], self.settings["seed"]
        edits = self._first(list({edit.prompt: edit for edit in self.edits}.values()), own["edits"])
        sentences = [text.split(". ")[0] + "." for text in self.prepared.text("dev")]
        rounds = plan_rounds(edits, dict(own["turns"]), own["kept"], seed)
        asked = families(edits, sentences, seed=seed)
        return forget_some(self.editor, edits, rounds, asked, self.probing, sink=self.sink, progress=self.progress)

    def _contradictions(self) -> list[Row]:
        pairs = contradictions(self.edits, self.edits, self.settings["contradictions"], self.settings["seed"])
        return contradict(self.editor, pairs, self.probing)

    def _first(self, edits: Sequence[Edit], count: int) -> list[Edit]:
        [chosen] = _slices(edits, [(count, 1)]).values()
        return chosen


class Run(NamedTuple):
    """A sequence or batch: how many edits, and which of those of its length it is."""

    length: int
    number: int


def _slices(edits: Sequence[Edit], runs: Sequence[Sequence[int]]) -> dict[Run, list[Edit]]:
    """Edits for each length and run of it: in turn from the front, so that what comes first (famous subjects) comes
    first in all runs.

    Args:
        runs: pairs of a length and how many runs there are of it, no two of which share an edit.

    Raises:
        ValueError: there are fewer edits.
    """
    slices: dict[Run, list[Edit]] = {}
    for length, times in runs:
        if length * times > len(edits):
            raise ValueError(f"{times} times {length} edits are asked for, but there are {len(edits)}")
        slices |= {Run(length, number): list(edits[number : length * times : times]) for number in range(times)}
    return slices
