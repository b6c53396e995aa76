"""Editors that can be predicted: they know what they were told, and the old answers of what they were not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import ClassVar

from palimpsest.editors.editor import Editor
from palimpsest.facts import Edit
from palimpsest.lm.scoring import TargetScore


class Notebook(Editor):
    """Answers every prompt that names a subject (whole, in lower or upper case) with the last that it was told of it.

    Args:
        knows: what it says of subjects that it was told nothing of.
        capacity: of how many subjects it remembers the last it was told.
    """

    forgets: ClassVar[bool] = True

    def __init__(self, knows: Mapping[str, str], capacity: int = 10**6) -> None:
        super().__init__(SimpleNamespace())  # type: ignore[arg-type]
        self.knows, self.capacity = knows, capacity
        self.told: dict[str, str] = {}
        self.calls: list[tuple[str, list[str]]] = []
        self.prompts: list[str] = []

    def apply(self, edits: Sequence[Edit]) -> None:
        self.calls.append(("apply", [edit.case_id for edit in edits]))
        self.told |= {edit.subject: edit.target_new for edit in edits}
        self.told = dict(list(self.told.items())[-self.capacity :])

    def forget(self, edits: Sequence[Edit]) -> None:
        self.calls.append(("forget", [edit.case_id for edit in edits]))
        for edit in edits:
            del self.told[edit.subject]

    def reset(self) -> None:
        self.calls.append(("reset", []))
        self.told = {}

    def answer(self, prompt: str) -> str:
        said = {**self.knows, **self.told}
        return next((said[subject] for subject in said if subject in prompt), "nothing")

    def score(self, prompts: Sequence[str], targets: Sequence[str]) -> list[TargetScore]:
        right = [self.answer(prompt) == target for prompt, target in zip(prompts, targets, strict=True)]
        return [TargetScore((0,), (-0.1 if it_is else -3.0,), (it_is,)) for it_is in right]

    def generate(self, prompts: Sequence[str], *, max_new_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        self.prompts += prompts
        return [f" {self.answer(prompt)}" for prompt in prompts]


class Leaky(Notebook):
    """Forgets what it says to a prompt alone, but not what it says to one that begins with an order."""

    def __init__(self, knows: Mapping[str, str], order: str) -> None:
        super().__init__(knows)
        self.order = order
        self.traces: dict[str, str] = {}

    def forget(self, edits: Sequence[Edit]) -> None:
        super().forget(edits)
        self.traces |= {edit.subject: edit.target_new for edit in edits}

    def reset(self) -> None:
        super().reset()
        self.traces = {}

    def answer(self, prompt: str) -> str:
        if prompt.startswith(self.order):
            found = [answer for subject, answer in self.traces.items() if subject in prompt]
            if found:
                return found[0]
        return super().answer(prompt)
