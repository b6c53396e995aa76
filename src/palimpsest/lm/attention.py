"""Attention for training on a CPU in bfloat16, where PyTorch's fused kernel is slow, above all backwards.

Three products and a softmax, all in bfloat16 (12 texts of 256 tokens, 4 heads of 64: half of the fused kernel's time).
Everything else (no gradient, another precision or device, dropout, grouped heads) goes to the fused kernel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "palimpsest"
UNKNOWN = ("softcap", "position_bias", "cache")  # what some architectures add, and this does not do


def prefer_fast_attention(model: PreTrainedModel) -> None:
    """Have a model that would use the fused kernel attend by :func:`attention`, if its architecture allows that."""
    if model.is_backend_compatible() and model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(NAME)


def attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Values weighted by softmax(scaling · q kᵀ); the signature is that of transformers' attention functions.

    Args:
        module: the layer; query: (B, H, T, D); key and value: (B, H or fewer, S, D).
        attention_mask: true where position t may look at s, (B or 1, 1, T, S); ``None``: at itself and what is before.

    Returns:
        (B, T, H, D), and no weights.
    """
    causal = attention_mask is None and query.shape[2] == key.shape[2] and options.get("is_causal") is None
    known = causal or (attention_mask is not None and attention_mask.dtype == torch.bool)
    known = known and all(options.get(name) is None for name in UNKNOWN)
    if not (known and _slow_when_fused(query, key, dropout)):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
    batch, heads, length, size = query.shape
    query, key, value = (part.to(torch.bfloat16).flatten(0, 1) for part in (query, key, value))
    if attention_mask is None:
        hidden = torch.ones(length, length, dtype=torch.bool).triu(1)
    else:
        hidden = ~attention_mask.expand(batch, heads, -1, -1).flatten(0, 1)
    bias = torch.zeros_like(hidden, dtype=query.dtype).masked_fill_(hidden, torch.finfo(query.dtype).min)
    scores = torch.baddbmm(
        bias.expand(batch * heads, -1, -1),
        query,
        key.mT,
        alpha=size**-0.5 if scaling is None else scaling,
    )
    mixed = scores.softmax(-1) @ value
    return mixed.unflatten(0, (batch, heads)).transpose(1, 2).contiguous(), None


def _slow_when_fused(query: Tensor, key: Tensor, dropout: float) -> bool:
    gradients = torch.is_grad_enabled() and (query.requires_grad or key.requires_grad)
    device = query.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else query.dtype
    low = dtype == torch.bfloat16 and device == "cpu"
    return gradients and low and not dropout and query.shape[1] == key.shape[1] and query.shape[2] > 1


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
