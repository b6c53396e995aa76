"""Thresholds at numbers of edits, with a fake detector that takes longer memories for more alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from palimpsest.evaluation.scope_thresholds import scope_thresholds
from palimpsest.facts import Edit, Probe


class Crowded:
    """Prompts of edits in memory score 1 and all others the more, the more edits there are."""

    def __init__(self) -> None:
        self.made: list[Edit] = []
        self.sizes: list[int] = []
        self.asked: list[list[str]] = []

    def reset(self) -> None:
        self.made = []

    def apply(self, edits: Sequence[Edit]) -> None:
        self.made += edits

    def scope_scores(self, prompts: Sequence[str]) -> torch.Tensor:
        self.sizes.append(len(self.made))
        self.asked.append(list(prompts))
        known = {edit.prompt for edit in self.made}
        return torch.tensor([1.0 if p in known else len(self.made) / 16 for p in prompts], dtype=torch.float64)


def edit(number: int, neighbor: str, relation: str = "P50") -> Edit:
    probe = Probe(f"The author of {neighbor} is", "Lee")
    return Edit(str(number), f"b{number:02}", f"b{number:02} is by", "Ann", ("Bo",), relation, neighbors=(probe,))


DEV = [edit(number, f"n{number}") for number in range(4)]
OTHERS = [edit(10, "x"), edit(11, "y"), edit(12, "z")]


def test_the_threshold_is_between_edits_and_neighbors_at_each_number() -> None:
    detector: Any = Crowded()
    found = scope_thresholds(detector, DEV, OTHERS, (1, 3, 4, 6), [])
    assert detector.sizes == [1] * 4 + [3, 1] + [4] + [6]
    assert found == {
        1: pytest.approx((1 + 1 / 16) / 2),
        3: pytest.approx((1 + 3 / 16) / 2),
        4: pytest.approx((1 + 4 / 16) / 2),
        6: pytest.approx((1 + 6 / 16) / 2),
    }
    assert detector.made == []


def test_others_are_not_asked_about_nor_are_neighbors_that_are_edited() -> None:
    detector: Any = Crowded()
    dev = [DEV[0], edit(1, "b11"), edit(2, "b10")]
    others = [edit(10, "x", relation="P19"), OTHERS[1]]
    scope_thresholds(detector, dev, others, (5,), [])
    assert detector.asked == [["b00 is by", "b01 is by", "b02 is by", "The author of n0 is", "The author of b10 is"]]


def test_other_facts_of_the_subjects_are_out_of_scope_but_those_that_are_edited() -> None:
    detector: Any = Crowded()
    facts = [
        Edit("f", subject, f"{relation} of {subject}", "", ("true",), relation)
        for subject in ("b00", "b01", "elsewhere")
        for relation in ("P50", "P577", "P407")
    ]
    others = [Edit("o", "b01", "b01 is read in", "Latin", (), "P407")]
    scope_thresholds(detector, DEV[:2], others, (3,), facts)
    neighbors = ["The author of n0 is", "The author of n1 is"]
    assert detector.asked == [["b00 is by", "b01 is by", *neighbors, "P577 of b00", "P407 of b00", "P577 of b01"]]
