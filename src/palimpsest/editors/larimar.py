"""Larimar as an editor: an edit is written into the matrix memory, in one shot (Das et al., arXiv 2403.11901).

The prompt addresses the memory, and the read-out conditions the decoder if the prompt is in scope. Which read-out that
is, published or not, is up to the addressing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from palimpsest.editors.editor import Editor
from palimpsest.facts import Edit
from palimpsest.larimar.addressing import Addressing
from palimpsest.larimar.memory import Text, TextMemory
from palimpsest.larimar.model import Larimar
from palimpsest.larimar.scope import Scope
from palimpsest.lm.scoring import TargetScore

Rephrase = Callable[[Edit], Sequence[str]]
"""Other prompts for the same fact. It does not see how the edit will be judged."""


class _Made(NamedTuple):
    """What an edit has written."""

    subject: str
    target: str
    prompts: tuple[str, ...]
    """Its own, then rephrased ones."""

    @property
    def texts(self) -> list[Text]:
        return [(prompt, self.target) for prompt in self.prompts]


class LarimarEditor(Editor):
    """Edits live in a memory; the weights stay as they are.

    An edit of a prompt that was edited before takes its place, so that the earlier one cannot be forgotten any more.
    Forgetting is exact up to rounding: see :meth:`palimpsest.larimar.addressing.Addressing.forget`. A call that raises
    has changed nothing.

    Args:
        model: encoder and decoder.
        addressing: of the memory.
        scope: decides which prompts the memory is read for; without it, all. It belongs to this editor.
        threshold: a prompt is in scope if its score is at least so high.
        rephrase: gives prompts that are written along with an edit's own, with the same answer, and forgotten together.
    """

    forgets: ClassVar[bool] = True

    def __init__(
        self,
        model: Larimar,
        *,
        addressing: Addressing[Any],
        scope: Scope | None = None,
        threshold: float = 0.7,
        rephrase: Rephrase | None = None,
    ) -> None:
        super().__init__(model.lm)
        self.model, self.addressing, self.rephrase = model, addressing, rephrase
        self.scope, self.threshold = scope, threshold
        self.memory = TextMemory.new(model, addressing)
        self._made: dict[str, _Made] = {}  # by the edit's own prompt
        self._texts: Counter[Text] = Counter()  # how many edits have written each text

    def apply(self, edits: Sequence[Edit]) -> None:
        """Write the edits; of several with one prompt, the last.

        Raises:
            ValueError: an edit without a target.
            MemoryFullError: more facts than free slots, with an addressing of one fact a slot.
        """
        if empty := [edit.case_id for edit in edits if not edit.target_new]:
            raise ValueError(f"case {empty[0]}: the target is empty")
        made = {edit.prompt: _Made(edit.subject, edit.target_new, self._prompts(edit)) for edit in edits}
        self._change([prompt for prompt in made if prompt in self._made], made)

    def forget(self, edits: Sequence[Edit]) -> None:
        gone: dict[str, None] = {}
        for edit in edits:
            made = self._made.get(edit.prompt)
            if made is None or made.target != edit.target_new or edit.prompt in gone:
                raise KeyError(f"case {edit.case_id}: {edit.prompt!r} is not edited to {edit.target_new!r}")
            gone[edit.prompt] = None
        self._change(list(gone), {})

    def reset(self) -> None:
        if self.scope is not None:
            self.scope.forget(*_told(self._made.values()))
        self.memory = TextMemory.new(self.model, self.addressing)
        self._made, self._texts = {}, Counter()

    def score(self, prompts: Sequence[str], targets: Sequence[str]) -> list[TargetScore]:
        return self.model.decoder.score(prompts, targets, *self._read(prompts))

    def generate(self, prompts: Sequence[str], *, max_new_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        return self.model.decoder.generate(prompts, *self._read(prompts), max_new_tokens=max_new_tokens, stop=stop)

    def scope_scores(self, prompts: Sequence[str]) -> Tensor:
        """The scope's scores (N,) of prompts, from which a threshold can be chosen.

        Raises ValueError if there is no scope.
        """
        if self.scope is None:
            raise ValueError("without a scope detector there are no scores: every prompt is in scope")
        return self.scope.scores(prompts, self.model.encode(prompts), self.memory.memory)

    def _prompts(self, edit: Edit) -> tuple[str, ...]:
        if self.rephrase is None:
            return (edit.prompt,)
        blind = replace(edit, paraphrases=(), neighbors=(), attribute_prompts=(), generation_prompts=(), portability=())
        return tuple(dict.fromkeys([edit.prompt, *self.rephrase(blind)]))

    def _change(self, gone: Sequence[str], made: Mapping[str, _Made]) -> None:
        """Take back the edits of some prompts and make others; all of it or, if anything raises, nothing.

        A text that several edits have in common is written once, and stays as long as one of them does.
        """
        old, new = [self._made[prompt] for prompt in gone], list(made.values())
        texts = self._texts.copy()
        texts.subtract(text for edit in old for text in edit.texts)
        texts.update(text for edit in new for text in edit.texts)
        touched = dict.fromkeys(text for edit in [*old, *new] for text in edit.texts)
        memory = self.memory.copy()
        memory.forget([text for text in touched if self._texts[text] and not texts[text]])
        memory.write([text for text in touched if texts[text] and not self._texts[text]])
        if self.scope is not None:
            self.scope.remember(*_told(new))
            self.scope.forget(*_told(old))  # cannot fail, for it was told of them
        self.memory, self._texts = memory, +texts
        for prompt in gone:
            del self._made[prompt]
        self._made |= made

    def _read(self, prompts: Sequence[str]) -> tuple[Tensor | None, Tensor | None]:
        """The read-out (N, C) for each prompt and whether it is in scope (N,); None stands for no and for all."""
        if not self._made or not prompts:
            return None, None
        places = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompts))}
        rows, unique = [places[prompt] for prompt in prompts], list(places)
        queries, memory = self.model.encode(unique), self.memory.memory
        z = memory.read(queries)[rows]
        return z, None if self.scope is None else (self.scope.scores(unique, queries, memory) >= self.threshold)[rows]


def _told(edits: Collection[_Made]) -> tuple[list[str], list[str]]:
    """Subjects and prompts of what edits have written."""
    subjects = [edit.subject for edit in edits for _ in edit.prompts]
    return subjects, [prompt for edit in edits for prompt in edit.prompts]
