"""In-context retrieval: the nearest stored facts are put before the prompt, and the model is left alone.

What people do without any editing method (as in Zheng et al. 2023, arXiv 2305.12740, without their demonstrations).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from palimpsest.editors.editor import PromptEditor, statement
from palimpsest.editors.history import without
from palimpsest.facts import Edit
from palimpsest.lm.load import LanguageModel


class Encoder(Protocol):
    """What makes the vectors; a :class:`~palimpsest.lm.encoder.SentenceEncoder` is one."""

    def encode(self, texts: Sequence[str], /) -> Tensor:
        """Unit vectors (N, C) of N texts."""


@dataclass(frozen=True, kw_only=True)
class InContextSettings:
    """``facts``: at most so many are put before a prompt. ``threshold``: the least cosine similarity of a stored
    statement to the prompt; below it nothing is retrieved, and an unrelated prompt stays as it is."""

    facts: int = 1
    threshold: float = 0.6


class InContext(PromptEditor):
    """Stores each edit as a sentence, "prompt target." A later edit of the same prompt hides the earlier one.

    Forgetting is exact: a fact's vector depends on nothing but the fact, so dropping it leaves what would be there had
    it never been stored.
    """

    forgets: ClassVar[bool] = True
    one_by_one: ClassVar[bool] = True

    def __init__(self, lm: LanguageModel, *, encoder: Encoder, settings: InContextSettings) -> None:
        super().__init__(lm)
        self.encoder, self.settings = encoder, settings
        self._edits: list[Edit] = []
        self._vectors: list[Tensor] = []  # (C,) of each edit's statement

    def apply(self, edits: Sequence[Edit]) -> None:
        """Store the edits. Raises ValueError for one without a target, and then stores none."""
        if empty := [edit.case_id for edit in edits if not edit.target_new]:
            raise ValueError(f"case {empty[0]}: the target is empty")
        vectors = self.encoder.encode([statement(edit) for edit in edits]) if edits else ()
        self._edits += edits
        self._vectors += list(vectors)

    def forget(self, edits: Sequence[Edit]) -> None:
        kept = without(self._edits, edits)
        self._edits = [self._edits[position] for position in kept]
        self._vectors = [self._vectors[position] for position in kept]

    def reset(self) -> None:
        self._edits, self._vectors = [], []

    def read(self, prompts: Sequence[str]) -> list[str]:
        """Each prompt after the facts retrieved for it, the nearest last; of equally near facts the newest is taken."""
        visible = list({edit.prompt: position for position, edit in enumerate(self._edits)}.values())[::-1]
        unique = [prompt for prompt in dict.fromkeys(prompts) if prompt]
        if not visible or not unique:
            return list(prompts)
        stored = torch.stack([self._vectors[position] for position in visible])  # (N, C), the newest first
        similarity = self.encoder.encode(unique) @ stored.T  # (P, N)
        values, nearest = similarity.sort(dim=1, descending=True, stable=True)
        before = {}
        for prompt, scores, order in zip(unique, values.tolist(), nearest.tolist(), strict=True):
            chosen = [
                statement(self._edits[visible[place]])
                for place, score in zip(order[: self.settings.facts], scores, strict=False)
                if score >= self.settings.threshold
            ]
            before[prompt] = " ".join([*chosen[::-1], prompt])
        return [before.get(prompt, prompt) for prompt in prompts]
