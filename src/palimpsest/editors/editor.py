"""The one interface of everything that edits: what is evaluated is an editor, never the method behind it.

It is cut here because the methods differ in *where* an edit lives (weights, a side memory, the prompt, a hidden
position), and not in what is asked of them afterwards: the probability of an answer, and free generation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Generic, TypeVar

from palimpsest.facts import Edit
from palimpsest.lm.generation import generate_greedy
from palimpsest.lm.load import LanguageModel
from palimpsest.lm.scoring import TargetScore, score_targets

R = TypeVar("R")


class Editor(ABC):
    """A language model that can be told to say otherwise.

    Edits add up: several calls of :meth:`apply` are a sequence of edits, one call with several edits is a batch. An
    editor that keeps its edits outside the prompt and the weights overrides :meth:`score` and :meth:`generate`.
    """

    forgets: ClassVar[bool] = False
    """Whether :meth:`forget` takes an edit back as if it had never been made."""

    one_by_one: ClassVar[bool] = False
    """Whether the edits of a call are made one by one, so that it is, up to rounding, the same as a call for each."""

    def __init__(self, lm: LanguageModel) -> None:
        self.lm = lm

    @abstractmethod
    def apply(self, edits: Sequence[Edit]) -> None:
        """Make the edits, all at once, on top of those made before. It sees of an edit only what a user would give:
        ``subject``, ``prompt`` and ``target_new`` (and ``target_true`` where the paper's method asks for it), never the
        paraphrases, neighbours or questions by which it will be judged."""

    def forget(self, edits: Sequence[Edit]) -> None:
        """Take back edits that were made before.

        Raises:
            NotImplementedError: the method cannot (:attr:`forgets` is false).
            KeyError: an edit was never made; names its case, and nothing is forgotten.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot forget single edits; reset() takes all of them back")

    @abstractmethod
    def reset(self) -> None:
        """Take back all edits: the model is, bit for bit, what it was before the first."""

    def score(self, prompts: Sequence[str], targets: Sequence[str]) -> list[TargetScore]:
        """Log-probabilities of each target as the continuation of its prompt, given the edits."""
        return score_targets(self.lm, prompts, targets)

    def generate(self, prompts: Sequence[str], *, max_new_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        """Greedy continuation of each prompt, given the edits."""
        return generate_greedy(self.lm, prompts, max_new_tokens=max_new_tokens, stop=stop)


def statement(edit: Edit) -> str:
    """An edit as a sentence."""
    return f"{edit.prompt} {edit.target_new}."


class ReadingEditor(Editor, Generic[R]):
    """An editor whose edits act only through what is read for a prompt, before the model sees it.

    A reading R is a prompt with all that the edits contribute to it. It holds for good, whatever is applied, forgotten
    or reset afterwards: so prompts that were read under different edits can be asked in one call.
    """

    def prepare(self, edits: Sequence[Edit], prompts: Sequence[str]) -> None:
        """Be told of edits and prompts that are to come, in whatever order and company.

        What depends on each of them alone may be worked out for all at once. It changes no answer.
        """

    @abstractmethod
    def read(self, prompts: Sequence[str]) -> list[R]:
        """Each prompt with what the edits, as they are now, contribute to it."""

    @abstractmethod
    def score_read(self, readings: Sequence[R], targets: Sequence[str]) -> list[TargetScore]:
        """:meth:`score` of prompts as they were read."""

    @abstractmethod
    def generate_read(self, readings: Sequence[R], *, max_new_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        """:meth:`generate` after prompts as they were read."""

    def score(self, prompts: Sequence[str], targets: Sequence[str]) -> list[TargetScore]:
        return self.score_read(self.read(prompts), targets)

    def generate(self, prompts: Sequence[str], *, max_new_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        return self.generate_read(self.read(prompts), max_new_tokens=max_new_tokens, stop=stop)


class PromptEditor(ReadingEditor[str]):
    """An editor of prompts alone: a reading is the prompt as the model is given it."""

    def score_read(self, readings: Sequence[str], targets: Sequence[str]) -> list[TargetScore]:
        return score_targets(self.lm, readings, targets)

    def generate_read(self, readings: Sequence[str], *, max_new_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        return generate_greedy(self.lm, readings, max_new_tokens=max_new_tokens, stop=stop)
