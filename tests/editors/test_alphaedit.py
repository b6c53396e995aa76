from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_models import CORPUS, EDITS, FACTS, STRANGER, TEXTS, changed, knowing_lm, probabilities, tiny_lm, weights

from palimpsest.editors.alphaedit import AlphaEdit, AlphaEditSettings, null_space, projected_update
from palimpsest.editors.values import mean_keys, prepare
from palimpsest.editors.weights import read_at

PRESERVED = CORPUS[0]  # of fewer tokens than a key has features: so there is a null space in the strict sense
SETTINGS = AlphaEditSettings(
    layers=(0, 1),
    prefixes=0,
    steps=60,
    clamp=20.0,
    weight_decay=0.0,
    learning_rate=0.2,
    enough=0.97,
    threshold=1e-5,
    ridge=0.001,
)


def test_the_update_is_the_papers_closed_form() -> None:
    torch.manual_seed(0)
    preserved, earlier, keys, residuals = (torch.randn(n, m).double() for n, m in [(3, 8), (2, 8), (2, 8), (2, 4)])
    basis = null_space(preserved.T @ preserved / 3, 1e-9)
    assert basis.shape == (8, 5)
    projection = basis @ basis.T
    torch.testing.assert_close(preserved @ projection, torch.zeros(3, 8).double())
    left = earlier.T @ earlier @ projection + keys.T @ keys @ projection + 0.5 * torch.eye(8).double()
    expected = residuals.T @ keys @ projection @ torch.linalg.inv(left)
    inside = earlier @ basis
    update = projected_update(basis, inside.T @ inside, keys, residuals, 0.5)
    torch.testing.assert_close(update, expected)
    torch.testing.assert_close(update @ preserved.T, torch.zeros(4, 3).double())


@pytest.mark.parametrize("architecture", ["qwen2", "gpt2"])
def test_what_is_preserved_stays_while_edits_come_one_after_the_other(architecture: str) -> None:
    lm = tiny_lm(architecture, layers=3, width=32)
    before = weights(lm)
    editor = AlphaEdit(lm, corpus=[PRESERVED] * 12, settings=SETTINGS)
    row = lm.encode_prompts([PRESERVED])[0]
    taps = [(block.down_name, side) for block in editor.blocks for side in ("input", "output")]
    states = read_at(lm, [row] * len(row), range(len(row)), taps)
    logits = lm.model(input_ids=torch.tensor([row])).logits
    for edit in EDITS[1:]:
        editor.apply([edit])
        assert probabilities(lm, [edit], new=True)[0] > 0.9
        for old, new in zip(states, read_at(lm, [row] * len(row), range(len(row)), taps), strict=True):
            torch.testing.assert_close(new, old, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(lm.model(input_ids=torch.tensor([row])).logits, logits, rtol=1e-3, atol=1e-3)
    assert changed(lm, before) == {block.weight_name for block in editor.blocks}
    editor.reset()
    assert not changed(lm, before)


def test_earlier_edits_are_protected_and_a_reset_forgets_them() -> None:
    lm = tiny_lm(width=32)
    editor = AlphaEdit(lm, corpus=[PRESERVED] * 12, settings=replace(SETTINGS, layers=[0]))
    [block] = editor.blocks
    requests = prepare(lm, EDITS[1:2], editor.prefixes)
    [keys] = mean_keys(lm, requests, [block])
    editor.apply(EDITS[1:2])
    value, alone = keys @ block.matrix.double().T, block.matrix.clone()
    inside = keys @ editor.bases[0]
    torch.testing.assert_close(editor._earlier[0], inside.T @ inside)
    editor.apply(EDITS[2:])
    protected = (keys @ block.matrix.double().T - value).norm()
    editor.reset()
    editor.apply(EDITS[1:2])
    assert torch.equal(block.matrix, alone)  # nothing is left of what was protected before
    editor._earlier = editor._none()
    editor.apply(EDITS[2:])
    unprotected = (keys @ block.matrix.double().T - value).norm()
    assert protected < 0.2 * unprotected


def test_a_model_that_knows_facts_can_be_edited() -> None:
    lm = knowing_lm()
    settings = replace(SETTINGS, layers=[0], threshold=0.02, ridge=0.1)
    editor, start = AlphaEdit(lm, corpus=TEXTS, settings=settings), weights(lm)
    new = []
    for number in range(4, 36, 8):
        editor.apply(FACTS[number : number + 1])
        new += probabilities(lm, FACTS[number : number + 1], new=True)
        editor.reset()
    assert sum(value > 0.9 for value in new) > len(new) / 2
    assert not changed(lm, start)


def test_an_edit_that_cannot_be_made_leaves_weights_and_memory() -> None:
    lm = tiny_lm()
    editor = AlphaEdit(lm, corpus=[PRESERVED] * 12, settings=SETTINGS)
    editor.apply(EDITS[:1])
    before, earlier = weights(lm), [matrix.clone() for matrix in editor._earlier]
    with pytest.raises(ValueError, match="case 9: the subject 'Marie Curie' is not in the prompt"):
        editor.apply([EDITS[1], STRANGER])
    editor.apply([])
    assert not changed(lm, before)
    assert all(map(torch.equal, earlier, editor._earlier))


def test_a_model_without_null_space() -> None:
    with pytest.raises(ValueError, match=r"no eigenvalue of the keys' second moment is below 0\.5: the least is 1"):
        null_space(torch.eye(3), 0.5)
