"""How scope detectors are judged, with a fake editor whose scores are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
import torch

from palimpsest.evaluation.same_subject import with_same_subject
from palimpsest.evaluation.scope import curve, scope_scores
from palimpsest.facts import Edit, Probe


class Detector:
    """Scores a prompt by whether it begins with the prompt of an edit in memory."""

    def __init__(self) -> None:
        self.made: list[Edit] = []
        self.sizes: list[int] = []

    def reset(self) -> None:
        self.made = []

    def apply(self, edits: Sequence[Edit]) -> None:
        self.made += edits

    def scope_scores(self, prompts: Sequence[str]) -> torch.Tensor:
        self.sizes.append(len(self.made))
        known = tuple(edit.prompt for edit in self.made)
        return torch.tensor([1.0 if prompt.startswith(known) else 0.25 for prompt in prompts], dtype=torch.float64)


def edit(number: int) -> Edit:
    prompt = f"The author of book {number} is"
    neighbor = Probe("The author of Dusk is", "Lee")
    return Edit(str(number), f"book {number}", prompt, "Ann", ("Bo",), paraphrases=(f"{prompt} once",),
                neighbors=(neighbor,))  # fmt: skip


@pytest.mark.parametrize("stored", [1, 3, 10])
def test_prompts_are_scored_while_their_edits_are_stored(stored: int) -> None:
    detector: Any = Detector()
    scores = scope_scores(detector, [edit(number) for number in range(4)], stored)
    assert scores["case_id"].tolist() == [str(number) for number in range(4) for _ in range(3)]
    assert scores["inside"].tolist() == [True, True, False] * 4
    assert scores["score"].tolist() == [1.0, 1.0, 0.25] * 4
    assert detector.sizes == {1: [1] * 4, 3: [3, 1], 10: [4]}[stored]
    assert detector.made == []


def test_the_curve_knows_its_best_threshold() -> None:
    rows = [(True, 0.9), (True, 0.7), (True, 0.4), (False, 0.6), (False, 0.2)]
    table, threshold = curve(pd.DataFrame(rows, columns=["inside", "score"]))
    assert 0.6 < threshold <= 0.7
    chosen = table[table["chosen"]].iloc[0]
    assert (chosen["true_positives"], chosen["false_positives"]) == (pytest.approx(2 / 3), 0.0)
    assert table["true_positives"].is_monotonic_increasing
    assert table["false_positives"].iloc[-1] == table["true_positives"].iloc[-1] == 1
    given, used = curve(pd.DataFrame(rows, columns=["inside", "score"]), 0.5)
    assert used == 0.5
    assert given.loc[given["chosen"], "threshold"].tolist() == [0.6]
    with pytest.raises(ValueError, match="expected some of each"):
        curve(pd.DataFrame(rows[:3], columns=["inside", "score"]))


def test_the_chosen_place_is_the_thresholds_where_two_are_equally_good() -> None:
    """1/3 - 0 and 1 - 2/3, which rounding tells apart."""
    rows = [(True, 0.9), (True, 0.3), (True, 0.2), (False, 0.8), (False, 0.7), (False, 0.1)]
    table, threshold = curve(pd.DataFrame(rows, columns=["inside", "score"]))
    assert 0.8 < threshold < 0.9
    assert table.loc[table["chosen"], "threshold"].tolist() == [0.9]


def test_other_facts_about_the_subject_take_the_place_of_neighbours() -> None:
    def fact(subject: str, relation: str, *answers: str) -> Edit:
        return Edit("f", subject, f"{relation} of {subject} is", "never asked for", answers, relation)

    edits = [replace(edit(0), relation="author"), replace(edit(1), relation="author")]
    facts = [
        fact("book 0", "author", "Bo"),  # the edited relation
        fact("book 2", "year", "1900"),
        fact("book 0", "genre"),  # no true answer
        fact("book 0", "year", "1901", "1902"),
        fact("book 0", "language", "Latin"),
        fact("book 0", "length", "9"),
    ]
    assert with_same_subject(edits, facts, limit=2) == [
        replace(edits[0], neighbors=(Probe("year of book 0 is", "1901"), Probe("language of book 0 is", "Latin")))
    ]
