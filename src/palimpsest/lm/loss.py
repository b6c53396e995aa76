"""Next-token cross-entropy without ever holding the logits of a whole batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK = 512  # positions: 512 × 4,096 float32 logits are 8 MB, which stays in the cache


class _LinearCrossEntropy(torch.autograd.Function):
    """−log softmax(h Wᵀ)[y], summed. With p = softmax(h Wᵀ): dh = (p − 1_y) W and dW = (p − 1_y)ᵀ h.

    Both gradients are formed chunk by chunk in the forward pass, while the logits are in the cache: a batch of
    4,096 positions and 4,096 tokens would otherwise move 64 MB several times, which costs as much as a third of a
    training step of a small model.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        gradients = any(ctx.needs_input_grad[:2])
        weight_low = weight.to(hidden.dtype)
        hidden_gradient = torch.empty_like(hidden)
        weight_gradient = torch.zeros_like(weight)
        total = hidden.new_zeros((), dtype=torch.float32)
        for start in range(0, len(targets), CHUNK):
            rows = slice(start, start + CHUNK)
            logits = (hidden[rows] @ weight_low.T).float()  # (rows, V)
            normalizer = logits.logsumexp(-1, keepdim=True)
            total += (normalizer - logits.gather(1, targets[rows, None])).sum()
            if gradients:
                error = logits.sub_(normalizer).exp_()
                error[torch.arange(len(error)), targets[rows]] -= 1
                error = error.to(hidden.dtype)
                torch.mm(error, weight_low, out=hidden_gradient[rows])
                weight_gradient += error.T @ hidden[rows]
        ctx.save_for_backward(hidden_gradient, weight_gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        hidden_gradient, weight_gradient = ctx.saved_tensors
        (scale,) = gradients
        return hidden_gradient * scale.to(hidden_gradient.dtype), weight_gradient * scale, None


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of the next tokens, in nats.

    Args:
        hidden: the decoder's last hidden states, (N, C); matrix products run in their dtype.
        weight: the output embedding, (V, C).
        targets: the token that follows each position, (N,).
    """
    total: Tensor = _LinearCrossEntropy.apply(hidden, weight, targets)
    return total / len(targets)
