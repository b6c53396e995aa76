"""Editors whose edits act through what is read for a prompt: readings keep, and many edits are asked about at once."""

from __future__ import annotations

import pytest
from every_editor import IRRELEVANT, LARIMAR, METHODS
from hydra.utils import get_class

from palimpsest.editors.editor import ReadingEditor
from palimpsest.evaluation.editing import Probing, Row, greedy_answers, probe, questions
from palimpsest.evaluation.editing_runs import single_edits
from palimpsest.facts import Edit, Probe

READING = [
    method for method, description in METHODS.items() if issubclass(get_class(description["_target_"]), ReadingEditor)
]
DARRIEUX = "The mother tongue of Danielle Darrieux"
NEIGHBORS = (Probe(IRRELEVANT[0], "Bordeaux"), Probe("What continent is Mount Erebus", "Antarctica"))
EDITS = [
    Edit("0", "Danielle Darrieux", DARRIEUX, "Norway", ("French",), paraphrases=("The tongue of Danielle Darrieux",),
         neighbors=NEIGHBORS),
    Edit("1", "Mount Erebus", "What continent is Mount Erebus", "Viking Press", ("Antarctica", "Oslo"),
         neighbors=(Probe(DARRIEUX, "French"), NEIGHBORS[0])),
    Edit("2", "Danielle Darrieux", DARRIEUX, "Oslo", ("French",), neighbors=NEIGHBORS),  # the first's prompt
    Edit("3", "Dusk", "Who wrote Dusk", "Oslo", ("Lee",), portability=(Probe("Dusk is by. And", "Norway", "Rome"),)),
]  # fmt: skip
PROBING = Probing(max_new_tokens=3)
PROMPTS = [question.prompt for question in questions(EDITS)]
TARGETS = [question.answer for question in questions(EDITS)]


@pytest.fixture(params=READING)
def method(request: pytest.FixtureRequest) -> str:
    return request.param


def one_by_one(editor: ReadingEditor) -> list[Row]:
    """The plain way, with nothing kept from one edit to the next."""
    rows = []
    baseline = greedy_answers(editor, questions(EDITS), PROBING)
    for edit in EDITS:
        editor.reset()
        editor.apply([edit])
        rows += probe(editor, questions([edit]), PROBING, baseline)
    editor.reset()
    return [row | {"phase": "after_edit", "edits": 1} for row in rows]


def test_which_editors_read() -> None:
    assert {"none", "incontext", *LARIMAR} <= set(READING)
    assert not {"ft", "rome", "wise"} & set(READING)


@pytest.mark.parametrize("chunk", [1, 3, 10])
def test_single_edits_asked_about_at_once_are_as_asked_about_one_by_one(editor: ReadingEditor, chunk: int) -> None:
    expected = one_by_one(editor)
    baseline = greedy_answers(editor, questions(EDITS), PROBING)
    rows = single_edits(editor, EDITS, PROBING, baseline, chunk=chunk)
    for row, wanted in zip(rows, expected, strict=True):
        for number in ("difference", "token_accuracy"):
            assert row.pop(number) == pytest.approx(wanted.pop(number), abs=1e-5)
        assert row == wanted


def test_what_was_read_holds_whatever_is_edited_afterwards(editor: ReadingEditor) -> None:
    editor.apply(EDITS[:2])
    answers = editor.score(PROMPTS, TARGETS), editor.generate(PROMPTS, max_new_tokens=3)
    readings = editor.read(PROMPTS)
    editor.apply(EDITS[2:])
    editor.reset()
    assert editor.score_read(readings, TARGETS) == answers[0]
    assert editor.generate_read(readings, max_new_tokens=3) == answers[1]


def test_readings_under_different_edits_are_asked_in_one_call(method: str, editor: ReadingEditor) -> None:
    if method == "none":
        pytest.skip("it has nothing to tell apart")
    before = editor.read([DARRIEUX])
    editor.apply(EDITS[:1])
    norway = editor.read([DARRIEUX])
    editor.apply(EDITS[2:3])
    first, second, third = editor.score_read([*before, *norway, *editor.read([DARRIEUX])], ["Norway"] * 3)
    assert second.logprob > max(first.logprob, third.logprob) + 0.1
