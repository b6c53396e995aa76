"""Reading the same rows over and over while only something late in them changes.

A search for a value, or descent on one layer's weights, calls the model dozens of times on the same tokens. What lies
before the change is the same each time: in depth the layers below it, in length the tokens before the first that can
differ. Both are computed once here, the layers' states and the tokens' keys and values are kept, and a call computes
only the rest. It is the same computation, so the result is that of the whole model up to rounding.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from palimpsest.editors.weights import Halted, find_blocks
from palimpsest.lm.batching import padded
from palimpsest.lm.load import LanguageModel


@dataclass(frozen=True, eq=False)
class Replay:
    """R rows of token ids, of which S tokens each are computed anew, from one layer on; make one with :meth:`of`.

    The first of the S columns holds each row's token ``start``, whatever the row's length.
    """

    lm: LanguageModel
    tokens: Tensor
    """(R, S), filled up on the right."""
    below: tuple[nn.Module, ...]
    """The blocks that are not computed."""
    state: Any
    """What the last of these returned; None if there are none."""
    cache: DynamicCache | None
    """Keys and values of the P tokens before, filled up on the left; None if there are none before any row."""
    mask: Tensor | None
    """(R, P + S): zero where the left is filled up; None without a cache."""
    positions: Tensor | None
    """(R, S) of the tokens in their rows; None without a cache."""

    @classmethod
    @torch.no_grad()
    def of(cls, lm: LanguageModel, rows: Sequence[Sequence[int]], starts: Sequence[int], layer: int) -> Replay:
        """Read all that will not change.

        Args:
            starts: of each row the first token whose states may change, or those of a token after it.
            layer: the first layer, counted from 0, whose result may change; as many as there are for none.
        """
        tokens = padded([row[start:] for row, start in zip(rows, starts, strict=True)], lm.pad_id, lm.device)
        blocks = find_blocks(lm.model)[:layer] if layer else []
        below = tuple(lm.model.get_submodule(block.name) for block in blocks)
        unread = cls(lm, tokens, below, None, None, None, None)
        if longest := max(starts):
            before = [row[:start] for row, start in zip(rows, starts, strict=True)]
            unread = unread._after(before, longest, torch.tensor([len(row) for row in rows], device=lm.device))
        return unread._with_state() if below else unread

    def logits(self, keep: Tensor) -> Tensor:
        """What follows the tokens that ``keep`` (R, S) marks: (n, V), row by row."""
        logits = self._call(logits_to_keep=keep).logits
        return logits[keep] if logits.ndim == 3 else logits  # a model may ignore `logits_to_keep`

    def narrowed(self, rows: Tensor) -> Replay:
        """Only the rows at some positions (n,)."""
        cache = None if self.cache is None else _copy(self.cache)
        if cache is not None:
            cache.batch_select_indices(rows)
        return replace(
            self,
            tokens=self.tokens[rows],
            state=_narrowed(self.state, rows),
            cache=cache,
            mask=None if self.mask is None else self.mask[rows],
            positions=None if self.positions is None else self.positions[rows],
        )

    def _after(self, before: Sequence[Sequence[int]], width: int, lengths: Tensor) -> Replay:
        """With ``before`` in the cache, P = ``width`` tokens, as what stands before rows of ``lengths`` (R,) in all."""
        lm, starts = self.lm, torch.tensor([len(row) for row in before], device=self.lm.device)[:, None]
        place = torch.arange(width + self.tokens.shape[1], device=lm.device) - (width - starts)  # (R, P + S)
        mask, positions = (place >= 0).long(), torch.minimum(place.clamp(min=0), lengths[:, None] - 1)
        cache = DynamicCache(config=lm.model.config)
        lm.model(
            input_ids=padded(before, lm.pad_id, lm.device, left=True),
            attention_mask=mask[:, :width],
            position_ids=positions[:, :width],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return replace(self, cache=cache, mask=mask, positions=positions[:, width:])

    def _with_state(self) -> Replay:
        """With what the last block below returns."""
        kept: list[Any] = []

        def keep(_: nn.Module, __: tuple, output: Any) -> None:
            kept.append(output)
            raise Halted

        handle = self.below[-1].register_forward_hook(keep)
        try:
            with suppress(Halted):
                replace(self, below=())._call(logits_to_keep=1)
        finally:
            handle.remove()
        return replace(self, state=kept[0])

    def _call(self, **arguments: Any) -> Any:
        """The model's answer to the tokens, after what was read before them."""
        if self.cache is not None:
            arguments |= {"attention_mask": self.mask, "position_ids": self.positions}
            arguments["past_key_values"] = _copy(self.cache)  # for a call adds to it
        with _returning(self.below, self.state):
            return self.lm.model(input_ids=self.tokens, use_cache=self.cache is not None, **arguments)


def first_layer(model: Any, module: str) -> int:
    """The first layer in which something changes if what a module returns does: that of the module, or for a whole
    block the one above it."""
    for number, block in enumerate(find_blocks(model)):
        if module == block.name:
            return number + 1
        if module.startswith(f"{block.name}."):
            return number
    return 0


def _narrowed(state: Any, rows: Tensor) -> Any:
    """Some rows of what a block returned: its states (R, S, width), alone or before something else."""
    if isinstance(state, tuple):
        return (state[0][rows], *state[1:])
    return None if state is None else state[rows]


def _copy(cache: DynamicCache) -> DynamicCache:
    """A cache that can be added to without the other's noticing: its tensors are only ever replaced."""
    copied = copy.copy(cache)
    copied.layers = [copy.copy(layer) for layer in cache.layers]
    return copied


@contextmanager
def _returning(blocks: Sequence[nn.Module], state: Any) -> Iterator[None]:
    """Inside, each of these blocks returns ``state`` at once, and their hooks see it."""
    own = [vars(block).get("forward") for block in blocks]
    try:
        for block in blocks:
            vars(block)["forward"] = lambda *_, **__: state
        yield
    finally:
        for block, forward in zip(blocks, own, strict=True):
            if forward is None:
                del vars(block)["forward"]
            else:
                vars(block)["forward"] = forward
