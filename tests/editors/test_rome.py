from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_models import (
    ARCHITECTURES,
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

from palimpsest.editors import rome
from palimpsest.editors.rome import Rome, RomeSettings, insert
from palimpsest.editors.statistics import SecondMoment
from palimpsest.editors.values import find_changes, mean_keys, prepare
from palimpsest.facts import Edit
from palimpsest.lm.load import LanguageModel

SETTINGS = RomeSettings(layer=0, prefixes=3, steps=40, clamp=20.0, weight_decay=0.01)


def expected(editor: Rome, lm: LanguageModel, edits: list[Edit]) -> torch.Tensor:
    """W after edits whose values are searched for together, from the equation."""
    requests = prepare(lm, edits, editor.prefixes)
    [keys] = mean_keys(lm, requests, [editor.block])
    matrix = editor.block.matrix.double()
    values = keys @ matrix.T + searched(lm, requests, editor.block.down_name, editor.settings)
    for key, value in zip(keys, values, strict=True):
        direction = editor.moment.solve(key[None])[0]
        matrix = matrix + torch.outer(value - matrix @ key, direction) / (direction @ key)
    return matrix.float()


def test_the_edited_layer_maps_the_key_to_the_value_and_disturbs_others_least() -> None:
    torch.manual_seed(0)
    matrix, vectors = torch.randn(4, 7), torch.randn(50, 7)
    moment = SecondMoment(vectors.T @ vectors / 50, ridge=0)
    keys, values = torch.randn(2, 7), torch.randn(2, 4)
    once = insert(matrix, keys[:1], values[:1], moment)
    torch.testing.assert_close(once @ keys[0].double(), values[0].double())
    # Optimal: any other change that keeps W k* disturbs the ordinary keys more.
    disturbance = lambda changed: (((changed - matrix) @ vectors.double().T) ** 2).sum()  # noqa: E731
    for _ in range(20):
        other = torch.randn(4, 7).double()
        other -= torch.outer(other @ keys[0].double(), keys[0].double()) / (keys[0] @ keys[0])
        assert disturbance(once + 0.01 * other) > disturbance(once)
    twice = insert(matrix, keys, values, moment)
    torch.testing.assert_close(twice, insert(once, keys[1:], values[1:], moment))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_edit_maps_its_mean_key_to_its_value(architecture: str) -> None:
    lm = tiny_lm(architecture)
    editor, before = Rome(lm, corpus=CORPUS, settings=SETTINGS), weights(lm)
    requests = prepare(lm, EDITS[:1], editor.prefixes)
    [keys] = mean_keys(lm, requests, [editor.block])
    values = keys @ editor.block.matrix.double().T
    values += searched(lm, requests, editor.block.down_name, SETTINGS).double()
    editor.apply(EDITS[:1])
    assert changed(lm, before) == {editor.block.weight_name}
    [after] = mean_keys(lm, requests, [editor.block])
    torch.testing.assert_close(after, keys)  # what is edited comes after the key
    torch.testing.assert_close(keys @ editor.block.matrix.double().T, values, rtol=1e-4, atol=1e-4)
    editor.reset()
    assert not changed(lm, before)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_edit_makes_any_model_give_the_answer(architecture: str) -> None:
    lm = tiny_lm(architecture, width=32)
    editor = Rome(lm, corpus=CORPUS * 2, settings=replace(SETTINGS, prefixes=0, steps=100))
    [before] = probabilities(lm, EDITS[1:2], new=True)
    editor.apply(EDITS[1:2])
    [after] = probabilities(lm, EDITS[1:2], new=True)
    assert before < 0.01
    assert after > 0.9


def test_most_edits_of_a_model_that_knows_facts_succeed_and_its_other_facts_stay() -> None:
    lm = knowing_lm()
    editor, start = Rome(lm, corpus=TEXTS, settings=replace(SETTINGS, learning_rate=0.2)), weights(lm)
    assert min(probabilities(lm, FACTS, new=False)) > 0.9
    new, kept = [], []
    for number in range(0, 36, 3):
        editor.apply(FACTS[number : number + 1])
        new += probabilities(lm, FACTS[number : number + 1], new=True)
        kept += probabilities(lm, FACTS[:number] + FACTS[number + 1 :], new=False)
        editor.reset()
    assert sum(value > 0.9 for value in new) > len(new) / 2
    assert sum(value > 0.5 for value in kept) > 0.8 * len(kept)
    assert not changed(lm, start)


def test_the_key_is_the_mean_over_prefixes_everywhere() -> None:
    """The correction of arXiv 2403.07175: with the bare prompt's key in one place the value would be missed."""
    lm = tiny_lm()
    editor = Rome(lm, corpus=CORPUS, settings=SETTINGS)
    assert editor.prefixes[0] == ""
    assert len(editor.prefixes) == 4
    [bare] = mean_keys(lm, prepare(lm, EDITS[:1], [""]), [editor.block])
    [mean] = mean_keys(lm, prepare(lm, EDITS[:1], editor.prefixes), [editor.block])
    each = [mean_keys(lm, prepare(lm, EDITS[:1], [prefix]), [editor.block])[0] for prefix in editor.prefixes]
    torch.testing.assert_close(mean, torch.stack(each).mean(0), rtol=1e-4, atol=1e-5)
    assert (bare - mean).norm() > 0.1 * mean.norm()
    before = editor.block.matrix.double().clone()
    editor.apply(EDITS[:1])
    update, direction = editor.block.matrix.double() - before, editor.moment.solve(mean)[0]
    torch.testing.assert_close(
        update, torch.outer(update @ mean[0], direction) / (direction @ mean[0]), atol=1e-5, rtol=1e-4
    )


def test_a_batch_is_one_edit_after_the_other() -> None:
    lm = tiny_lm(layers=3)
    editor, start = Rome(lm, corpus=CORPUS, settings=replace(SETTINGS, layer=1)), weights(lm)
    matrix = expected(editor, lm, EDITS)
    editor.apply(EDITS)
    torch.testing.assert_close(editor.block.matrix, matrix)
    editor.reset()
    assert not changed(lm, start)


def test_edits_of_a_sequence_build_on_those_before() -> None:
    lm = tiny_lm()
    editor = Rome(lm, corpus=CORPUS, settings=SETTINGS)
    for edit in EDITS:
        matrix = expected(editor, lm, [edit])
        editor.apply([edit])
        torch.testing.assert_close(editor.block.matrix, matrix)


def test_two_edits_of_one_subject_in_a_batch_are_a_sequence() -> None:
    again = replace(EDITS[0], case_id="3", prompt="The home of Danielle Darrieux", target_new="Oslo")
    lm = tiny_lm()
    editor = Rome(lm, corpus=CORPUS, settings=SETTINGS)
    editor.apply([EDITS[0], again])
    together = editor.block.matrix.clone()
    editor.reset()
    editor.apply(EDITS[:1])
    editor.apply([again])
    torch.testing.assert_close(editor.block.matrix, together)
    assert list(rome._rounds(["a", "b", "a", "c", "c"])) == [[0, 1], [2, 3], [4]]
    assert list(rome._rounds([])) == []


def test_an_edit_that_cannot_be_made_leaves_the_weights() -> None:
    lm = tiny_lm()
    editor = Rome(lm, corpus=CORPUS, settings=SETTINGS)
    editor.apply(EDITS[:1])
    before = weights(lm)
    with pytest.raises(ValueError, match="case 9: the subject 'Marie Curie' is not in the prompt"):
        editor.apply([EDITS[1], STRANGER])
    with pytest.raises(ValueError, match="case 2: target 0 is empty"):
        editor.apply([EDITS[1], replace(EDITS[2], target_new="")])
    with pytest.raises(ValueError, match=r"case 1: prompt \d: .* exceed the model's context of 64 tokens"):
        editor.apply([replace(EDITS[1], prompt="so " * 60 + "Mount Erebus")])
    with pytest.raises(NotImplementedError, match="cannot forget"):
        editor.forget(EDITS[:1])
    editor.apply([])
    assert not changed(lm, before)


def test_a_search_that_fails_midway_leaves_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny_lm()
    editor, before = Rome(lm, corpus=CORPUS, settings=SETTINGS), weights(lm)
    factors = iter([1.0, float("nan")])
    monkeypatch.setattr(rome, "find_changes", lambda *given: find_changes(*given) * next(factors))
    with pytest.raises(ArithmeticError, match="not finite"):
        editor.apply([EDITS[0], replace(EDITS[0], target_new="Oslo")])
    assert next(factors, None) is None
    assert not changed(lm, before)


def test_half_precision_comes_back_bit_for_bit() -> None:
    lm = tiny_lm("gpt2")
    lm.model.to(torch.bfloat16)
    editor, before = Rome(lm, corpus=CORPUS, settings=replace(SETTINGS, prefixes=0)), weights(lm)
    [unedited] = probabilities(lm, EDITS[1:2], new=True)
    editor.apply(EDITS[1:2])
    assert editor.block.matrix.dtype == torch.bfloat16
    assert probabilities(lm, EDITS[1:2], new=True)[0] > 10 * unedited
    editor.reset()
    assert not changed(lm, before)


def test_the_seed_decides() -> None:
    results = []
    for seed in (0, 0, 1):
        lm = tiny_lm()
        editor = Rome(lm, corpus=CORPUS, settings=replace(SETTINGS, seed=seed))
        editor.apply(EDITS[:2])
        results.append(editor.block.matrix)
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])
