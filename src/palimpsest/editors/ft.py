"""Fine-tuning, free (FT) and constrained (FT-L): gradient descent on the new answers alone.

FT-L keeps every weight within ε of what it was before any edit, max |W' − W| ≤ ε, by clamping after each step (Zhu et
al. 2020, arXiv 2012.00363, with the L∞ norm; it is ROME's baseline FT+L). Every token of an answer is learnt as what
follows those before it; ROME's code learns all of them as what follows the prompt, which spoils longer answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from palimpsest.editors.objective import descend, learning, target_batches, target_loss
from palimpsest.editors.replay import first_layer
from palimpsest.editors.weights import WeightEditor, choose_blocks
from palimpsest.facts import Edit
from palimpsest.lm.load import LanguageModel, ModelError


@dataclass(frozen=True, kw_only=True)
class FineTuningSettings:
    """How to fine-tune. The defaults are those of ROME's authors for GPT-2 XL (ε: 5e-4, in layer 0).

    Attributes:
        layer: whose MLP's down projection is trained, counted from 0.
        modules: names of modules to train instead, with all their weights.
        bound: ε; None leaves the weights free.
        steps: passes over the edits at most, with one step of Adam for each ``batch_size`` of them.
        enough: the loss (nats a token) at which an edit is made.
    """

    layer: int = 0
    modules: tuple[str, ...] = ()
    bound: float | None = None
    learning_rate: float = 5e-4
    steps: int = 25
    batch_size: int = 64
    enough: float = 1e-2


class FineTuning(WeightEditor):
    """Edits add up: each call goes on from the weights that the last one left, and ε counts from the unedited ones.

    Raises ModelError if the model has no such layer or module.
    """

    def __init__(self, lm: LanguageModel, *, settings: FineTuningSettings) -> None:
        self.settings = settings
        modules = settings.modules or [block.down_name for block in choose_blocks(lm.model, [settings.layer])]
        self.names = [f"{module}.{name}" for module in modules for name in _weights(lm, module)]
        self.first = min(first_layer(lm.model, module) for module in modules)
        super().__init__(lm, self.names)

    def apply(self, edits: Sequence[Edit]) -> None:
        settings = self.settings
        prompts, targets = [edit.prompt for edit in edits], [edit.target_new for edit in edits]
        batches = target_batches(self.lm, prompts, targets, settings.batch_size)
        if not batches:
            return
        named = dict(self.lm.model.named_parameters(remove_duplicate=False))
        weights = {name: named[name] for name in self.names}

        @torch.no_grad()
        def project() -> None:
            for name, weight in weights.items():
                if settings.bound is not None:
                    weight.clamp_(self.kept[name] - settings.bound, self.kept[name] + settings.bound)

        with self.kept.all_or_nothing(), learning(self.lm.model, list(weights.values())):
            descend(
                torch.optim.Adam(weights.values(), lr=settings.learning_rate),
                [target_loss(self.lm, batch, self.first) for batch in batches],
                steps=settings.steps,
                enough=settings.enough,
                project=project,
            )


def _weights(lm: LanguageModel, module: str) -> list[str]:
    """Names of a module's weights, within the module."""
    try:
        return [name for name, _ in lm.model.get_submodule(module).named_parameters()]
    except AttributeError as error:
        raise ModelError(f"{type(lm.model).__name__} has no module {module!r}") from error
