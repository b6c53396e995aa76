"""Muon: momentum whose matrices are orthogonalised before they are added to the weights (Jordan et al. 2024).

With O the orthogonal matrix nearest to the momentum, W ← (1 − η λ) W − η √max(1, rows / columns) O. PyTorch's own
optimizer computes O in bfloat16 whatever the device, which a processor without such instructions emulates at a fiftieth
of its speed; here the precision is an argument, and matrices of one shape are orthogonalised together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic that takes singular values from (0, 1] to about 1
STEPS = 5
EPSILON = 1e-7


class Muon(torch.optim.Optimizer):
    """For the matrices inside a model; embeddings and vectors are another optimizer's.

    Args:
        weights: matrices.
        dtype: in which they are orthogonalised.
        momentum: of the running mean of gradients, which Nesterov's look-ahead corrects.

    Raises:
        ValueError: a weight is no matrix.
    """

    def __init__(
        self,
        weights: Iterable[Tensor],
        *,
        lr: float,
        weight_decay: float,
        momentum: float = 0.95,
        dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        self.dtype = dtype
        super().__init__(weights, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        if wrong := [weight for group in self.param_groups for weight in group["params"] if weight.ndim != 2]:
            raise ValueError(f"a weight of shape {tuple(wrong[0].shape)}: expected matrices")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step along the gradients that are there."""
        for group in self.param_groups:
            alike: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is not None:
                    alike[weight.shape].append(weight)
            for shape, weights in alike.items():
                directions = torch.stack([self._momentum(weight, group["momentum"]) for weight in weights])
                rate = group["lr"] * max(1.0, shape[0] / shape[1]) ** 0.5
                for weight, update in zip(weights, orthogonalised(directions, self.dtype), strict=True):
                    weight.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=rate)

    def _momentum(self, weight: Tensor, momentum: float) -> Tensor:
        """The running mean of a weight's gradients, looking ahead."""
        assert weight.grad is not None
        mean = self.state[weight].setdefault("momentum_buffer", torch.zeros_like(weight.grad))
        mean.lerp_(weight.grad, 1 - momentum)
        return weight.grad.lerp(mean, momentum)


def orthogonalised(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    """U Vᵀ of each of B matrices U S Vᵀ, (B, M, N), by Newton–Schulz iterations; singular values end up near 1 (0.7 to
    1.2), which serves as well as 1."""
    wide = matrices.shape[1] <= matrices.shape[2]
    x = (matrices if wide else matrices.mT).to(dtype)
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=EPSILON)
    a, b, c = COEFFICIENTS
    for _ in range(STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x if wide else x.mT).to(matrices.dtype)
