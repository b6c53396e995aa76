"""Sequences and batches: who is asked when, and against what neighbours are held."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from fake_editors import Notebook

from palimpsest.editors.editor import ReadingEditor
from palimpsest.evaluation.editing import Probing
from palimpsest.evaluation.editing_runs import AFTER_EDIT, AFTER_LAST
from palimpsest.evaluation.sequences import BATCH, SEQUENCE, edit_and_ask
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


def test_a_sequence_is_asked_about_in_samples() -> None:
    editor = Notebook(KNOWS, capacity=3)
    rows = edit_and_ask(editor, EDITS, PROBING, mode=SEQUENCE, at_once=4, limit=6, seed=0)
    assert said(rows, AFTER_EDIT) == [("2", 3, True), ("5", 6, True), ("8", 9, True), ("11", 12, True)]
    last = said(rows, AFTER_LAST)
    assert len(last) == 6
    assert all(edits == 12 and exact == (int(case) >= 9) for case, edits, exact in last)
    assert all(row["unchanged"] for row in rows if row["kind"] == "neighbor")
    made = [case for name, cases in editor.calls if name == "apply" for case in cases]
    assert made == [str(number) for number in range(12)]
    assert editor.told == {}
    assert (
        len(said(edit_and_ask(editor, EDITS, PROBING, mode=SEQUENCE, at_once=99, limit=99, seed=0), AFTER_EDIT)) == 12
    )


def test_edits_between_questions_may_be_made_in_one_call() -> None:
    settings = {"mode": SEQUENCE, "at_once": 2, "limit": 6, "seed": 0}
    editor = Notebook(KNOWS)
    rows = edit_and_ask(editor, EDITS, PROBING, together=4, **settings)
    made = [cases for name, cases in editor.calls if name == "apply"]
    assert list(map(len, made)) == [4, 2, 4, 2]  # asked after six and after all twelve
    assert [case for cases in made for case in cases] == [edit.case_id for edit in EDITS]
    assert rows == edit_and_ask(Notebook(KNOWS), EDITS, PROBING, **settings)


def test_a_batch_is_made_at_once_and_asked_about_after_it() -> None:
    editor = Notebook(KNOWS)
    rows = edit_and_ask(editor, EDITS, PROBING, mode=BATCH, at_once=4, limit=6, seed=0)
    assert [cases for name, cases in editor.calls if name == "apply"] == [[edit.case_id for edit in EDITS]]
    assert said(rows, AFTER_EDIT) == []
    assert len(said(rows, AFTER_LAST)) == 6
    with pytest.raises(ValueError, match="mode 'both'"):
        edit_and_ask(editor, EDITS, PROBING, mode="both", at_once=0, limit=1, seed=0)


def test_one_that_reads_is_asked_in_one_pass_and_says_what_it_would_have_said_then() -> None:
    one_by_one, reader = Notebook(KNOWS, capacity=3), Reader(KNOWS, capacity=3)
    settings = {"mode": SEQUENCE, "at_once": 5, "limit": 4, "seed": 1}
    assert edit_and_ask(reader, EDITS, PROBING, **settings) == edit_and_ask(one_by_one, EDITS, PROBING, **settings)
    assert sum(name == "score" for name, _ in reader.calls) == 2
    applied = [place for place, (name, _) in enumerate(reader.calls) if name == "apply"]
    assert all(later - earlier == 1 for earlier, later in pairwise(applied))


def test_neighbours_are_held_against_what_was_said_before_the_first_edit() -> None:
    wrong = dict.fromkeys(KNOWS, "nonsense")
    rows = edit_and_ask(Notebook(wrong), EDITS, PROBING, mode=SEQUENCE, at_once=2, limit=4, seed=0)
    assert {(r["exact"], r["unchanged"]) for r in rows if r["kind"] == "neighbor"} == {(False, True)}


def test_nobody_is_asked_about_a_neighbour_that_is_edited_itself() -> None:
    edited = Edit("12", "n03", "n03 is", "new", ("old3",), neighbors=(Probe("n11 is", "old11"),))
    likewise = Edit("13", "n05", "n05 lies in", "new", ("another fact",), neighbors=(Probe("n10 is", "old10"),))
    edits = [*EDITS[:8], edited, likewise]
    rows = edit_and_ask(Notebook(KNOWS), edits, PROBING, mode=SEQUENCE, at_once=10, limit=10, seed=0)
    for phase in (AFTER_EDIT, AFTER_LAST):
        asked = [row["case_id"] for row in rows if row["phase"] == phase and row["kind"] == "neighbor"]
        assert asked == ["0", "1", "2", "4", "5", "6", "7", "12", "13"]


def test_what_is_to_be_done_after_the_last_edit_sees_all_of_them() -> None:
    editor = Notebook(KNOWS)
    rows = edit_and_ask(
        editor, EDITS, PROBING, mode=SEQUENCE, at_once=0, limit=1, seed=0, after=lambda: [{"told": len(editor.told)}]
    )
    assert rows[-1] == {"told": 12}

    def fail() -> list:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        edit_and_ask(editor, EDITS, PROBING, mode=SEQUENCE, at_once=0, limit=1, seed=0, after=fail)
    assert editor.told == {}
