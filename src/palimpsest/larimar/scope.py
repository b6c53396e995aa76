"""Scope detectors: is a prompt about something in memory? (Larimar, arXiv 2403.11901, section 3.4.)

A detector sees prompts alone, never the answers to be scored. It gives each prompt a score, the larger the likelier it
is about a written fact, and a prompt is in scope from a threshold on, which is chosen on development data
(:func:`choose_threshold`). Out of scope the decoder speaks without memory.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from palimpsest.larimar.memory import Encoder, MatrixMemory

K = TypeVar("K", bound=Hashable)

# Letters of the scripts that put no space between words (Thai to Myanmar, Khmer, kana, Han), and of Hangul, which puts
# none before particles.
UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3000-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]"
)


class Scope(Protocol):
    """A detector. It is told of N written facts by their subjects and prompts; what raises has changed nothing."""

    def remember(self, subjects: Sequence[str], prompts: Sequence[str]) -> None:
        """These facts have been written; a fact may be told more than once."""

    def forget(self, subjects: Sequence[str], prompts: Sequence[str]) -> None:
        """These have been forgotten. Raises KeyError for a fact that was not told, or not so often."""

    def scores(self, prompts: Sequence[str], queries: Tensor, memory: MatrixMemory) -> Tensor:
        """(N,) for N prompts, float64 on the CPU: the larger, the likelier in scope.

        Args:
            queries: (N, D) the prompts as the memory's encoder has them.
            memory: what the facts are written in.
        """


class NearestPrompt:
    """Published: cosine similarity of a sentence encoder's vectors to the nearest prompt that was written.

    −1 while nothing is written. (The published threshold is a cosine distance of 0.3, which is a similarity of 0.7.)
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self._told: Counter[str] = Counter()
        self._vectors: dict[str, Tensor] = {}  # (C,) of length 1, of each prompt
        self._stored: Tensor | None = None  # all of them, (N, C)

    def remember(self, subjects: Sequence[str], prompts: Sequence[str]) -> None:
        if new := [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._told]:
            self._vectors |= zip(new, self._encode(new), strict=True)
            self._stored = None
        self._told.update(prompts)

    def forget(self, subjects: Sequence[str], prompts: Sequence[str]) -> None:
        self._told = _without(self._told, prompts)
        if gone := [prompt for prompt in self._vectors if prompt not in self._told]:
            for prompt in gone:
                del self._vectors[prompt]
            self._stored = None

    def scores(self, prompts: Sequence[str], queries: Tensor, memory: MatrixMemory) -> Tensor:
        if not self._vectors or not prompts:
            return torch.full((len(prompts),), -1.0, dtype=torch.float64)
        if self._stored is None:
            self._stored = torch.stack(list(self._vectors.values()))
        return (self._encode(prompts) @ self._stored.mT).amax(1).double().cpu()

    def _encode(self, texts: Sequence[str]) -> Tensor:
        return normalize(self.encoder.encode(list(texts)), dim=-1)


class NearestKey:
    """Ours: cosine similarity of a prompt's key to the nearest key in memory, as a learnt map has them.

    −1 while nothing is written. It costs no encoding, since the queries are encoded to be read anyhow.

    Args:
        key_map: (D, D′) of :mod:`palimpsest.larimar.keys`, the addressing's own.
    """

    def __init__(self, key_map: Tensor) -> None:
        self.key_map = key_map.double()

    def remember(self, subjects: Sequence[str], prompts: Sequence[str]) -> None:
        """The memory knows."""

    def forget(self, subjects: Sequence[str], prompts: Sequence[str]) -> None:
        """The memory knows."""

    def scores(self, prompts: Sequence[str], queries: Tensor, memory: MatrixMemory) -> Tensor:
        if not len(memory) or not prompts:
            return torch.full((len(prompts),), -1.0, dtype=torch.float64)
        return (self._mapped(queries) @ self._mapped(memory.keys).mT).amax(1).cpu()

    def _mapped(self, keys: Tensor) -> Tensor:
        return normalize(keys.double() @ self.key_map, dim=-1)


class Familiarity:
    """Published too: from the memory itself, how much of a query lies in what is written.

    What that means is up to the addressing: see :meth:`palimpsest.larimar.addressing.Addressing.familiarity`. It costs
    no encoding, since the queries are encoded to be read anyhow.
    """

    def remember(self, subjects: Sequence[str], prompts: Sequence[str]) -> None:
        """The memory knows."""

    def forget(self, subjects: Sequence[str], prompts: Sequence[str]) -> None:
        """The memory knows."""

    def scores(self, prompts: Sequence[str], queries: Tensor, memory: MatrixMemory) -> Tensor:
        return memory.familiarity(queries).cpu()


class NamedSubject:
    """Ours: another detector's scores, lowered where a prompt names no subject of a written fact.

    Prompts of one relation are alike, so that neighbours of an edit are the harder half of the problem; but they are
    about somebody else. A subject is named if it occurs as whole :func:`words`, in the same letters, capital or not. To
    look takes time by the prompt's length and by how many lengths subjects have, not by how many there are.

    Args:
        penalty: by how much scores are lowered; of a similarity 2 is all there is.
    """

    def __init__(self, detector: Scope, *, penalty: float = 1.0) -> None:
        self.detector, self.penalty = detector, penalty
        self._subjects: Counter[tuple[str, ...]] = Counter()
        self._lengths: Counter[int] = Counter()

    def remember(self, subjects: Sequence[str], prompts: Sequence[str]) -> None:
        split = _split(subjects)
        self.detector.remember(subjects, prompts)
        self._subjects.update(split)
        self._lengths.update(map(len, split))

    def forget(self, subjects: Sequence[str], prompts: Sequence[str]) -> None:
        split = _split(subjects)
        left = _without(self._subjects, split)
        self.detector.forget(subjects, prompts)
        self._subjects, self._lengths = left, _without(self._lengths, map(len, split))

    def scores(self, prompts: Sequence[str], queries: Tensor, memory: MatrixMemory) -> Tensor:
        unnamed = torch.tensor([not self.names(prompt) for prompt in prompts], dtype=torch.float64)
        return self.detector.scores(prompts, queries, memory) - self.penalty * unnamed

    def names(self, prompt: str) -> bool:
        """Whether the subject of a written fact occurs in a prompt."""
        found = words(prompt)
        return any(
            tuple(found[start : start + length]) in self._subjects
            for length in self._lengths
            for start in range(len(found) - length + 1)
        )


def words(text: str) -> list[str]:
    """The words of a text, and each other visible character apart.

    A word is letters and digits in a row, each with its accents and vowel signs; in a script that puts no space between
    words, a single letter. Equal texts in another Unicode form, or with invisible characters, have equal words.
    """
    found: list[str] = []
    before, in_word = " ", False
    for character in unicodedata.normalize("NFC", text):
        category = unicodedata.category(character)
        if category == "Cf":  # joiners, direction marks, soft hyphens
            continue
        if category.startswith("M") and not before.isspace():
            found[-1] += character
            continue
        letter = character.isalnum() and not UNSPACED.match(character)
        if letter and in_word:
            found[-1] += character
        elif not character.isspace():
            found.append(character)
        before, in_word = character, letter
    return found


def _split(subjects: Iterable[str]) -> list[tuple[str, ...]]:
    """The words of each subject that has any."""
    return [split for subject in subjects if (split := tuple(words(subject)))]


def _without(told: Counter[K], forgotten: Iterable[K]) -> Counter[K]:
    """What is left of what was told. Raises KeyError for what was not told, or not so often."""
    left, gone = told.copy(), Counter(forgotten)
    left.subtract(gone)
    for item in gone:
        if left[item] < 0:
            raise KeyError(f"{item!r} is not remembered (so often), so it cannot be forgotten")
        if not left[item]:
            del left[item]
    return left


# -- threshold -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Operating:
    """A receiver operating characteristic: at each threshold, the shares of prompts that are taken for in scope.

    It begins above the highest score, where nothing is in scope, and comes down to the lowest, where everything is.
    """

    thresholds: NDArray[np.float64]
    """(T,), descending: the highest score and 1, then each score that occurs."""
    true_positives: NDArray[np.float64]
    """(T,), of the prompts that are in scope."""
    false_positives: NDArray[np.float64]
    """(T,), of those that are not."""

    @property
    def area(self) -> float:
        """Area under the curve: the probability that a prompt in scope scores higher than one that is not.

        Equal scores count as half.
        """
        return float(np.trapezoid(self.true_positives, self.false_positives))


def operating_characteristic(inside: Tensor, outside: Tensor) -> Operating:
    """From the scores of prompts that are in scope (N,) and of others (M,).

    Raises ValueError if there are none of a kind, or one is not a finite number.
    """
    if not len(inside) or not len(outside):
        raise ValueError(f"{len(inside)} scores in scope and {len(outside)} out of it: expected some of each")
    kinds = [np.sort(scores.double().cpu().numpy()) for scores in (inside, outside)]
    occurring = np.unique(np.concatenate(kinds))[::-1]
    if not np.isfinite(occurring).all():
        raise ValueError("scores: some are not finite numbers")
    thresholds = np.concatenate([[occurring[0] + 1], occurring])
    shares = [(len(scores) - np.searchsorted(scores, thresholds)) / len(scores) for scores in kinds]
    return Operating(thresholds, *shares)


def choose_threshold(curve: Operating) -> float:
    """Where the two shares are farthest apart (Youden's index), half-way to the next lower score.

    Of several such places it is the highest. If none is better than chance, nothing is in scope.
    """
    apart = (curve.true_positives - curve.false_positives).round(12)  # so that rounding decides between no equals
    best = int(apart.argmax())
    return float(curve.thresholds[best : best + 2].mean())
