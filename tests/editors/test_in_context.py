"""In-context retrieval: which facts are put before which prompts."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from palimpsest.editors.history import without
from palimpsest.editors.incontext import InContext, InContextSettings
from palimpsest.facts import Edit
from palimpsest.lm.load import LanguageModel

DEGREES = {
    "A is": 0, "A is x.": 0, "A is y.": 10, "B is": 50, "B is x.": 60, "C is x.": 90, "C is z.": 90, "far": 180,
    "D is x.": 0,
}  # fmt: skip


class Compass:
    """Texts are directions, given in degrees."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode(self, texts: Sequence[str], /) -> torch.Tensor:
        self.asked += texts
        angles = torch.deg2rad(torch.tensor([float(DEGREES[text]) for text in texts]))
        return torch.stack([angles.cos(), angles.sin()], dim=1)


def edit(subject: str, target: str) -> Edit:
    return Edit(f"{subject}{target}", subject, f"{subject} is", target, ())


def editor(lm: LanguageModel, facts: int, threshold: float) -> InContext:
    return InContext(lm, encoder=Compass(), settings=InContextSettings(facts=facts, threshold=threshold))


def test_the_nearest_facts_come_before_the_prompt_the_nearest_last(lm: LanguageModel) -> None:
    two = editor(lm, 2, 0.4)  # 66 degrees
    two.apply([edit("A", "x"), edit("B", "x"), edit("C", "x")])
    assert two.read(["A is", "B is", "far", "", "A is"]) == [
        "B is x. A is x. A is", "C is x. B is x. B is", "far", "", "B is x. A is x. A is"
    ]  # fmt: skip
    assert editor(lm, 2, 0.4).read(["A is"]) == ["A is"]


def test_a_threshold_keeps_unrelated_prompts_as_they_are(lm: LanguageModel) -> None:
    strict = editor(lm, 3, 0.97)  # 14 degrees
    strict.apply([edit("A", "x"), edit("B", "x"), edit("C", "x")])
    assert strict.read(["A is", "B is", "far"]) == ["A is x. A is", "B is x. B is", "far"]


def test_a_later_edit_of_the_same_prompt_hides_the_earlier_until_it_is_forgotten(lm: LanguageModel) -> None:
    two = editor(lm, 2, 0.9)
    two.apply([edit("A", "x"), edit("A", "y")])
    assert two.read(["A is"]) == ["A is y. A is"]
    two.forget([edit("A", "y")])
    assert two.read(["A is"]) == ["A is x. A is"]


def test_of_equally_near_facts_the_newest_is_taken(lm: LanguageModel) -> None:
    one = editor(lm, 1, 0.9)
    one.apply([edit("A", "x"), edit("D", "x")])
    assert one.read(["A is"]) == ["D is x. A is"]


def test_a_prompt_is_encoded_once_and_a_fact_never_again(lm: LanguageModel) -> None:
    one = editor(lm, 1, 0.9)
    one.apply([edit("A", "x")])
    one.read(["A is", "A is", "far", ""])
    assert one.encoder.asked == ["A is x.", "A is", "far"]


def test_the_latest_of_equal_edits_is_taken_back_first() -> None:
    made = [edit("A", "x"), edit("B", "x"), edit("A", "x"), edit("A", "y")]
    assert without(made, [edit("A", "x")]) == [0, 1, 3]
    assert without(made, [edit("A", "x"), edit("A", "x"), edit("A", "y")]) == [1]
    assert without(made, []) == [0, 1, 2, 3]
    with pytest.raises(KeyError, match="case Bx"):
        without(made, [edit("A", "x"), edit("B", "x"), edit("B", "x")])
