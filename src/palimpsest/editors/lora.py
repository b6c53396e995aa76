"""LoRA: a low-rank change of the linear layers, trained on the new answers alone (Hu et al. 2021, arXiv 2106.09685)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from peft import LoraConfig, PeftModel, get_peft_model

from palimpsest.editors.editor import Editor
from palimpsest.editors.objective import descend, learning, target_batches, target_loss
from palimpsest.editors.weights import KeptWeights
from palimpsest.facts import Edit
from palimpsest.lm.load import LanguageModel


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """The adapter, whose changes are scaled by ``alpha / rank``, and its training.

    Attributes:
        targets: names of the linear layers to change; else all of them but the output layer.
        steps: passes over the edits at most, with one step of Adam for each ``batch_size`` of them.
        enough: the loss (nats a token) at which an edit is made.
        seed: of the adapter's initial weights. Its change is zero before the first step.
    """

    rank: int = 8
    alpha: float = 32
    targets: tuple[str, ...] = ()
    learning_rate: float = 5e-3
    steps: int = 70
    batch_size: int = 64
    enough: float = 1e-2
    seed: int = 0


class LoraEditor(Editor):
    """One adapter for all edits, put into the model by the first and taken out wholly by :meth:`reset`; the base
    weights never change. While it is in, everyone who uses the model sees it.
    """

    def __init__(self, lm: LanguageModel, *, settings: LoraSettings) -> None:
        super().__init__(lm)
        self.settings = settings
        self._adapted: PeftModel | None = None

    def apply(self, edits: Sequence[Edit]) -> None:
        prompts, targets = [edit.prompt for edit in edits], [edit.target_new for edit in edits]
        batches = target_batches(self.lm, prompts, targets, self.settings.batch_size)
        if not batches:
            return
        first = self._adapted is None
        adapted = self._attached() if self._adapted is None else self._adapted
        learnt = {name: weight for name, weight in adapted.named_parameters() if ".lora_" in name}
        try:
            with KeptWeights(adapted, learnt).all_or_nothing(), learning(adapted, list(learnt.values())):
                descend(
                    torch.optim.Adam(learnt.values(), lr=self.settings.learning_rate),
                    [target_loss(self.lm, batch) for batch in batches],
                    steps=self.settings.steps,
                    enough=self.settings.enough,
                )
        except BaseException:
            if first:
                self.reset()
            raise

    def reset(self) -> None:
        if self._adapted is not None:
            self._adapted.unload()
            self._adapted = None

    def _attached(self) -> PeftModel:
        """The model with a new adapter in its layers, which change nothing yet."""
        settings = self.settings
        config = LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            lora_dropout=0.0,
            bias="none",
            target_modules=list(settings.targets) or "all-linear",
            task_type="CAUSAL_LM",
        )
        asking = [weight for weight in self.lm.model.parameters() if weight.requires_grad]
        with torch.random.fork_rng():
            torch.manual_seed(settings.seed)
            self._adapted = get_peft_model(self.lm.model, config)
        for weight in asking:
            weight.requires_grad_(True)  # PEFT freezes the base for good; `learning` does for as long as it takes
        return self._adapted.eval()
