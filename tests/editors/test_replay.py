"""What is read on from a layer and a place is what the whole model says."""

from __future__ import annotations

import pytest
import torch
from tiny_models import ARCHITECTURES, CORPUS, tiny_lm

from palimpsest.editors.replay import Replay, first_layer
from palimpsest.editors.weights import find_blocks, hooked, put
from palimpsest.lm.load import LanguageModel

LAYERS = 3


def whole(lm: LanguageModel, rows: list[list[int]], places: list[int], module: str, added: torch.Tensor) -> list:
    """Logits of each row from its place on, with a vector added at the place: one row at a time, all of the model."""
    found = []
    for row, place, vector in zip(rows, places, added, strict=True):
        with hooked(
            lm.model, module, lambda state, p=place, v=vector: put(state, torch.tensor([p]), v[None], add=True)
        ):
            found.append(lm.model(input_ids=torch.tensor([row])).logits[0, place:])
    return found


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("same", [True, False])
def test_reading_on_is_reading_the_whole(architecture: str, same: bool) -> None:
    lm = tiny_lm(architecture, layers=LAYERS)
    rows = [row[:length] for row, length in zip(lm.encode(CORPUS), (12, 7, 15, 9), strict=False)]
    places = [0] * 4 if same else [3, 0, 11, 8]
    tails = [len(row) - place for row, place in zip(rows, places, strict=True)]
    keep = torch.arange(max(tails)) < torch.tensor(tails)[:, None]
    added = torch.randn(4, 16, generator=torch.Generator().manual_seed(0), requires_grad=True)
    blocks = find_blocks(lm.model)
    for module in [name for block in blocks for name in (block.down_name, block.name)]:
        expected = whole(lm, rows, places, module, added)
        replay = Replay.of(lm, rows, places, first_layer(lm.model, module))
        for chosen in (torch.arange(4), torch.tensor([2, 1])):
            part, wanted = replay.narrowed(chosen), torch.cat([expected[row] for row in chosen])
            index = torch.arange(len(chosen)) * part.tokens.shape[1]
            for _ in range(2):  # nothing is left over from one call to the next
                with hooked(lm.model, module, lambda state: put(state, index, added[chosen], add=True)):  # noqa: B023
                    found = part.logits(keep[chosen])
                torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)
            [gradient] = torch.autograd.grad(found.square().sum(), [added])
            [slow] = torch.autograd.grad(wanted.square().sum(), [added], retain_graph=True)
            torch.testing.assert_close(gradient, slow, rtol=1e-2, atol=1e-2)


def test_layers_below_are_not_computed_again_and_come_back() -> None:
    lm = tiny_lm(layers=LAYERS)
    called: list[int] = []
    for number, layer in enumerate(lm.model.model.layers):
        layer.mlp.register_forward_pre_hook(lambda *_, number=number: called.append(number))
    rows = lm.encode(CORPUS[:2])
    replay = Replay.of(lm, rows, [4, 0], 2)
    called.clear()
    replay.logits(torch.ones_like(replay.tokens, dtype=torch.bool))
    assert called == [2]
    called.clear()
    lm.model(input_ids=torch.tensor(rows[:1]))
    assert called == [0, 1, 2]


def test_an_error_inside_leaves_the_model_whole() -> None:
    lm = tiny_lm(layers=LAYERS)
    rows = lm.encode(CORPUS[:1])
    before = lm.model(input_ids=torch.tensor(rows)).logits
    replay = Replay.of(lm, rows, [2], 1)
    handle = lm.model.model.layers[2].register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        replay.logits(torch.ones_like(replay.tokens, dtype=torch.bool))
    handle.remove()
    assert torch.equal(lm.model(input_ids=torch.tensor(rows)).logits, before)


def test_the_first_layer_that_a_module_changes() -> None:
    model = tiny_lm(layers=LAYERS).model
    places = {"model.layers.1.mlp.down_proj": 1, "model.layers.1": 2, "model.layers.2": 3, "model.embed_tokens": 0}
    assert {module: first_layer(model, module) for module in places} == places
