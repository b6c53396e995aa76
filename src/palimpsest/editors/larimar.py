"""Larimar as an editor: an edit is written into the matrix memory, in one shot (Das et al., arXiv 2403.11901).

The prompt addresses the memory, and the read-out conditions the decoder if the prompt is in scope. Which read-out that
is, published or not, is up to the addressing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from palimpsest.editors.editor import ReadingEditor
from palimpsest.facts import Edit
from palimpsest.larimar.addressing import Addressing
from palimpsest.larimar.memory import Text, TextMemory
from palimpsest.larimar.model import Larimar
from palimpsest.larimar.scope import Scope
from palimpsest.lm.encoder_cache import RememberingEncoder
from palimpsest.lm.scoring import TargetScore

Rephrase = Callable[[Edit], Sequence[str]]
"""Other prompts for the same fact. It does not see how the edit will be judged."""
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=\S)")


class _Made(NamedTuple):
    """What an edit has written."""

    subject: str
    target: str
    prompts: tuple[str, ...]
    """Its own, then rephrased ones."""

    @property
    def texts(self) -> list[Text]:
        return [(prompt, self.target) for prompt in self.prompts]


class Reading(NamedTuple):
    """A prompt, and what the memory gives the decoder for it."""

    prompt: str
    z: Tensor | None
    """The read-out (C,); None for a prompt that is out of scope, or while there are no edits."""


class LarimarEditor(ReadingEditor[Reading]):
    """Edits live in a memory; the weights stay as they are.

    An edit of a prompt that was edited before takes its place, so that the earlier one cannot be forgotten any more.
    Forgetting is exact up to rounding: see :meth:`palimpsest.larimar.addressing.Addressing.forget`. A call that raises
    has changed nothing.

    Args:
        model: encoder and decoder.
        addressing: of the memory.
        scope: decides which prompts the memory is read for; without it, all. It belongs to this editor.
        threshold: a prompt is in scope if its score is at least so high; or several, by the number of edits in memory
            up to which each holds, of which the last holds for more.
        focused: of a prompt of several sentences the last is looked up, too, for it is where the answer is asked for.
            What is read is the one of the two that the memory knows better. (Published: the whole prompt alone.)
        rephrase: gives prompts that are written along with an edit's own, with the same answer, and forgotten together.
    """

    forgets: ClassVar[bool] = True
    one_by_one: ClassVar[bool] = True

    def __init__(
        self,
        model: Larimar,
        *,
        addressing: Addressing[Any],
        scope: Scope | None = None,
        threshold: float | Mapping[int, float] = 0.7,
        focused: bool = False,
        rephrase: Rephrase | None = None,
    ) -> None:
        super().__init__(model.lm)
        self.model, self.addressing, self.focused, self.rephrase = model, addressing, focused, rephrase
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

    def prepare(self, edits: Sequence[Edit], prompts: Sequence[str]) -> None:
        """Encode the prompts, if the encoder remembers what it has encoded."""
        if isinstance(self.model.encoder, RememberingEncoder):
            self.model.features([part for prompt in prompts for part in self._parts(prompt)])

    def read(self, prompts: Sequence[str]) -> list[Reading]:
        """Equal prompts are encoded and read for once; the memory is read for those in scope alone."""
        unique = list(dict.fromkeys(prompts))
        found: dict[str, Tensor] = {}
        if self._made and unique:
            queries, scores = self._looked_up(unique)
            if self.scope is not None:
                inside = scores >= self._limit()
                unique, queries = [unique[place] for place in inside.nonzero()[:, 0]], queries[inside]
            found = dict(zip(unique, self.memory.memory.read(queries), strict=True)) if unique else {}
        return [Reading(prompt, found.get(prompt)) for prompt in prompts]

    def score_read(self, readings: Sequence[Reading], targets: Sequence[str]) -> list[TargetScore]:
        return self.model.decoder.score([reading.prompt for reading in readings], targets, *_stacked(readings))

    def generate_read(self, readings: Sequence[Reading], *, max_new_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        prompts = [reading.prompt for reading in readings]
        return self.model.decoder.generate(prompts, *_stacked(readings), max_new_tokens=max_new_tokens, stop=stop)

    def scope_scores(self, prompts: Sequence[str]) -> Tensor:
        """The scope's scores (N,) of prompts, from which a threshold can be chosen.

        Raises ValueError if there is no scope.
        """
        if self.scope is None:
            raise ValueError("without a scope detector there are no scores: every prompt is in scope")
        return self._looked_up(prompts)[1]

    def _looked_up(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """What the memory is asked with for each prompt (N, D), and how well it is known (N,): the scope's score, or
        without a scope the memory's familiarity, if a choice depends on it."""
        parts = [self._parts(prompt) for prompt in prompts]
        texts = [part for found in parts for part in found]
        queries, memory = self.model.encode(texts), self.memory.memory
        if self.scope is not None:
            scores = self.scope.scores(texts, queries, memory)
        elif self.focused:
            scores = memory.familiarity(queries).cpu()
        else:
            scores = torch.zeros(len(texts))
        places = torch.arange(len(texts)).split([len(found) for found in parts])
        best = torch.tensor([int(own[scores[own].argmax()]) for own in places], dtype=torch.long)
        return queries[best.to(queries.device)], scores[best]

    def _parts(self, prompt: str) -> list[str]:
        """What of a prompt may be looked up."""
        return list(dict.fromkeys([prompt, SENTENCE_END.split(prompt)[-1]])) if self.focused else [prompt]

    def _limit(self) -> float:
        """The threshold for as many edits as there are."""
        if not isinstance(self.threshold, Mapping):
            return self.threshold
        counts = sorted(self.threshold)
        return self.threshold[next((count for count in counts if count >= len(self._made)), counts[-1])]

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


def _stacked(readings: Sequence[Reading]) -> tuple[Tensor | None, Tensor | None]:
    """Read-outs (N, C), zeros for want of one, and which of the prompts have one (N,); nothing if none has."""
    known = [reading.z for reading in readings if reading.z is not None]
    if not known:
        return None, None
    z = known[0].new_zeros(len(readings), len(known[0]))
    present = torch.tensor([reading.z is not None for reading in readings], device=z.device)
    z[present] = torch.stack(known)
    return z, present


def _told(edits: Collection[_Made]) -> tuple[list[str], list[str]]:
    """Subjects and prompts of what edits have written."""
    subjects = [edit.subject for edit in edits for _ in edit.prompts]
    return subjects, [prompt for edit in edits for prompt in edit.prompts]
