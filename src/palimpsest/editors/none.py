"""No edit at all: the baseline that says what the language model says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from palimpsest.editors.editor import PromptEditor
from palimpsest.facts import Edit


class NoEdit(PromptEditor):
    """Takes edits and leaves the model as it is."""

    one_by_one: ClassVar[bool] = True

    def apply(self, edits: Sequence[Edit]) -> None:
        pass

    def reset(self) -> None:
        pass

    def read(self, prompts: Sequence[str]) -> list[str]:
        return list(prompts)
