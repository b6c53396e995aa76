from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_models import (
    CORPUS,
    EDITS,
    FACTS,
    STRANGER,
    TEXTS,
    changed,
    knowing_lm,
    probabilities,
    searched,
    tiny_lm,
    weights,
)

from palimpsest.editors.located import spread
from palimpsest.editors.memit import Memit, MemitSettings, least_squares
from palimpsest.editors.rome import Rome, RomeSettings
from palimpsest.editors.statistics import SecondMoment
from palimpsest.editors.values import current_values, mean_keys, prepare
from palimpsest.editors.weights import find_blocks

SETTINGS = MemitSettings(
    layers=(0, 1), prefixes=2, steps=60, clamp=20.0, weight_decay=0.0, learning_rate=0.2, covariance_weight=0.01
)


def test_the_update_is_the_papers_closed_form() -> None:
    torch.manual_seed(0)
    vectors, keys, residuals = (torch.randn(n, m).double() for n, m in [(50, 7), (3, 7), (3, 4)])
    second = vectors.T @ vectors / 50
    columns = keys.T  # as in the paper: K (F, N) and R (D, N)
    expected = residuals.T @ columns.T @ torch.linalg.inv(20 * second + columns @ columns.T)
    torch.testing.assert_close(least_squares(SecondMoment(second, ridge=0), keys, residuals, 20), expected)
    # It is the minimum of λ E‖Δ k₀‖² + ‖Δ K − R‖².
    cost = lambda delta: 20 * ((delta @ vectors.T) ** 2).sum() / 50 + ((delta @ columns - residuals.T) ** 2).sum()  # noqa: E731
    for _ in range(20):
        assert cost(expected + 0.01 * torch.randn(4, 7)) > cost(expected)


@pytest.mark.parametrize("architecture", ["qwen2", "gpt2", "gptj"])
def test_one_fact_in_one_layer_is_romes_solution(architecture: str) -> None:
    """Both search for the same δ, for what the MLP returns is added to the hidden state (if neither decay nor clamp,
    which are relative to different vectors, have a say). ROME's constraint is MEMIT's least squares with λ → 0; with
    any λ the update has ROME's direction and s / (λ + s) of its size, s = k*ᵀ C⁻¹ k*."""
    lm = tiny_lm(architecture, layers=3)
    search = {"prefixes": 2, "steps": 20, "clamp": 1e6, "weight_decay": 0.0, "learning_rate": 0.1}
    rome = Rome(lm, corpus=CORPUS, settings=RomeSettings(layer=1, **search))
    start = rome.block.matrix.double()
    rome.apply(EDITS[:1])
    update = rome.block.matrix.double() - start
    rome.reset()
    [keys] = mean_keys(lm, prepare(lm, EDITS[:1], rome.prefixes), [rome.block])
    size = (keys @ rome.moment.solve(keys).T).item()
    for weight in (1e-6, 1.0, 100.0):
        memit = Memit(lm, corpus=CORPUS, settings=MemitSettings(layers=[1], covariance_weight=weight, **search))
        memit.apply(EDITS[:1])
        found = memit.blocks[0].matrix.double() - start
        memit.reset()
        torch.testing.assert_close(found, update * size / (weight + size), rtol=1e-3, atol=1e-4)


def test_several_layers_reach_the_target_states_together() -> None:
    lm = tiny_lm(layers=3)
    before = weights(lm)
    editor = Memit(lm, corpus=CORPUS, settings=replace(SETTINGS, prefixes=0, covariance_weight=1e-9))
    requests, last = prepare(lm, EDITS, editor.prefixes), editor.blocks[-1].name
    start, changes = current_values(lm, requests, last), searched(lm, requests, last, editor.settings)
    editor.apply(EDITS)
    torch.testing.assert_close(current_values(lm, requests, last), start + changes, rtol=1e-3, atol=1e-3)
    assert changed(lm, before) == {block.weight_name for block in editor.blocks}
    editor.reset()
    assert not changed(lm, before)


def test_each_layer_gets_an_equal_part_of_what_is_missing() -> None:
    lm = tiny_lm(layers=3)
    blocks = find_blocks(lm.model)
    settings = replace(SETTINGS, layers=(0, 1, 2))
    requests = prepare(lm, EDITS, [""])
    changes = searched(lm, requests, blocks[-1].name, settings).double()
    parts: list[torch.Tensor] = []

    def write_nothing(number: int, keys: torch.Tensor, residuals: torch.Tensor) -> torch.Tensor:
        assert number == len(parts)
        parts.append(residuals)
        return torch.zeros(residuals.shape[1], keys.shape[1])

    spread(lm, requests, blocks, settings, write_nothing)
    for part, layers_left in zip(parts, (3, 2, 1), strict=True):
        torch.testing.assert_close(part, changes / layers_left, rtol=1e-4, atol=1e-5)


def test_a_batch_succeeds_in_a_model_that_knows_facts() -> None:
    lm = knowing_lm()
    settings = replace(SETTINGS, layers=[0], enough=0.97, covariance_weight=30)
    editor, start = Memit(lm, corpus=TEXTS, settings=settings), weights(lm)
    edited, others = FACTS[4::8], [fact for fact in FACTS if fact not in FACTS[4::8]]
    assert max(probabilities(lm, edited, new=True)) < 0.1
    editor.apply(edited)
    assert all(value > 0.5 for value in probabilities(lm, edited, new=True))
    assert sum(value > 0.5 for value in probabilities(lm, others, new=False)) > 0.9 * len(others)
    editor.reset()
    assert not changed(lm, start)
    editor.apply(FACTS[:1])
    assert probabilities(lm, FACTS[:1], new=True)[0] > 0.9
    editor.reset()


def test_an_edit_that_cannot_be_made_leaves_the_weights() -> None:
    lm = tiny_lm()
    editor = Memit(lm, corpus=CORPUS, settings=SETTINGS)
    editor.apply(EDITS[:1])
    before = weights(lm)
    with pytest.raises(ValueError, match="case 9: the subject 'Marie Curie' is not in the prompt"):
        editor.apply([EDITS[1], STRANGER])
    editor.apply([])
    assert not changed(lm, before)


@pytest.mark.parametrize("layers", [[], [1, 0], [0, 0]])
def test_layers_that_are_no_range(layers: list[int]) -> None:
    with pytest.raises(ValueError, match="expected layers in ascending order"):
        MemitSettings(layers=layers)
