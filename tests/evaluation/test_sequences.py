"""Sequences and batches: who is asked when, and against what neighbours are held."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from fake_editors import Notebook

from palimpsest.editors.editor import Editor, ReadingEditor
from palimpsest.evaluation.editing import Probing
from palimpsest.evaluation.editing_runs import AFTER_EDIT, AFTER_LAST, asked_about, batch, neighbor_answers, sequence
from palimpsest.facts import Edit, Probe
from palimpsest.lm.scoring import TargetScore

KNOWS = {f"n{number:02}": f"old{number}" for number in range(12)}
EDITS = [
    Edit(str(n), f"s{n:02}", f"s{n:02} is", f"new{n}", (f"old{n}",), neighbors=(Probe(f"n{n:02} is", f"old{n}"),))
    for n in range(12)
]
PROBING = Probing(kinds=("edit", "neighbor"))


class Reader(Notebook, ReadingEditor[str]):
    """The same behind the interface of those that read: what is read is the answer."""

    def read(self, prompts: Sequence[str]) -> list[str]:
        return [self.answer(prompt) for prompt in prompts]

    def score_read(self, readings: Sequence[str], targets: Sequence[str]) -> list[TargetScore]:
        self.calls.append(("score", list(readings)))
        right = [reading == target for reading, target in zip(readings, targets, strict=True)]
        return [TargetScore((0,), (-0.1 if it_is else -3.0,), (it_is,)) for it_is in right]

    def generate_read(self, readings: Sequence[str], *, max_new_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        return [f" {reading}" for reading in readings]


def said(rows: list[dict], phase: str) -> list[tuple[str, int, bool]]:
    return [(r["case_id"], r["edits"], r["exact"]) for r in rows if r["phase"] == phase and r["kind"] == "edit"]


def in_sequence(editor: Editor, edits: Sequence[Edit] = EDITS, **settings: Any) -> list[dict]:
    return sequence(editor, edits, PROBING, neighbor_answers(editor, edits, PROBING), **settings)


def test_a_sequence_is_asked_about_in_samples() -> None:
    editor = Notebook(KNOWS, capacity=3)
    rows = in_sequence(editor, at_once=4, limit=6)
    assert said(rows, AFTER_EDIT) == [("2", 3, True), ("5", 6, True), ("8", 9, True), ("11", 12, True)]
    last = said(rows, AFTER_LAST)
    assert len(last) == 6
    assert all(edits == 12 and exact == (int(case) >= 9) for case, edits, exact in last)
    assert all(row["unchanged"] for row in rows if row["kind"] == "neighbor")
    made = [case for name, cases in editor.calls if name == "apply" for case in cases]
    assert made == [str(number) for number in range(12)]
    assert editor.told == {}
    assert len(said(in_sequence(editor, at_once=99), AFTER_EDIT)) == 12
    assert len(said(in_sequence(editor), AFTER_LAST)) == 12


def test_who_will_be_asked_is_known_beforehand() -> None:
    settings = {"at_once": 3, "limit": 5, "seed": 2}
    rows = in_sequence(Notebook(KNOWS), **settings)
    assert {edit.case_id for edit in asked_about(EDITS, **settings)} == {row["case_id"] for row in rows}


def test_edits_between_questions_may_be_made_in_one_call() -> None:
    editor, counted = Notebook(KNOWS), []
    rows = in_sequence(editor, at_once=2, limit=6, together=4, made=counted.append)
    made = [cases for name, cases in editor.calls if name == "apply"]
    assert list(map(len, made)) == counted == [4, 2, 4, 2]  # asked after six and after all twelve
    assert [case for cases in made for case in cases] == [edit.case_id for edit in EDITS]
    assert rows == in_sequence(Notebook(KNOWS), at_once=2, limit=6)


def test_a_batch_is_made_at_once_and_asked_about_after_it() -> None:
    editor = Notebook(KNOWS)
    rows = batch(editor, EDITS, PROBING, neighbor_answers(editor, EDITS, PROBING), limit=6)
    assert [cases for name, cases in editor.calls if name == "apply"] == [[edit.case_id for edit in EDITS]]
    assert said(rows, AFTER_EDIT) == []
    assert len(said(rows, AFTER_LAST)) == 6
    assert editor.told == {}


def test_one_that_reads_is_asked_in_one_pass_and_says_what_it_would_have_said_then() -> None:
    one_by_one, reader = Notebook(KNOWS, capacity=3), Reader(KNOWS, capacity=3)
    settings = {"at_once": 5, "limit": 4, "seed": 1}
    assert in_sequence(reader, **settings) == in_sequence(one_by_one, **settings)
    assert sum(name == "score" for name, _ in reader.calls) == 2
    applied = [place for place, (name, _) in enumerate(reader.calls) if name == "apply"]
    assert all(later - earlier == 1 for earlier, later in pairwise(applied))


def test_neighbours_are_held_against_what_was_said_before_the_first_edit() -> None:
    wrong = dict.fromkeys(KNOWS, "nonsense")
    rows = in_sequence(Notebook(wrong), at_once=2, limit=4)
    assert {(r["exact"], r["unchanged"]) for r in rows if r["kind"] == "neighbor"} == {(False, True)}


def test_nobody_is_asked_about_a_neighbour_that_is_edited_itself() -> None:
    edited = Edit("12", "n03", "n03 is", "new", ("old3",), neighbors=(Probe("n11 is", "old11"),))
    likewise = Edit("13", "n05", "n05 lies in", "new", ("another fact",), neighbors=(Probe("n10 is", "old10"),))
    rows = in_sequence(Notebook(KNOWS), [*EDITS[:8], edited, likewise], at_once=10)
    for phase in (AFTER_EDIT, AFTER_LAST):
        asked = [row["case_id"] for row in rows if row["phase"] == phase and row["kind"] == "neighbor"]
        assert asked == ["0", "1", "2", "4", "5", "6", "7", "12", "13"]


def test_what_is_to_be_done_after_the_last_edit_sees_all_of_them() -> None:
    editor = Notebook(KNOWS)
    assert in_sequence(editor, limit=1, after=lambda: [{"told": len(editor.told)}])[-1] == {"told": 12}

    def fail() -> list:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        in_sequence(editor, limit=1, after=fail)
    assert editor.told == {}
