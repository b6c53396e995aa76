"""Muon: its step against the published algorithm's, and what orthogonalising does to singular values."""

from __future__ import annotations

import pytest
import torch

from palimpsest.lm.muon import Muon, orthogonalised


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4)])
def test_singular_values_come_near_one_and_directions_stay(shape: tuple[int, int]) -> None:
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    found = orthogonalised(matrices, torch.float32)
    for matrix, near in zip(matrices, found, strict=True):
        u, _, v = torch.linalg.svd(matrix, full_matrices=False)
        turned = u.mT @ near @ v.mT  # diagonal if the singular vectors are the same
        assert turned.diagonal().min() > 0.5
        assert turned.diagonal().max() < 1.3
        assert (turned - turned.diagonal().diag()).abs().max() < 1e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_steps_are_those_of_torch(dtype: torch.dtype) -> None:
    """PyTorch's own optimizer works in bfloat16; in float32 it is the same up to bfloat16's rounding."""
    generator = torch.Generator().manual_seed(1)
    ours = [torch.randn(shape, generator=generator).requires_grad_() for shape in ((8, 8), (8, 8), (16, 4))]
    theirs = [weight.detach().clone().requires_grad_() for weight in ours]
    options = {"lr": 0.1, "weight_decay": 0.1}
    pair = Muon(ours, **options, dtype=dtype), torch.optim.Muon(theirs, **options)
    for _ in range(3):
        for weights, optimizer in zip((ours, theirs), pair, strict=True):
            sum((weight**3).sum() for weight in weights).backward()
            optimizer.step()
            optimizer.zero_grad()
    for own, other in zip(ours, theirs, strict=True):
        assert torch.allclose(own, other, atol=2e-2 if dtype == torch.float32 else 5e-3)


def test_only_matrices() -> None:
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        Muon([torch.zeros(3)], lr=0.1, weight_decay=0.0)
