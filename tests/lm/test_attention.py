"""Attention for training on a CPU equals the fused kernel's, in value and gradients, and leaves the rest to it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from palimpsest.lm import attention
from palimpsest.lm.load import LanguageModel

B, H, T, D = 3, 2, 9, 8


@pytest.fixture
def layer() -> torch.nn.Module:
    module = torch.nn.Module()
    module.is_causal = True
    return module


def states(length: int, dtype: torch.dtype, heads: int = H) -> Tensor:
    return torch.randn(B, heads, length, D, generator=torch.Generator().manual_seed(length)).to(dtype).requires_grad_()


@pytest.mark.parametrize("longer", [0, 1])
@pytest.mark.parametrize("masked", [False, True])
def test_equals_the_fused_kernel(layer: torch.nn.Module, longer: int, masked: bool) -> None:
    if longer and not masked:
        pytest.skip("a cache comes with a mask")
    mask = None
    if masked:
        mask = torch.ones(T, T + longer, dtype=torch.bool).tril(longer).expand(B, 1, -1, -1).clone()
        mask[1, :, :, 0] = False  # a memory that is left out
        mask[1, :, 0, 1] = True
    upstream = torch.randn(B, T, H, D, generator=torch.Generator().manual_seed(1))
    found = []
    for forward, dtype in ((attention.attention, torch.bfloat16), (sdpa_attention_forward, torch.float64)):
        inputs = [states(length, dtype) for length in (T, T + longer, T + longer)]
        mixed, weights = forward(layer, *inputs, mask, scaling=0.3)
        assert weights is None
        found.append([mixed, *torch.autograd.grad(mixed, inputs, upstream.to(dtype))])
    for ours, exact in zip(*found, strict=True):
        assert ours.dtype == torch.bfloat16
        torch.testing.assert_close(ours.double(), exact, rtol=0.05, atol=0.03)


def test_autocast_counts_as_bfloat16(layer: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "sdpa_attention_forward", lambda *_, **__: pytest.fail("the fused kernel was asked"))
    with torch.autocast("cpu", torch.bfloat16):
        mixed, _ = attention.attention(layer, *(states(T, torch.float32) for _ in range(3)), None)
    assert mixed.dtype == torch.bfloat16


@pytest.mark.parametrize(
    "why", ["no gradient", "float32", "dropout", "grouped heads", "float mask", "one token", "soft cap"]
)
def test_everything_else_is_left_to_it(layer: torch.nn.Module, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    monkeypatch.setattr(attention, "sdpa_attention_forward", lambda *_, **__: ("fused", None))
    dtype = torch.float32 if why == "float32" else torch.bfloat16
    length = 1 if why == "one token" else T
    query, key = states(length, dtype), states(length, dtype, 1 if why == "grouped heads" else H)
    mask = torch.zeros(B, 1, T, T) if why == "float mask" else None
    with torch.set_grad_enabled(why != "no gradient"):
        mixed, _ = attention.attention(
            layer,
            query,
            key,
            key,
            mask,
            dropout=0.1 * (why == "dropout"),
            softcap=20.0 if why == "soft cap" else None,
        )
    assert mixed == "fused"


def test_loaded_models_use_it(tiny_lm: Callable[[str], LanguageModel]) -> None:
    assert tiny_lm("llama").model.config._attn_implementation == attention.NAME
    assert tiny_lm("gptj").model.config._attn_implementation != attention.NAME
