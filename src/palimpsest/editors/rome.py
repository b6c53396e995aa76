"""ROME: one fact a rank-one change of one MLP (Meng et al. 2022, arXiv 2202.05262), in its corrected form.

The down projection W is read as a memory that maps keys to values. Of all W' that map the key k* of the subject to a
value v* that makes the model say the new answer, the one that disturbs ordinary keys least (ROME, eq. 2) is

    W' = W + (v* − W k*) uᵀ / (uᵀ k*),    u = C⁻¹ k*,    C = E[k kᵀ] of ordinary text.

The authors' code takes k* averaged over random prefixes for u, but the key of the bare prompt in v* − W k* and in the
denominator. Where these differ much, the denominator is nearly zero and a single edit breaks the model. Gupta et al.
(2024, arXiv 2403.07175) take the average everywhere, and so does this.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from palimpsest.editors.located import LocatedEditor
from palimpsest.editors.statistics import SecondMoment
from palimpsest.editors.values import ValueSettings, current_values, find_changes, mean_keys, prepare
from palimpsest.facts import Edit
from palimpsest.lm.load import LanguageModel


@dataclass(frozen=True, kw_only=True)
class RomeSettings(ValueSettings):
    """ROME's defaults are those of :class:`ValueSettings`: 20 steps of 0.5, KL 0.0625, decay 0.5, clamp 4, 20 prefixes.

    Attributes:
        layer: which MLP is edited, counted from 0 (17 of 48 in GPT-2 XL, 5 of 28 in GPT-J).
    """

    layer: int


class Rome(LocatedEditor):
    """Edits add up. In a batch they are made one after the other, each exactly, from the weights that those before it
    left; but the values of edits of different subjects are searched for together, at the weights before them.
    """

    settings: RomeSettings

    def __init__(
        self, lm: LanguageModel, *, corpus: Sequence[str], settings: RomeSettings, cache: Path | None = None
    ) -> None:
        super().__init__(lm, [settings.layer], corpus, settings)
        [self.block], [moment] = self.blocks, self.second_moments(corpus, cache)
        self.moment = SecondMoment(moment)

    def apply(self, edits: Sequence[Edit]) -> None:
        """Make the edits. Raises ValueError for one that cannot be made, and then makes none."""
        requests = prepare(self.lm, edits, self.prefixes)
        with self.kept.all_or_nothing():
            for numbers in _rounds([edit.subject for edit in edits]):
                part = [requests[number] for number in numbers]
                [keys] = mean_keys(self.lm, part, [self.block])
                before = current_values(self.lm, part, self.block.down_name)
                changes = find_changes(self.lm, part, self.block.down_name, before, self.settings)
                matrix = self.block.matrix.double()
                # W k* is the mean of the values over the prefixes, for W is linear: δ comes on top of that.
                values = keys @ matrix.T + changes.double()
                self.block.assign(insert(matrix, keys, values, self.moment))


def insert(matrix: Tensor, keys: Tensor, values: Tensor, moment: SecondMoment) -> Tensor:
    """W (D, F) after rank-one updates with N keys (N, F) and values (N, D), one after the other, in double precision.

    The result maps the last key to its value exactly, and an earlier one as nearly as the later ones let it.
    """
    matrix = matrix.double().clone()
    for key, value, direction in zip(keys.double(), values.double(), moment.solve(keys), strict=True):
        matrix += torch.outer(value - matrix @ key, direction) / (direction @ key)
    return matrix


def _rounds(subjects: Sequence[str]) -> Iterator[list[int]]:
    """Positions of the edits, in order, cut before each subject that occurs a second time: it has the same key, so its
    value must be searched for on top of what the first edit wrote."""
    start = 0
    for number in range(1, len(subjects) + 1):
        if number == len(subjects) or subjects[number] in subjects[start:number]:
            yield list(range(start, number))
            start = number
