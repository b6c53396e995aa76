"""What ROME, MEMIT and AlphaEdit share: down projections that are edited, prefixes, and what ordinary keys are like."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from palimpsest.editors.statistics import second_moments
from palimpsest.editors.values import ValueSettings, draw_prefixes
from palimpsest.editors.weights import WeightEditor, choose_blocks
from palimpsest.lm.load import LanguageModel


class LocatedEditor(WeightEditor):
    """An editor of facts where they are looked up: at the subject's last token, in the MLPs of some layers.

    Args:
        layers: whose down projections are edited, counted from 0.
        corpus: texts like those that the model has learnt from, for the keys' second moments and for the prefixes.

    Raises:
        ModelError: no down projection was found.
        ValueError: there is no such layer, or the corpus is too small.
    """

    settings: ValueSettings

    def __init__(
        self, lm: LanguageModel, layers: Sequence[int], corpus: Sequence[str], settings: ValueSettings
    ) -> None:
        self.blocks = choose_blocks(lm.model, layers)
        super().__init__(lm, [block.weight_name for block in self.blocks])
        self.settings = settings
        self.prefixes = draw_prefixes(corpus, settings.prefixes, settings.prefix_words, settings.seed)

    def second_moments(self, corpus: Sequence[str], cache: Path | None) -> list[Tensor]:
        """C (F, F) of each block's keys in ordinary text; ``cache`` is a folder for them, None computes them."""
        per_feature, seed = self.settings.per_feature, self.settings.seed
        return second_moments(self.lm, corpus, self.blocks, per_feature=per_feature, seed=seed, cache=cache)
