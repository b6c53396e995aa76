"""Induction heads given as initial weights: a new model already looks where a copying model looks."""

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from palimpsest.lm.induction import add_induction_heads
from palimpsest.lm.tokenizer import train_tokenizer
from palimpsest.lm.train import Architecture

LENGTH = 40


def looks(width: int, heads: int, induction: bool) -> tuple[torch.Tensor, ...]:
    """Attention (B, heads, 80, 80) a layer of a new model that reads 40 random tokens twice."""
    config = Qwen2Config(
        vocab_size=500, hidden_size=width, intermediate_size=64, num_hidden_layers=3, num_attention_heads=heads,
        num_key_value_heads=heads, max_position_embeddings=128, attn_implementation="eager",
    )  # fmt: skip
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(config).eval()
    if induction:
        add_induction_heads(model, torch.Generator().manual_seed(0))
    ids = torch.stack([torch.randperm(500)[:LENGTH] for _ in range(16)])
    return model(torch.cat([ids, ids], 1), output_attentions=True).attentions


def mean_at(attention: torch.Tensor, offset: int) -> float:
    """Mean attention of the second half's positions to the position so many tokens before."""
    places = torch.arange(LENGTH + 1, 2 * LENGTH)
    return attention[:, places, places - offset].mean().item()


@pytest.mark.parametrize(("width", "heads"), [(256, 4), (128, 2)])
def test_a_new_model_looks_at_the_token_before_and_at_what_followed_it_earlier(width: int, heads: int) -> None:
    first, second, third = looks(width, heads, induction=True)
    assert mean_at(first[:, 0], 1) > 0.9
    for head in range(2):
        assert mean_at(second[:, head], LENGTH - 1) > 10 / (2 * LENGTH)  # ten times what chance gives
        assert mean_at(second[:, head], LENGTH) < 3 / (2 * LENGTH)
    assert mean_at(third[:, 0], LENGTH - 1) < 2 / LENGTH


def test_without_them_it_looks_nowhere_in_particular() -> None:
    first, second, _ = looks(256, 4, induction=False)
    assert mean_at(first[:, 0], 1) < 2 / LENGTH
    assert mean_at(second[:, 0], LENGTH - 1) < 2 / LENGTH


def test_all_else_stays_as_it_was() -> None:
    tokenizer = train_tokenizer(["some text of a few words"], 300, 64)
    shape = {"layers": 3, "width": 64, "feedforward": 64, "heads": 4, "context_length": 64}
    given, plain = (Architecture(**shape, induction=on).build(tokenizer, seed=1) for on in (True, False))
    weights = plain.state_dict()
    changed = {name for name, weight in given.state_dict().items() if not torch.equal(weight, weights[name])}
    parts = {"weight": ("q_proj", "k_proj", "v_proj", "o_proj"), "bias": ("q_proj", "k_proj")}
    assert changed == {f"model.layers.0.self_attn.{part}.{kind}" for kind in parts for part in parts[kind]} | {
        f"model.layers.1.self_attn.{part}.weight" for part in parts["weight"]
    }
    for name in changed:  # the last two heads are random as before
        axis = 1 if "o_proj" in name else 0
        assert torch.equal(given.state_dict()[name].chunk(2, axis)[1], weights[name].chunk(2, axis)[1])


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"num_hidden_layers": 1}, "got 1 layers of 2"),
        ({"num_attention_heads": 1, "num_key_value_heads": 1}, "got 2 layers of 1"),
        ({"num_key_value_heads": 1}, "as many key heads"),
    ],
)
def test_a_shape_without_room_for_the_circuit_is_refused(changes: dict[str, int], complaint: str) -> None:
    shape = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2} | changes
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=50, hidden_size=32, intermediate_size=32, **shape))
    with pytest.raises(ValueError, match=complaint):
        add_induction_heads(model, torch.Generator())
