from __future__ import annotations

import pytest
import torch
from tiny_models import ARCHITECTURES, DOWN, changed, tiny_lm, weights
from torch import nn

from palimpsest.editors.weights import KeptWeights, choose_blocks, find_blocks, frozen, hooked, put, read_at, take
from palimpsest.lm.load import ModelError

ROWS = [[5, 6, 7, 8, 9], [10, 11], [12, 13, 14, 15]]
PLACES = [3, 1, 0]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_down_projection_is_found_and_maps_its_input_to_its_output(architecture: str) -> None:
    lm = tiny_lm(architecture)
    blocks = find_blocks(lm.model)
    assert [block.down_name for block in blocks] == [
        f"{b.name}.{DOWN.get(architecture, 'mlp.down_proj')}" for b in blocks
    ]
    for block in blocks:
        assert block.matrix.shape[0] == 16
        keys, values = read_at(lm, ROWS, PLACES, [(block.down_name, "input"), (block.down_name, "output")])
        bias = block.down.bias if block.down.bias is not None else torch.zeros(16)
        torch.testing.assert_close(keys @ block.matrix.T + bias, values)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("budget", [1, 1000])
def test_states_are_read_where_they_are(architecture: str, budget: int) -> None:
    lm = tiny_lm(architecture)
    block = find_blocks(lm.model)[0]
    [states] = read_at(lm, ROWS, PLACES, [(block.name, "output")], max_tokens_per_batch=budget)
    for row, place, state in zip(ROWS, PLACES, states, strict=True):
        hidden = lm.model(input_ids=torch.tensor([row]), output_hidden_states=True).hidden_states[1]
        torch.testing.assert_close(state, hidden[0, place])


@pytest.mark.parametrize("architecture", ["gpt2", "opt", "gptj"])
def test_a_state_is_replaced_and_the_hook_removed_even_after_an_error(architecture: str) -> None:
    lm = tiny_lm(architecture)
    name = find_blocks(lm.model)[1].down_name
    tokens = torch.tensor([[5, 6, 7], [8, 9, 10]])
    index, values = torch.tensor([1 * 3 + 2]), torch.full((1, 16), 7.0)
    before = lm.model(input_ids=tokens).logits
    seen: list[torch.Tensor] = []
    with (
        hooked(lm.model, name, lambda state: put(state, index, values)),
        hooked(lm.model, name, lambda state: seen.append(take(state, torch.arange(6)))),
    ):
        during = lm.model(input_ids=tokens).logits
    assert torch.equal(seen[0][5], values[0])
    different = (before != during).any(-1)
    assert different.tolist() == [[False] * 3, [False, False, True]]
    with pytest.raises(ZeroDivisionError), hooked(lm.model, name, lambda state: 1 / 0):
        lm.model(input_ids=tokens)
    assert torch.equal(lm.model(input_ids=tokens).logits, before)


def test_weights_come_back_bit_for_bit() -> None:
    lm = tiny_lm("gpt2")
    before, [block] = weights(lm), choose_blocks(lm.model, [1])
    kept = KeptWeights(lm.model, [block.weight_name])
    with kept.all_or_nothing():
        block.assign(block.matrix * 1.1)
    assert changed(lm, before) == {block.weight_name}
    edited = weights(lm)
    factors = [2.0, float("nan")]
    with pytest.raises(ArithmeticError, match="not finite"), kept.all_or_nothing():
        [block.assign(block.matrix * factor) for factor in factors]
    assert not changed(lm, edited)
    kept.restore()
    assert not changed(lm, before)


def test_frozen_weights_ask_for_gradients_again_afterwards() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].bias.requires_grad_(False)
    with frozen(model):
        assert not any(weight.requires_grad for weight in model.parameters())
    assert [weight.requires_grad for weight in model.parameters()] == [True, False, True, True]


def test_what_is_not_there_is_named() -> None:
    lm = tiny_lm("llama")
    with pytest.raises(ValueError, match="no layer 2: the model has layers 0 to 1"):
        choose_blocks(lm.model, [0, 2])
    with pytest.raises(ModelError, match="no module 'mlp'"), hooked(lm.model, "mlp", lambda state: state):
        pass
    with pytest.raises(ModelError, match="no weight 'mlp'"):
        KeptWeights(lm.model, ["mlp"])
    layer = lm.model.model.layers[1]
    layer.mlp = nn.Identity()
    with pytest.raises(ModelError, match=r"model.layers.1 has no linear layer outside its attention"):
        find_blocks(lm.model)
    layer.mlp = nn.ModuleDict(
        {"one": nn.ModuleDict({"down": nn.Linear(4, 16)}), "two": nn.ModuleDict({"down": nn.Linear(4, 16)})}
    )
    with pytest.raises(ModelError, match="2 down projections side by side"):
        find_blocks(lm.model)
    lm.model.model.layers = nn.ModuleList()
    with pytest.raises(ModelError, match="no list of 2 modules"):
        find_blocks(lm.model)
