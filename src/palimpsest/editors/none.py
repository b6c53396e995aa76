"""No edit at all: the baseline that says what the language model says."""

from __future__ import annotations

from collections.abc import Sequence

from palimpsest.editors.editor import Editor
from palimpsest.facts import Edit


class NoEdit(Editor):
    """Takes edits and leaves the model as it is."""

    def apply(self, edits: Sequence[Edit]) -> None:
        pass

    def reset(self) -> None:
        pass
