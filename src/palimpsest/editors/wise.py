"""WISE: a side memory beside one MLP, used only by prompts that were edited (Wang et al. 2024, arXiv 2405.14768).

The side memory W' is a copy of the MLP's down projection W, here stored as Δ = W' − W. How much a prompt activates it,

    Δact(x) = ‖a(x) (W' − W)‖₂   (eq. 3; a: the down projection's input; the mean over the prompt's tokens),

decides at the prompt whether side or main memory is used for it and all that follows (eq. 4). A margin loss makes edits
activate it and other prompts not (eq. 5). Edits go in shards, each trained in a random part of the matrix of its own
(section 2.3.2), and merged by TIES into one side memory (WISE-Merge).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from palimpsest.editors.editor import Editor
from palimpsest.editors.objective import descend, target_batches, target_loss
from palimpsest.editors.values import draw_prefixes
from palimpsest.editors.weights import Halted, choose_blocks, frozen, hooked
from palimpsest.facts import Edit
from palimpsest.lm.batching import DEFAULT_TOKENS_PER_BATCH, length_batches, padded
from palimpsest.lm.load import LanguageModel
from palimpsest.lm.scoring import TargetScore

Answer = TypeVar("Answer")


@dataclass(frozen=True, kw_only=True)
class WiseSettings:
    """The defaults are those of the authors' code for Llama 2.

    Attributes:
        layer: whose MLP's down projection gets the side memory, counted from 0 (27 of 32 in Llama 2 7B).
        alpha: Δact that other prompts should stay below.
        beta: Δact that edits should exceed.
        gamma: by how much edits should exceed other prompts.
        unit: of Δact in these three and in their loss. It is 1 in the paper; but models' activations differ in size,
            and where they are large the margins, to be noticed, must be so too, and would outweigh the targets' loss.
        slack: the side memory is used above ``slack`` times the least Δact of an edit when it was made.
        mask_ratio: ρ, the share of the matrix that one shard may change.
        shard_edits: how many edits go into a shard.
        density: the share of a shard's largest changes that TIES keeps.
        learning_rate: of gradient descent.
        steps: of gradient descent an edit, at most.
        batch_size: edits trained on together, if they come together.
        bound: no weight of the side memory is further from its original.
        enough: the loss (nats a token, with the margins) at which edits are made.
        prefixes: how many texts stand before the prompt in turn, besides none.
        prefix_words: the longest prefix, in words.
        seed: of masks, prefixes, and which other prompts are taken.
    """

    layer: int
    alpha: float = 5.0
    beta: float = 20.0
    gamma: float = 10.0
    unit: float = 1.0
    slack: float = 0.88
    mask_ratio: float = 0.2
    shard_edits: int = 500
    density: float = 0.53
    learning_rate: float = 1.0
    steps: int = 70
    batch_size: int = 1
    bound: float = 1.0
    enough: float = 1e-2
    prefixes: int = 10
    prefix_words: int = 10
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Shard:
    """Changes Δ (D, F) of some edits; zero where ``mask`` is false."""

    delta: Tensor
    mask: Tensor
    edits: int = 0


class Wise(Editor):
    """The weights are never changed: what the side memory would say is added where it is used.

    Args:
        irrelevant: prompts like those of edits, but of no edit to come: what the side memory learns to keep out of.
        corpus: texts from which prefixes are drawn; may be empty if ``settings.prefixes`` is 0.

    Raises:
        ModelError: no down projection was found.
        ValueError: there is no such layer, no irrelevant prompt, or no text for prefixes.
    """

    def __init__(
        self, lm: LanguageModel, *, irrelevant: Sequence[str], corpus: Sequence[str], settings: WiseSettings
    ) -> None:
        super().__init__(lm)
        if not irrelevant:
            raise ValueError("WISE needs irrelevant prompts, which its routing learns to tell from edits")
        self.settings, self.irrelevant = settings, list(irrelevant)
        [self.block] = choose_blocks(lm.model, [settings.layer])
        self.prefixes = draw_prefixes(corpus, settings.prefixes, settings.prefix_words, settings.seed)
        self.shards: list[Shard] = []
        self.threshold = float("inf")
        """Δact above which a prompt is routed to the side memory."""
        self.side: Tensor | None = None
        """The merged Δ (D, F); None before the first edit."""

    def apply(self, edits: Sequence[Edit]) -> None:
        shards, threshold = list(self.shards), self.threshold
        start = 0
        while start < len(edits):
            if not shards or shards[-1].edits >= self.settings.shard_edits:
                shards.append(self._new_shard(len(shards)))
            room = self.settings.shard_edits - shards[-1].edits
            group = edits[start : start + min(room, self.settings.batch_size)]
            shards[-1] = self._learnt(shards[-1], group, f"{self.settings.seed}/{len(shards)}/{shards[-1].edits}")
            activations = self.activations([edit.prompt for edit in group], shards[-1].delta)
            threshold = min(threshold, self.settings.slack * float(activations.min()))
            start += len(group)
        if shards:
            self.side = merge([shard.delta for shard in shards], self.settings.density)
        self.shards, self.threshold = shards, threshold

    def reset(self) -> None:
        self.shards, self.threshold, self.side = [], float("inf"), None

    def score(self, prompts: Sequence[str], targets: Sequence[str]) -> list[TargetScore]:
        def ask(chosen: Sequence[int]) -> list[TargetScore]:
            return super(Wise, self).score([prompts[i] for i in chosen], [targets[i] for i in chosen])

        return self._routed(prompts, ask)

    def generate(self, prompts: Sequence[str], *, max_new_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        def ask(chosen: Sequence[int]) -> list[str]:
            return super(Wise, self).generate([prompts[i] for i in chosen], max_new_tokens=max_new_tokens, stop=stop)

        return self._routed(prompts, ask)

    def routes(self, prompts: Sequence[str]) -> list[bool]:
        """Whether each prompt goes to the side memory (eq. 4)."""
        if self.side is None or not prompts:
            return [False] * len(prompts)
        unique = list(dict.fromkeys(prompts))
        above = self.activations(unique, self.side) > self.threshold
        chosen = dict(zip(unique, above.tolist(), strict=True))
        return [chosen[prompt] for prompt in prompts]

    @torch.no_grad()
    def activations(self, prompts: Sequence[str], delta: Tensor) -> Tensor:
        """Δact (P,) of each prompt for a side memory W + Δ (eq. 3)."""
        found = torch.empty(len(prompts), device=delta.device)
        for batch, keys, lengths in self._keys(prompts):
            found[batch] = prompt_mean((keys @ delta.T).norm(dim=-1), lengths)
        return found

    @torch.no_grad()
    def _keys(self, prompts: Sequence[str]) -> Iterator[tuple[list[int], Tensor, Tensor]]:
        """In batches: positions of B prompts, what enters the down projection (B, T, F), and their lengths (B,). Of the
        model, no more is computed than that takes."""
        encoded = self.lm.encode_prompts(prompts)
        for batch in length_batches([len(ids) for ids in encoded], DEFAULT_TOKENS_PER_BATCH):
            tokens = padded([encoded[i] for i in batch], self.lm.pad_id, self.lm.device)
            read: list[Tensor] = []

            def halt(state: Tensor, read: list[Tensor] = read) -> None:
                read.append(state)
                raise Halted

            with hooked(self.lm.model, self.block.down_name, halt, "input"), suppress(Halted):
                self.lm.model(input_ids=tokens, use_cache=False, logits_to_keep=1)
            lengths = torch.tensor([len(encoded[i]) for i in batch], device=self.lm.device)
            yield batch, read[0].float().view(*tokens.shape, -1), lengths

    def _routed(self, prompts: Sequence[str], ask: Callable[[Sequence[int]], Sequence[Answer]]) -> list[Answer]:
        """Ask for prompts by position: those routed to the main memory, then those routed to the side memory."""
        routes = self.routes(prompts)
        answers: dict[int, Answer] = {}
        for side in (False, True):
            chosen = [index for index, route in enumerate(routes) if route == side]
            if chosen:
                with nullcontext() if self.side is None or not side else self._speaking(self.side):
                    answers |= zip(chosen, ask(chosen), strict=True)
        return [answers[index] for index in range(len(prompts))]

    @contextmanager
    def _speaking(self, delta: Tensor) -> Iterator[list[Tensor]]:
        """Use the side memory W + Δ for all tokens inside the block. Yields a list that holds, after a call of the
        model, what Δ added to the down projection's output."""
        entering = torch.empty(0)
        added: list[Tensor] = []

        def on_input(state: Tensor) -> None:
            nonlocal entering
            entering = state

        def on_output(state: Tensor) -> Tensor:
            added[:] = [entering.float() @ delta.T]
            return state + added[0].to(state.dtype)

        name = self.block.down_name
        with hooked(self.lm.model, name, on_input, "input"), hooked(self.lm.model, name, on_output):
            yield added

    def _new_shard(self, number: int) -> Shard:
        """A shard that says nothing yet, with its random mask."""
        shape = self.block.matrix.shape
        generator = torch.Generator().manual_seed(self.settings.seed * 1_000_003 + number)
        mask = torch.rand(shape, generator=generator) < self.settings.mask_ratio
        return Shard(torch.zeros(shape, device=self.lm.device), mask.to(self.lm.device))

    def _learnt(self, shard: Shard, group: Sequence[Edit], seed: str) -> Shard:
        """The shard after some edits were made in it together: the loss is that of the targets and eq. 5 (eq. 6)."""
        settings = self.settings
        prompts = [prefix + edit.prompt for edit in group for prefix in self.prefixes]
        targets = [edit.target_new for edit in group for _ in self.prefixes]
        [batch] = target_batches(self.lm, prompts, targets, len(prompts))
        lengths = torch.tensor([len(prompt) for prompt in batch.prompts], device=self.lm.device)
        others = list(self._keys(random.Random(seed).choices(self.irrelevant, k=len(group))))
        delta = shard.delta.clone().requires_grad_(True)
        delta.register_hook(lambda gradient: gradient * shard.mask)

        def project() -> None:
            delta.data.clamp_(-settings.bound, settings.bound)

        with torch.enable_grad(), frozen(self.lm.model), self._speaking(delta) as added:
            nll = target_loss(self.lm, batch, settings.layer)

            def loss() -> Tensor:
                told = nll()
                edited = prompt_mean(added[0].norm(dim=-1).view(len(prompts), -1), lengths)
                other = torch.cat([prompt_mean((keys @ delta.T).norm(dim=-1), own) for _, keys, own in others])
                return told + self._margin(edited.view(len(group), -1), other[:, None])

            sgd = torch.optim.SGD([delta], lr=settings.learning_rate)
            descend(sgd, [loss], steps=settings.steps, enough=settings.enough, project=project)
        return replace(shard, delta=delta.detach(), edits=shard.edits + len(group))

    def _margin(self, edited: Tensor, other: Tensor) -> Tensor:
        """The routing loss (eq. 5) for Δact of edits (B, P) and of one other prompt for each (B, 1)."""
        edited, other = edited / self.settings.unit, other / self.settings.unit
        above, below = (other - self.settings.alpha).relu(), (self.settings.beta - edited).relu()
        return above.mean() + below.mean() + (self.settings.gamma - (edited - other)).relu().mean()


def prompt_mean(sizes: Tensor, lengths: Tensor) -> Tensor:
    """Means (B,) over the first ``lengths`` (B,) of T tokens (B, T): over prompts, without what follows them."""
    inside = torch.arange(sizes.shape[1], device=sizes.device) < lengths[:, None]
    return (sizes * inside).sum(1) / lengths


def merge(deltas: Sequence[Tensor], density: float) -> Tensor:
    """TIES (Yadav et al. 2023, arXiv 2306.01708): of each change keep the largest share, elect each weight's sign by
    their sum, and average the changes that have it."""
    trimmed = torch.stack([_trimmed(delta, density) for delta in deltas])
    agree = (trimmed.sign() == trimmed.sum(0).sign()) & (trimmed != 0)
    return (trimmed * agree).sum(0) / agree.sum(0).clamp(min=1)


def _trimmed(delta: Tensor, density: float) -> Tensor:
    """The ``density`` share of the entries that are largest in size; the rest zero."""
    sizes = delta.abs()
    kept = max(1, round(density * delta.numel()))
    least = sizes.flatten().kthvalue(delta.numel() - kept + 1).values
    return torch.where(sizes >= least, delta, 0.0)
