"""Read-outs as tokens: how a batch that is sorted, shared, padded and thinned out keeps each row's memory.

A row that has memory opens with a *pointer*, a token past the vocabulary that says which read-out stands there. So the
scoring and generation of :mod:`palimpsest.lm`, which move rows of tokens about, serve rows with memory unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.modeling_outputs import CausalLMOutputWithPast

from palimpsest.lm.load import LanguageModel


@dataclass(frozen=True, eq=False)
class EncodedPrompts(LanguageModel):
    """A language model whose prompts are rows of tokens already."""

    def __post_init__(self) -> None:
        """Leave the model in its mode, and unchecked: this is another view of a language model that was checked."""

    def encode_prompts(self, prompts: Sequence[Any]) -> list[list[int]]:
        return list(prompts)


class PointerReader:
    """A causal LM, called like any other, that reads the pointer V + i as the i-th read-out.

    V is the number of rows of its embedding. Every row has to open with one pointer, after padding if there is any.

    Args:
        model: the causal LM.
        remember: puts read-outs (B, C) into the first place of an empty cache.
        z: (U, C) the read-outs that pointers mean.
    """

    def __init__(self, model: Any, remember: Callable[[Tensor, DynamicCache], None], z: Tensor) -> None:
        self.model, self._remember, self._z = model, remember, z

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    @property
    def first(self) -> int:
        """V, the pointer to the first read-out."""
        return len(self.model.get_input_embeddings().weight)

    def __call__(
        self,
        *,
        input_ids: Tensor,
        past_key_values: DynamicCache | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        use_cache: bool = True,
    ) -> CausalLMOutputWithPast:
        """As of a causal LM: tokens (B, T) after P places in cache and mask. There always is a cache."""
        cache = DynamicCache(config=self.model.config) if past_key_values is None else past_key_values
        if position_ids is None:
            seen = torch.arange(input_ids.shape[1], device=input_ids.device) + cache.get_seq_length()
            position_ids = seen.expand(input_ids.shape)
        if attention_mask is not None:  # (B, P + T): the first place now holds the memory, not padding or a pointer
            text = attention_mask * (attention_mask.cumsum(1) > 1)
            attention_mask = torch.cat([torch.ones_like(text[:, :1]), text[:, 1:]], dim=1)
        if not cache.get_seq_length():
            pointers = input_ids.amax(1) - self.first
            self._remember(self._z[pointers], cache)
            # The first column is a pointer or padding; pointers behind padding are masked, and any token will do.
            input_ids, position_ids = input_ids[:, 1:].clamp(max=self.first - 1), position_ids[:, 1:]
            if isinstance(logits_to_keep, Tensor):
                logits_to_keep = logits_to_keep[:, 1:]
            if not input_ids.shape[1]:
                return CausalLMOutputWithPast(past_key_values=cache)
        return self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=(position_ids - 1).clamp(min=0),  # the pointer was counted, the memory is not
            past_key_values=cache,
            logits_to_keep=logits_to_keep,
            use_cache=True,
        )
