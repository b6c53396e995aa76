"""The chunked loss equals the plain one, in value and in both gradients."""

import pytest
import torch

from palimpsest.lm.loss import CHUNK, linear_cross_entropy


@pytest.mark.parametrize("n", [1, 7, CHUNK, CHUNK + 3])
def test_equals_plain_cross_entropy(n: int) -> None:
    generator = torch.Generator().manual_seed(n)
    hidden = torch.randn(n, 16, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(31, 16, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 31, (n,), generator=generator)
    plain = torch.nn.functional.cross_entropy(hidden @ weight.T, targets)
    expected = torch.autograd.grad(3 * plain, (hidden, weight))
    chunked = linear_cross_entropy(hidden, weight, targets)
    found = torch.autograd.grad(3 * chunked, (hidden, weight))
    torch.testing.assert_close(chunked.double(), plain, rtol=1e-6, atol=1e-6)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_two_by_two_by_hand() -> None:
    # h = (1, 0), W = I: logits (1, 0), so the loss of token 0 is log(1 + e⁻¹) and of token 1 is log(1 + e).
    hidden, weight = torch.tensor([[1.0, 0.0]]), torch.eye(2)
    assert linear_cross_entropy(hidden, weight, torch.tensor([0])).item() == pytest.approx(0.3132617)
    assert linear_cross_entropy(hidden, weight, torch.tensor([1])).item() == pytest.approx(1.3132617)
