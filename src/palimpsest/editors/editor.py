"""The one interface of everything that edits: what is evaluated is an editor, never the method behind it.

It is cut here because the methods differ in *where* an edit lives (weights, a side memory, the prompt, a hidden
position), and not in what is asked of them afterwards: the probability of an answer, and free generation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from palimpsest.facts import Edit
from palimpsest.lm.generation import generate_greedy
from palimpsest.lm.load import LanguageModel
from palimpsest.lm.scoring import TargetScore, score_targets


class Editor(ABC):
    """A language model that can be told to say otherwise.

    Edits add up: several calls of :meth:`apply` are a sequence of edits, one call with several edits is a batch. An
    editor that keeps its edits outside the prompt and the weights overrides :meth:`score` and :meth:`generate`.
    """

    forgets: ClassVar[bool] = False
    """Whether :meth:`forget` takes an edit back as if it had never been made."""

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
