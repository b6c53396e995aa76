"""Single edits: what is asked when, and how a killed run goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from palimpsest.editors.editor import Editor, ReadingEditor
from palimpsest.evaluation.editing import Probing, questions
from palimpsest.evaluation.editing_runs import single_edits
from palimpsest.evaluation.rows import RowFiles
from palimpsest.facts import Edit, Probe
from palimpsest.lm.scoring import TargetScore

EDITS = [
    Edit(str(n), f"S{n}", f"S{n} is", f"new{n}", (f"old{n}",), neighbors=(Probe(f"N{n} is", f"old{n}"),))
    for n in range(12)
]
PROBING = Probing()
BASELINE = {question: question.answer if question.kind == "neighbor" else "" for question in questions(EDITS)}


class Notebook(Editor):
    """Says what it was told, of what it was told most recently first; remembers at most so many facts."""

    def __init__(self, capacity: int = 100, fails_at: int | None = None) -> None:
        super().__init__(SimpleNamespace())  # type: ignore[arg-type]
        self.capacity, self.fails_at = capacity, fails_at
        self.facts: dict[str, str] = {}
        self.applied: list[list[str]] = []
        self.asked = self.resets = 0

    def apply(self, edits: Sequence[Edit]) -> None:
        if self.fails_at is not None and len(self.applied) == self.fails_at:
            raise KeyboardInterrupt
        self.applied.append([edit.case_id for edit in edits])
        self.facts |= {edit.prompt: edit.target_new for edit in edits}
        self.facts = dict(list(self.facts.items())[-self.capacity :])

    def reset(self) -> None:
        self.facts = {}
        self.resets += 1

    def score(self, prompts: Sequence[str], targets: Sequence[str]) -> list[TargetScore]:
        self.asked += 1
        says = [
            self.facts.get(prompt, f"old{prompt[1:-3]}") == target
            for prompt, target in zip(prompts, targets, strict=True)
        ]
        return [TargetScore((0,), (-0.1 if right else -3.0,), (right,)) for right in says]

    def generate(self, prompts: Sequence[str], *, max_new_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        return [f" {self.facts.get(prompt, f'old{prompt[1:-3]}')}" for prompt in prompts]


class ReadingNotebook(Notebook, ReadingEditor[tuple[str, str]]):
    """The same by way of readings: a prompt and what is said after it."""

    def prepare(self, edits: Sequence[Edit], prompts: Sequence[str]) -> None:
        self.told = [*getattr(self, "told", []), ([edit.case_id for edit in edits], list(prompts))]

    def read(self, prompts: Sequence[str]) -> list[tuple[str, str]]:
        return [(prompt, self.facts.get(prompt, f"old{prompt[1:-3]}")) for prompt in prompts]

    def score_read(self, readings: Sequence[tuple[str, str]], targets: Sequence[str]) -> list[TargetScore]:
        self.asked += 1
        right = [answer == target for (_, answer), target in zip(readings, targets, strict=True)]
        return [TargetScore((0,), (-0.1 if it_is else -3.0,), (it_is,)) for it_is in right]

    def generate_read(
        self, readings: Sequence[tuple[str, str]], *, max_new_tokens: int, stop: Sequence[str] = ()
    ) -> list[str]:
        return [f" {answer}" for _, answer in readings]


def outcomes(rows: Sequence[dict], kind: str = "edit") -> list[tuple[str, str, int, bool]]:
    return [(row["phase"], row["case_id"], row["edits"], row["exact"]) for row in rows if row["kind"] == kind]


def test_single_edits_are_each_made_alone() -> None:
    editor = Notebook()
    rows = single_edits(editor, EDITS[:3], PROBING, BASELINE)
    assert editor.applied == [["0"], ["1"], ["2"]]
    assert outcomes(rows) == [("after_edit", str(n), 1, True) for n in range(3)]
    assert all(row["success_mean"] and row["unchanged"] for row in rows if row["kind"] == "neighbor")
    assert editor.facts == {}


@pytest.mark.parametrize(("chunk", "calls"), [(5, 3), (100, 1)])
def test_where_edits_act_by_what_is_read_a_chunk_is_asked_about_at_once(chunk: int, calls: int) -> None:
    same = replace(EDITS[3], case_id="same", target_new="other")  # as the third, with another answer
    edits = [*EDITS, same]
    editor, plain = ReadingNotebook(), Notebook()
    baseline = {question: question.answer for question in questions(edits)}
    rows = single_edits(editor, edits, PROBING, baseline, chunk=chunk)
    assert rows == single_edits(plain, edits, PROBING, baseline)
    assert editor.applied == plain.applied == [[edit.case_id] for edit in edits]
    assert (editor.asked, plain.asked) == (calls, 13)
    assert [case for cases, _ in editor.told for case in cases] == [edit.case_id for edit in edits]
    assert [prompt for _, prompts in editor.told for prompt in prompts] == [q.prompt for q in questions(edits)]
    assert len(editor.told) == calls


@pytest.mark.parametrize("kills", [(1, 5, 6)])
def test_a_killed_run_goes_on_and_gives_the_same_rows(kills: tuple[int, ...], tmp_path: Path) -> None:
    def run(editor: Notebook, sink: RowFiles) -> list[dict]:
        return single_edits(editor, EDITS, PROBING, BASELINE, sink=sink, chunk=5)

    whole, sink = run(Notebook(capacity=3), RowFiles(tmp_path / "whole", {})), RowFiles(tmp_path / "killed", {})
    for kill in kills:
        killed = Notebook(capacity=3, fails_at=kill)
        with pytest.raises(KeyboardInterrupt):
            run(killed, sink)
        assert killed.facts == {}
    editor = Notebook(capacity=3)
    assert run(editor, sink) == whole
    assert len(editor.applied) == 2
    assert run(editor, sink) == whole
    assert len(editor.applied) == 2  # all is there: nothing is made again
