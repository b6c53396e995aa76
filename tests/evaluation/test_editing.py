"""The protocols, by hand: a fake editor says what it is told to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import SimpleNamespace

import numpy as np
import pytest

from palimpsest.editors.editor import Editor
from palimpsest.evaluation.editing import (
    COUNTERFACT,
    FREE,
    Probing,
    Question,
    greedy_answers,
    harmonic_mean,
    probe,
    questions,
    score,
    summarize,
)
from palimpsest.evaluation.statistics import share
from palimpsest.facts import Edit, Probe
from palimpsest.lm.scoring import TargetScore

EDIT = Edit(
    "7", "Ann", "Ann was born in", "Oslo", ("Rome", "Roma"),
    paraphrases=("The birthplace of Ann is",),
    neighbors=(Probe("Bo was born in", "Rome"), Probe("Cy was born in", "Oslo")),
    portability=(Probe("The country of Ann's birth is", "Norway", "Italy"), Probe("Ann's mayor is", "Lee")),
)  # fmt: skip


class FakeEditor(Editor):
    """Says by prompt and target what the log-probabilities of its tokens are, and by prompt what it writes."""

    def __init__(self, logprobs: Mapping[tuple[str, str], Sequence[float]], texts: Mapping[str, str]) -> None:
        super().__init__(SimpleNamespace())  # type: ignore[arg-type]
        self.logprobs, self.texts = logprobs, texts
        self.calls: list[tuple[str, int]] = []

    def apply(self, edits: Sequence[Edit]) -> None:
        pass

    def reset(self) -> None:
        pass

    def score(self, prompts: Sequence[str], targets: Sequence[str]) -> list[TargetScore]:
        self.calls.append(("score", len(prompts)))
        return [
            TargetScore(tuple(range(len(found))), tuple(found), tuple(value > -1 for value in found))
            for pair in zip(prompts, targets, strict=True)
            for found in [self.logprobs.get(pair, (-5.0,))]
        ]

    def generate(self, prompts: Sequence[str], *, max_new_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        self.calls.append((f"generate {''.join(stop)!r}", len(prompts)))
        return [self.texts[prompt] for prompt in prompts]


TEXTS = {
    "Ann was born in": " Oslo and",
    "The birthplace of Ann is": " Oslofjord",
    "Bo was born in": " Rome",
    "Cy was born in": " Bergen",
    "The country of Ann's birth is": " Norway",
    "Ann's mayor is": " Moss",
}


def test_questions_have_an_answer_that_should_win_and_rivals_that_should_not() -> None:
    assert questions([EDIT]) == [
        Question("7", "edit", 0, "Ann was born in", "Oslo", ("Rome", "Roma")),
        Question("7", "paraphrase", 0, "The birthplace of Ann is", "Oslo", ("Rome", "Roma")),
        Question("7", "neighbor", 0, "Bo was born in", "Rome", ("Oslo",)),
        Question("7", "neighbor", 1, "Cy was born in", "Oslo", ()),
        Question("7", "portability", 0, "The country of Ann's birth is", "Norway", ("Italy",)),
        Question("7", "portability", 1, "Ann's mayor is", "Lee", ()),
    ]
    assert [question.kind for question in questions([EDIT, EDIT], ("edit",))] == ["edit", "edit"]


def test_success_by_mean_and_by_total_differ_where_lengths_do() -> None:
    prompt = EDIT.prompt
    # Oslo: total −2, mean −1. Rome: total −1.5, mean −1.5. Roma: less than both.
    logprobs = {(prompt, "Oslo"): (-0.5, -1.5), (prompt, "Rome"): (-1.5,), (prompt, "Roma"): (-9.0,)}
    [row] = probe(FakeEditor(logprobs, TEXTS), questions([EDIT], ("edit",)), Probing(), {})
    assert row["success_mean"] is True
    assert row["success_total"] is False
    assert row["difference"] == pytest.approx(math.exp(-1) - math.exp(-1.5))
    assert row["token_accuracy"] == 0.5
    assert row["exact"] is True
    assert row["unchanged"] is None
    assert (row["case_id"], row["kind"], row["number"], row["generated"]) == ("7", "edit", 0, "Oslo and")


def test_a_tie_is_no_success() -> None:
    logprobs = {(EDIT.prompt, target): (-1.0,) for target in ("Oslo", "Rome")}
    [row] = probe(FakeEditor(logprobs, TEXTS), questions([EDIT], ("edit",)), Probing(), {})
    assert row["success_mean"] is row["success_total"] is False


def test_neighbors_are_to_stay_and_are_compared_with_the_unedited_model() -> None:
    asked = questions([EDIT])
    before = dict(zip(asked, ["", "", "Rome", "Rome", "", ""], strict=True))
    logprobs = {("Bo was born in", "Rome"): (-0.5,), ("Bo was born in", "Oslo"): (-0.7,)}
    rows = probe(FakeEditor(logprobs, TEXTS), asked, Probing(), before)
    neighbors = [row for row in rows if row["kind"] == "neighbor"]
    assert [row["success_mean"] for row in neighbors] == [True, None]  # the second has no rival
    assert neighbors[0]["difference"] == pytest.approx(math.exp(-0.5) - math.exp(-0.7))
    assert [row["unchanged"] for row in neighbors] == [True, False]
    assert [row["exact"] for row in rows] == [True, False, True, False, True, False]  # Oslofjord is not Oslo
    assert [row["success_total"] for row in rows[4:]] == [False, None]


def test_all_is_asked_in_few_calls_and_what_is_not_wanted_not_at_all() -> None:
    editor = FakeEditor({}, TEXTS | {"Ed lives in": " St. Gallen"})
    saint = Edit("8", "Ed", "Ed lives in", "St. Gallen", ())
    asked = questions([EDIT, EDIT, saint])
    before = dict.fromkeys(asked, "")
    rows = probe(editor, asked, Probing(), before)
    assert editor.calls == [("score", 2 * (3 + 3 + 2 + 1 + 2 + 1) + 1), ("generate '.\\n'", 12), ("generate '\\n'", 1)]
    assert rows[-1]["exact"] is True  # its answer holds a stop string, which then does not stop
    rows = probe(editor, asked, Probing(generated=("edit",)), {})
    assert {row["kind"] for row in rows if row["exact"] is not None} == {"edit"}
    assert all(row["unchanged"] is None for row in rows)
    assert probe(editor, [], Probing(), {}) == []
    with pytest.raises(KeyError):
        probe(editor, asked, Probing(), {})
    assert greedy_answers(editor, asked[:1], Probing()) == {asked[0]: "Oslo and"}


def test_probabilities_that_are_no_numbers_are_no_success() -> None:
    logprobs = {(EDIT.prompt, "Oslo"): (math.nan,), (EDIT.prompt, "Rome"): (-1.0,), (EDIT.prompt, "Roma"): (-1.0,)}
    [row] = probe(FakeEditor(logprobs, TEXTS), questions([EDIT], ("edit",)), Probing(), {})
    assert row["success_mean"] is False
    assert row["difference"] is None


def row(case: str, kind: str, **outcomes: object) -> dict[str, object]:
    empty = dict.fromkeys(["success_mean", "success_total", "exact", "unchanged", "difference", "token_accuracy"])
    return {"case_id": case, "kind": kind, "phase": "after_last", "edits": 2, **empty, **outcomes}


def test_averages_by_hand() -> None:
    rows = [
        row("0", "edit", success_mean=True, token_accuracy=1.0),
        row("1", "edit", success_mean=False, token_accuracy=0.5),
        row("0", "neighbor", success_mean=True, difference=0.5),
        row("0", "neighbor", success_mean=True, difference=0.1),
        row("1", "neighbor", success_mean=False, difference=0.0),
        row("1", "neighbor"),
    ]
    table = summarize([*rows, row("0", "edit", exact=True) | {"phase": "after_edit", "edits": 1}])
    values = {
        (phase, edits, kind, protocol): (value, n)
        for phase, edits, kind, protocol, value, n in table[
            ["phase", "edits", "kind", "protocol", "value", "n"]
        ].itertuples(index=False)
    }
    assert values == {
        ("after_last", 2, "edit", "success_mean"): (0.5, 2),
        ("after_last", 2, "edit", "token_accuracy"): (0.75, 2),
        ("after_last", 2, "neighbor", "success_mean"): (pytest.approx(2 / 3), 2),  # three questions about two cases
        ("after_last", 2, "neighbor", "difference"): (pytest.approx(0.2), 3),
        ("after_edit", 1, "edit", "exact"): (1.0, 1),
    }
    interval = share([True, True, False], ["0", "0", "1"])
    [found] = table.query("kind == 'neighbor' and protocol == 'success_mean'").to_dict("records")
    assert (found["low"], found["high"]) == (interval.low, interval.high)
    assert summarize([]).empty


def test_the_score_is_the_harmonic_mean_of_its_parts() -> None:
    assert harmonic_mean(np.array([1.0, 0.5, 0.25])) == pytest.approx(3 / 7)
    assert harmonic_mean(np.array([[1.0, 0.0], [1.0, 1.0]])).tolist() == [1.0, 0.0]
    rows = []
    for case in range(40):
        rows += [
            row(str(case), "edit", success_mean=True, exact=True),
            row(str(case), "paraphrase", success_mean=case % 2 == 0, exact=False),
            *(row(str(case), "neighbor", success_mean=n == 0, unchanged=True) for n in range(4)),
        ]
    figure = score(rows, COUNTERFACT)
    assert figure.value == pytest.approx(3 / 7)
    assert figure.low < 3 / 7 < figure.high
    assert figure.n == 40
    assert score(rows, FREE).value == 0  # no paraphrase is exact
    with pytest.raises(ValueError, match="unchanged of kind edit"):
        score(rows, {"edit": "unchanged"})


def test_the_scores_interval_follows_what_differs_between_cases() -> None:
    same = [row(str(case), kind, success_mean=True) for case in range(9) for kind in ("edit", "paraphrase", "neighbor")]
    assert score(same, COUNTERFACT).low == score(same, COUNTERFACT).high == 1
    # A kind that only one case has is missing from many resamples, which then say nothing.
    rare = [row(str(case), "edit", exact=True) for case in range(9)] + [row("0", "neighbor", unchanged=True)]
    figure = score(rare, {"edit": "exact", "neighbor": "unchanged"})
    assert (figure.value, figure.low, figure.high) == (1, 1, 1)
