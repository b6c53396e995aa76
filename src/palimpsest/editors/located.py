"""What ROME, MEMIT and AlphaEdit share: down projections that are edited, prefixes, and what ordinary keys are like."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from palimpsest.editors.statistics import second_moments
from palimpsest.editors.values import Request, ValueSettings, current_values, draw_prefixes, find_changes, mean_keys
from palimpsest.editors.weights import Block, WeightEditor, choose_blocks
from palimpsest.lm.load import LanguageModel


@dataclass(frozen=True, kw_only=True)
class RangeSettings(ValueSettings):
    """Settings of methods that edit a range of layers, with MEMIT's defaults for the search (25 steps, clamp 0.75 and 5
    prefixes instead of ROME's).

    Attributes:
        layers: which MLPs are edited, ascending and counted from 0 (13 to 17 in GPT-2 XL, 3 to 8 in GPT-J).
    """

    layers: Sequence[int]
    steps: int = 25
    clamp: float = 0.75
    prefixes: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.layers or list(self.layers) != sorted(set(self.layers)):
            raise ValueError(f"expected layers in ascending order, got {self.layers}")


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


def spread(
    lm: LanguageModel,
    requests: Sequence[Request],
    blocks: Sequence[Block],
    settings: RangeSettings,
    update: Callable[[int, Tensor, Tensor], Tensor],
) -> None:
    """Write facts into several layers, each the part that falls to it, given what those before it have achieved.

    Args:
        update: gets the number of the block in the range, keys (N, F) and residuals (N, D), and returns Δ (D, F).
    """
    last = blocks[-1].name
    before = current_values(lm, requests, last)
    wanted = before + find_changes(lm, requests, last, before, settings)  # z
    for number, block in enumerate(blocks):
        [keys] = mean_keys(lm, requests, [block])
        missing = wanted - (current_values(lm, requests, last) if number else before)
        block.assign(block.matrix.double() + update(number, keys, missing.double() / (len(blocks) - number)))
