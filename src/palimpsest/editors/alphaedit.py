"""AlphaEdit: edits that cannot touch what ordinary text uses (Fang et al. 2025, arXiv 2410.02355).

As MEMIT, but every change Δ is projected onto the null space of the preserved keys K₀: with Û the eigenvectors of
C = E[k₀ k₀ᵀ] whose eigenvalues are nearly zero, P = Û Ûᵀ, and (Δ P) k₀ ≈ 0. The update for a sequence of edits is
(section 3.3), with earlier edits' keys K_p and the paper's I weighted by ``ridge`` as in the authors' code,

    Δ P = R K₁ᵀ P (K_p K_pᵀ P + K₁ K₁ᵀ P + ridge · I)⁻¹.

In the coordinates of the null space, κ = Ûᵀ k, this is a small symmetric problem: Δ P = R κ₁ᵀ (κ_p κ_pᵀ + κ₁ κ₁ᵀ +
ridge · I)⁻¹ Ûᵀ. So that is what is solved, and all that is remembered of earlier edits is κ_p κ_pᵀ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from palimpsest.editors.located import LocatedEditor, RangeSettings, spread
from palimpsest.editors.values import mean_keys, prepare
from palimpsest.facts import Edit
from palimpsest.lm.load import LanguageModel


@dataclass(frozen=True, kw_only=True)
class AlphaEditSettings(RangeSettings):
    """AlphaEdit's settings; the search for z is MEMIT's (with Llama 3 its authors take a learning rate of 0.1).

    Attributes:
        threshold: eigenvalues of C below it count as zero. 0.02 is the authors' for models whose keys are of about that
            size; it must fit the model's.
        ridge: the weight of ‖Δ P‖², 10 in the authors' code.
    """

    threshold: float = 0.02
    ridge: float = 10.0


class AlphaEdit(LocatedEditor):
    """Edits add up, and each call protects the keys of those before it; those of one call are solved for together.

    Raises ValueError also if all eigenvalues of a layer exceed the threshold.
    """

    settings: AlphaEditSettings

    def __init__(
        self, lm: LanguageModel, *, corpus: Sequence[str], settings: AlphaEditSettings, cache: Path | None = None
    ) -> None:
        super().__init__(lm, settings.layers, corpus, settings)
        self.bases = [null_space(moment, settings.threshold) for moment in self.second_moments(corpus, cache)]
        self._earlier = self._none()

    def apply(self, edits: Sequence[Edit]) -> None:
        """Make the edits. Raises ValueError for one that cannot be made, and then makes none."""
        requests = prepare(self.lm, edits, self.prefixes)
        if not requests:
            return
        with self.kept.all_or_nothing():
            spread(self.lm, requests, self.blocks, self.settings, self._update)
            # The keys as the edited model makes them: those of a layer depend on what was written below it.
            written = mean_keys(self.lm, requests, self.blocks)
        parts = [keys @ basis for keys, basis in zip(written, self.bases, strict=True)]
        self._earlier = [former + part.T @ part for former, part in zip(self._earlier, parts, strict=True)]

    def reset(self) -> None:
        """Put the weights back that the editor found, bit for bit, and forget which keys were edited."""
        super().reset()
        self._earlier = self._none()

    def _none(self) -> list[Tensor]:
        """κ_p κ_pᵀ before the first edit."""
        return [basis.new_zeros(basis.shape[1], basis.shape[1]) for basis in self.bases]

    def _update(self, number: int, keys: Tensor, residuals: Tensor) -> Tensor:
        return projected_update(self.bases[number], self._earlier[number], keys, residuals, self.settings.ridge)


def null_space(moment: Tensor, threshold: float) -> Tensor:
    """Û (F, r) in double precision: the eigenvectors of C (F, F) whose eigenvalues are below the threshold.

    Raises ValueError if there are none.
    """
    values, vectors = torch.linalg.eigh(moment.double())
    if not (values < threshold).any():
        raise ValueError(f"no eigenvalue of the keys' second moment is below {threshold}: the least is {values[0]:.3g}")
    return vectors[:, values < threshold]


def projected_update(basis: Tensor, earlier: Tensor, keys: Tensor, residuals: Tensor, ridge: float) -> Tensor:
    """Δ P (D, F), as in the equation above, in double precision.

    Args:
        basis: Û (F, r).
        earlier: κ_p κ_pᵀ (r, r).
        keys: K₁ as rows (N, F).
        residuals: R as rows (N, D).
    """
    inside = keys.double() @ basis  # κ₁ (N, r)
    system = earlier + inside.T @ inside
    system.diagonal().add_(ridge)
    return residuals.double().T @ torch.cholesky_solve(inside.T, torch.linalg.cholesky(system)).T @ basis.T
