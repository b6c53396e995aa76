"""What Larimar bears, and what a memory costs the language model beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from palimpsest.editors.editor import Editor
from palimpsest.editors.larimar import LarimarEditor, Reading
from palimpsest.editors.none import NoEdit
from palimpsest.evaluation.drift import DriftTexts, drift_texts, held_out_losses, ngram_entropy
from palimpsest.evaluation.editing import Row
from palimpsest.evaluation.statistics import ratio
from palimpsest.facts import Edit
from palimpsest.lm.load import LanguageModel

READ, SCOPED = "always read", "scope detected"
MASKED, ZERO = "masked", "zero vector"
"""What stands before a text without memory: see :class:`palimpsest.larimar.decoder.LatentDecoder`."""
PERPLEXITY, ENTROPY = "perplexity ratio", "entropy"


class NoisyReads(LarimarEditor):
    """Reads with Gaussian noise on the addressing weights, whatever the prompt; scope is not asked.

    Args:
        noise: its standard deviation, in multiples of the weights' root mean square.
        seed: of the noise, which is drawn anew at each call.
        others: see :class:`palimpsest.editors.larimar.LarimarEditor`.
    """

    def __init__(self, *args: Any, noise: float, seed: int, **others: Any) -> None:
        super().__init__(*args, **others)
        self.noise, self.generator = noise, torch.Generator().manual_seed(seed)

    def read(self, prompts: Sequence[str]) -> list[Reading]:
        unique = list(dict.fromkeys(prompts))
        if not unique:
            return []
        queries, memory = self._looked_up(unique)[0], self.memory.memory
        scale = float(memory.read_weights(queries).square().mean().sqrt())
        read = memory.read(queries, noise=self.noise * scale, generator=self.generator)
        found = dict(zip(unique, read, strict=True))
        return [Reading(prompt, found[prompt]) for prompt in prompts]


@dataclass(frozen=True)
class Beside:
    """Texts that no edit is about, and what the language model says of them by itself."""

    texts: DriftTexts
    losses: pd.DataFrame
    """Of :func:`palimpsest.evaluation.drift.held_out_losses` without any edit."""
    generated: int
    """How many of the texts are continued freely."""
    max_new_tokens: int

    @classmethod
    def of(cls, lm: LanguageModel, texts: Sequence[str], *, generated: int, max_new_tokens: int) -> Beside:
        halves = drift_texts(lm, texts, sampled_tokens=0, seed=0)
        return cls(halves, held_out_losses(NoEdit(lm), halves), generated, max_new_tokens)

    def rows(self, editor: Editor) -> list[Row]:
        """What an editor says of them, with the edits that it has made.

        Returns:
            A row a measure: ``measure``, ``value``, ``low``, ``high`` and ``n``. :data:`PERPLEXITY` of the second half
            of each text after its first, as a multiple of the language model's, where ``n`` counts tokens;
            :data:`ENTROPY` of the n-grams (bits) of what the editor writes after the first half, where it counts texts.
        """
        after = held_out_losses(editor, self.texts)
        perplexity = ratio(after["loss"] - self.losses["loss"], after["tokens"], np.exp)
        prompts = self.texts.prompts[: self.generated]
        entropies = [ngram_entropy(text) for text in editor.generate(prompts, max_new_tokens=self.max_new_tokens)]
        figures = {PERPLEXITY: perplexity, ENTROPY: ratio(entropies, np.ones(len(entropies)))}
        return [{"measure": measure, **asdict(figure)} for measure, figure in figures.items()]

    def by_number(
        self,
        editor: LarimarEditor,
        edits: Sequence[Edit],
        counts: Sequence[int],
        thresholds: Mapping[int, float] | None = None,
    ) -> pd.DataFrame:
        """Rows with ``written``: the first so many edits in memory at once. The editor ends up without any.

        Args:
            thresholds: of its scope detector, if it has one, by number of edits.
        """
        found: list[Row] = []
        for count in counts:
            editor.reset()
            editor.apply(edits[:count])
            if editor.scope is not None:
                editor.threshold = (thresholds or {})[count]
            found += [row | {"written": count} for row in self.rows(editor)]
        editor.reset()
        return pd.DataFrame(found)
