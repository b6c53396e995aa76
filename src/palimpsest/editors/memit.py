"""MEMIT: many facts at once, spread over several MLPs (Meng et al. 2023, arXiv 2210.07229).

For each fact a hidden state z at the subject's last token after the last edited block makes the model say the new
answer. From the first edited layer to the last, each writes an equal part of what is still missing (section 4.3),

    R = (Z − H) / (layers left),    Δ = R Kᵀ (λ C + K Kᵀ)⁻¹    (eq. 14),

with the facts' keys K (F, N) and residuals R (D, N) as columns: least squares between the new facts and ordinary keys,
of which λ says how much they count. Here facts are rows, and the inverse is written as in

    Kᵀ (λ C + K Kᵀ)⁻¹ = (λ I + Kᵀ C⁻¹ K)⁻¹ Kᵀ C⁻¹,

which needs nothing larger than N × N but the factor of C that is there already, and shows what MEMIT is for one fact in
one layer: ROME's update times s / (λ + s), with s = k*ᵀ C⁻¹ k*.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from palimpsest.editors.located import LocatedEditor, RangeSettings, spread
from palimpsest.editors.statistics import SecondMoment
from palimpsest.editors.values import prepare
from palimpsest.facts import Edit
from palimpsest.lm.load import LanguageModel


@dataclass(frozen=True, kw_only=True)
class MemitSettings(RangeSettings):
    """MEMIT's settings.

    Attributes:
        covariance_weight: λ, how many facts ordinary text counts for (15,000 in GPT-J, 20,000 in GPT-2 XL).
    """

    covariance_weight: float = 15_000


class Memit(LocatedEditor):
    """Edits add up; those of one call are solved for together."""

    settings: MemitSettings

    def __init__(
        self, lm: LanguageModel, *, corpus: Sequence[str], settings: MemitSettings, cache: Path | None = None
    ) -> None:
        super().__init__(lm, settings.layers, corpus, settings)
        self.moments = [SecondMoment(moment) for moment in self.second_moments(corpus, cache)]

    def apply(self, edits: Sequence[Edit]) -> None:
        """Make the edits. Raises ValueError for one that cannot be made, and then makes none."""
        requests = prepare(self.lm, edits, self.prefixes)
        if requests:
            with self.kept.all_or_nothing():
                spread(self.lm, requests, self.blocks, self.settings, self._update)

    def _update(self, number: int, keys: Tensor, residuals: Tensor) -> Tensor:
        return least_squares(self.moments[number], keys, residuals, self.settings.covariance_weight)


def least_squares(moment: SecondMoment, keys: Tensor, residuals: Tensor, weight: float) -> Tensor:
    """Δ (D, F) of MEMIT's eq. 14 for keys (N, F) and residuals (N, D), with λ = ``weight``; in double precision."""
    directions = moment.solve(keys)  # rows are C⁻¹ k
    gram = keys.double() @ directions.T  # (N, N)
    gram.diagonal().add_(weight)
    return residuals.double().T @ torch.linalg.solve(gram, directions)
