"""Single, sequential and batch edits: what is asked when, and how a killed run goes on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from palimpsest.editors.editor import Editor, ReadingEditor
from palimpsest.evaluation.editing import Probing, questions
from palimpsest.evaluation.editing_runs import RowFiles, batch, sequential, single_edits
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


def test_a_sequence_is_asked_after_each_edit_and_at_each_checkpoint() -> None:
    editor = Notebook(capacity=2)
    rows = sequential(editor, EDITS, PROBING, BASELINE, checkpoints=(1, 4, 100))
    assert editor.applied == [["0"], ["1"], ["2"], ["3"]]  # nothing is asked after 4, so nothing is made
    assert outcomes(rows) == [
        ("after_edit", "0", 1, True), ("after_last", "0", 1, True),
        ("after_edit", "1", 2, True), ("after_edit", "2", 3, True), ("after_edit", "3", 4, True),
        ("after_last", "0", 4, False), ("after_last", "1", 4, False),
        ("after_last", "2", 4, True), ("after_last", "3", 4, True),
    ]  # fmt: skip
    assert [row["phase"] for row in rows if row["kind"] == "neighbor"] == ["after_last"] * 5
    assert editor.asked == 4 + 2  # once an edit and once a checkpoint
    both = sequential(editor, EDITS, PROBING, BASELINE, checkpoints=(1,), at_once=("edit", "neighbor"))
    assert [(row["phase"], row["kind"]) for row in both][:2] == [("after_edit", "edit"), ("after_edit", "neighbor")]
    assert sequential(editor, EDITS, PROBING, BASELINE, checkpoints=(100,)) == []


def test_a_batch_is_made_at_once() -> None:
    editor = Notebook(capacity=2)
    rows = batch(editor, EDITS[:3], PROBING, BASELINE)
    assert editor.applied == [["0", "1", "2"]]
    assert outcomes(rows) == [("after_last", "0", 3, False), ("after_last", "1", 3, True), ("after_last", "2", 3, True)]
    assert editor.asked == 1
    assert editor.facts == {}


RUNS = {
    "single": lambda editor, sink: single_edits(editor, EDITS, PROBING, BASELINE, sink=sink, chunk=5),
    "sequential": lambda editor, sink: sequential(editor, EDITS, PROBING, BASELINE, checkpoints=(1, 5, 12), sink=sink),
    "batch": lambda editor, sink: batch(editor, EDITS, PROBING, BASELINE, sink=sink),
}


@pytest.mark.parametrize(
    ("run", "kills", "left"), [("single", (1, 5, 6), 2), ("sequential", (0, 3, 5, 9), 12), ("batch", (0,), 1)]
)
def test_a_killed_run_goes_on_and_gives_the_same_rows(
    run: str, kills: tuple[int, ...], left: int, tmp_path: Path
) -> None:
    whole = RUNS[run](Notebook(capacity=3), RowFiles(tmp_path / "whole", {}))
    sink = RowFiles(tmp_path / "killed", {})
    for kill in kills:
        killed = Notebook(capacity=3, fails_at=kill)
        with pytest.raises(KeyboardInterrupt):
            RUNS[run](killed, sink)
        assert killed.facts == {}
    editor = Notebook(capacity=3)
    assert RUNS[run](editor, sink) == whole
    assert len(editor.applied) == left
    assert RUNS[run](editor, sink) == whole
    assert len(editor.applied) == left  # all is there: nothing is made again


def test_a_sequence_that_goes_on_makes_earlier_edits_again_and_asks_about_the_rest(tmp_path: Path) -> None:
    sink = RowFiles(tmp_path, {})
    whole = sequential(Notebook(), EDITS, PROBING, BASELINE, checkpoints=(1, 5, 12), sink=sink)
    (tmp_path / "sequential-12.jsonl").unlink()
    editor = Notebook()
    assert sequential(editor, EDITS, PROBING, BASELINE, checkpoints=(1, 5, 12), sink=sink) == whole
    assert len(editor.applied) == 12
    assert editor.asked == 7 + 1
    (tmp_path / "sequential-1.jsonl").unlink()
    editor = Notebook()
    assert sequential(editor, EDITS, PROBING, BASELINE, checkpoints=(1, 5, 12), sink=sink) == whole
    assert len(editor.applied) == 1


def test_row_files_are_whole_and_belong_to_one_setting(tmp_path: Path) -> None:
    sink, rows = (
        RowFiles(tmp_path, {"rate": 1}),
        [{"case_id": "0", "exact": True, "difference": None, "text": "Ærø\u2028"}],
    )
    assert sink.load("a") is None
    sink.save("a", rows)
    sink.save("none", [])
    assert sink.load("a") == rows
    assert sink.load("none") == []
    assert RowFiles(tmp_path, {"rate": 2}).load("a") is None
    lines = (tmp_path / "a.jsonl").read_text(encoding="utf-8").split("\n")
    assert json.loads(lines[0]) == {"rate": 1}
    assert len(lines) == 3
    with pytest.raises(ValueError, match="JSON compliant"):
        sink.save("a", [{"difference": float("nan")}])
    assert sink.load("a") == rows  # what cannot be written leaves what was there
