"""What every editor promises, whatever its method: checked on each of :data:`every_editor.METHODS`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from every_editor import IRRELEVANT, LARIMAR, MEMORIES, METHODS

from palimpsest.editors.editor import Editor, PromptEditor
from palimpsest.facts import Edit, Probe
from palimpsest.lm.load import LanguageModel

FIRST = Edit("0", "Danielle Darrieux", "The mother tongue of Danielle Darrieux", "Norway", ("French",))
SECOND = Edit("1", "Mount Erebus", "What continent is Mount Erebus", "Viking Press", ("Antarctica",))
THIRD = Edit("2", "Dancing on Coral", "Who wrote Dancing on Coral", "Oslo", ("Glenda Adams",))
EDITS = (FIRST, SECOND, THIRD)
WITHOUT_TARGET = Edit("7", "Ann Lee", "Ann Lee was born in", "", ("Oslo",))
PROMPTS = [*(edit.prompt for edit in EDITS), *IRRELEVANT, "The tongue of Danielle Darrieux"]
TARGETS = [*(edit.target_new for edit in EDITS), "Sydney", "Norway", "Viking", "Dusk", "French"]

Another = Callable[[str], Editor]


def state(lm: LanguageModel) -> dict[str, Any]:
    """Everything about a model's weights that an edit could change."""
    weights = {name: weight.detach().clone() for name, weight in lm.model.named_parameters()}
    asking = {name: weight.requires_grad for name, weight in lm.model.named_parameters()}
    gradients = {name for name, weight in lm.model.named_parameters() if weight.grad is not None}
    modules = {name: (type(module), len(module._forward_hooks), len(module._forward_pre_hooks))
               for name, module in lm.model.named_modules()}  # fmt: skip
    return {"weights": weights, "asking": asking, "gradients": gradients, "modules": modules,
            "fields": set(vars(lm.model))}  # fmt: skip


def assert_same_state(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert {key: value for key, value in before.items() if key != "weights"} == {
        key: value for key, value in after.items() if key != "weights"
    }
    assert all(torch.equal(weight, after["weights"][name]) for name, weight in before["weights"].items())


def said(editor: Editor) -> tuple[Any, ...]:
    """Everything that can be asked of an editor, to the bit."""
    return editor.score(PROMPTS, TARGETS), editor.generate(PROMPTS, max_new_tokens=3)


def assert_said_alike(method: str, editor: Editor, other: Editor) -> None:
    """To the bit; up to rounding where a method adds and subtracts."""
    (scores, texts), (expected, others) = said(editor), said(other)
    assert texts == others
    for score, wanted in zip(scores, expected, strict=True):
        tolerance = 1e-4 if method in LARIMAR else 0
        assert score.token_logprobs == pytest.approx(wanted.token_logprobs, rel=0, abs=tolerance)
        assert replace(score, token_logprobs=()) == replace(wanted, token_logprobs=())


def logprob(editor: Editor, edit: Edit) -> float:
    return editor.score([edit.prompt], [edit.target_new])[0].logprob


@pytest.mark.parametrize("method", [name for name in METHODS if name != "none"])
def test_an_edit_makes_its_target_more_probable(editor: Editor) -> None:
    before = logprob(editor, FIRST)
    editor.apply([FIRST])
    assert logprob(editor, FIRST) > before + 0.1


def test_reset_takes_everything_back_bit_for_bit(editor: Editor, lm: LanguageModel) -> None:
    weights, answers = state(lm), said(editor)
    editor.apply(EDITS[:1])
    editor.apply(EDITS[1:])
    editor.reset()
    assert_same_state(weights, state(lm))
    assert said(editor) == answers
    editor.reset()
    assert said(editor) == answers


def test_after_a_reset_edits_are_made_as_before(editor: Editor) -> None:
    editor.apply(EDITS[:2])
    answers = said(editor)
    editor.reset()
    editor.apply(EDITS[:2])
    assert said(editor) == answers


@pytest.mark.parametrize("method", [name for name in METHODS if name != "none"])
def test_edits_add_up(method: str, editor: Editor, another: Another) -> None:
    before = logprob(editor, SECOND)
    editor.apply([FIRST])
    editor.apply([SECOND])
    assert logprob(editor, SECOND) > before
    alone = another(method)
    alone.apply([SECOND])
    assert said(editor) != said(alone)


@pytest.mark.parametrize("method", ["none", *sorted(MEMORIES)])
def test_where_edits_are_made_one_by_one_a_batch_is_a_sequence(method: str, editor: Editor, another: Another) -> None:
    assert editor.one_by_one == (method != "wise")  # where the settings say so
    editor.apply(EDITS)
    sequence = another(method)
    for edit in EDITS:
        sequence.apply([edit])
    assert_said_alike(method, editor, sequence)


def test_no_edits_change_nothing(editor: Editor, lm: LanguageModel) -> None:
    weights, answers = state(lm), said(editor)
    editor.apply([])
    assert_same_state(weights, state(lm))
    assert said(editor) == answers


def test_what_is_forgotten_was_never_made(method: str, editor: Editor, another: Another) -> None:
    if not editor.forgets:
        editor.apply([FIRST])
        with pytest.raises(NotImplementedError, match="cannot forget"):
            editor.forget([FIRST])
        return
    editor.apply(EDITS[:2])
    editor.apply(EDITS[2:])
    editor.forget([SECOND])
    never = another(method)
    never.apply([FIRST, THIRD])
    assert_said_alike(method, editor, never)
    editor.forget([THIRD, FIRST])
    assert said(editor) == said(another(method))


def test_what_was_never_made_cannot_be_forgotten(editor: Editor) -> None:
    if not editor.forgets:
        pytest.skip("this method does not forget")
    editor.apply([FIRST, THIRD])
    answers = said(editor)
    with pytest.raises(KeyError, match="case 1"):
        editor.forget([FIRST, SECOND])
    with pytest.raises(KeyError, match="case 0"):
        editor.forget([FIRST, FIRST])
    assert said(editor) == answers


def test_an_edit_without_a_target_is_refused_and_none_is_made(method: str, editor: Editor, lm: LanguageModel) -> None:
    if method == "none":
        pytest.skip("no edit is refused")
    for made in ([], [SECOND]):
        editor.apply(made)
        weights, answers = state(lm), said(editor)
        with pytest.raises(ValueError, match="empty"):
            editor.apply([FIRST, WITHOUT_TARGET])
        assert_same_state(weights, state(lm))
        assert said(editor) == answers


@pytest.mark.parametrize("made", [[], [SECOND]])
def test_an_error_half_way_leaves_everything_as_it_was(
    made: Sequence[Edit], method: str, editor: Editor, lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    if method in ("none", "memllm", *LARIMAR) or isinstance(editor, PromptEditor):
        pytest.skip("the model is not asked for an edit")
    editor.apply(made)
    weights, answers = state(lm), said(editor)
    for left in (1, 2):
        with monkeypatch.context() as patch:
            fail_after(patch, lm, left)
            with pytest.raises(MemoryError):
                editor.apply([FIRST, THIRD])
        assert_same_state(weights, state(lm))
        assert said(editor) == answers


def fail_after(patch: pytest.MonkeyPatch, lm: LanguageModel, calls: int) -> None:
    """Let the model be called so many times, and then fail."""
    layer, left = lm.model.model.layers[-1].mlp, [calls]  # the first may be read but once
    forward = layer.forward

    def counting(state: torch.Tensor) -> torch.Tensor:
        if not left[0]:
            raise MemoryError
        left[0] -= 1
        return forward(state)

    patch.setattr(layer, "forward", counting)


@pytest.mark.parametrize("method", sorted(MEMORIES))
def test_a_memory_leaves_unrelated_prompts_alone(editor: Editor) -> None:
    targets = ["Sydney", "Norway", "Viking", "Dusk"]
    before = editor.score(IRRELEVANT, targets), editor.generate(IRRELEVANT, max_new_tokens=5)
    editor.apply(EDITS)
    assert (editor.score(IRRELEVANT, targets), editor.generate(IRRELEVANT, max_new_tokens=5)) == before


def test_how_an_edit_will_be_judged_is_never_read(method: str, editor: Editor, another: Another) -> None:
    judged = [
        replace(
            edit,
            case_id=f"other {edit.case_id}",
            relation="P0",
            paraphrases=("Say it:",),
            neighbors=(Probe("Of another:", "Oslo"),),
            attribute_prompts=("As well:",),
            generation_prompts=("Tell me:",),
            portability=(Probe("And its capital:", "Bergen", "Paris"),),
        )
        for edit in EDITS
    ]
    editor.apply(judged)
    blind = another(method)
    blind.apply(EDITS)
    assert said(editor) == said(blind)


@pytest.mark.parametrize("method", [name for name in METHODS if name != "none"])
def test_generation_says_what_scoring_finds_most_probable(editor: Editor) -> None:
    editor.apply([FIRST, SECOND])
    targets = [edit.target_new.split()[0] for edit in EDITS]
    texts = editor.generate(PROMPTS[:3], max_new_tokens=1)
    for text, target, score in zip(texts, targets, editor.score(PROMPTS[:3], targets), strict=True):
        assert (text.strip() == target) == all(score.greedy)


def test_an_editor_does_not_depend_on_global_randomness(method: str, another: Another) -> None:
    answers = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = copy.deepcopy(torch.get_rng_state())
        editor = another(method)
        editor.apply([FIRST])
        assert torch.equal(before, torch.get_rng_state())
        answers.append(said(editor))
    assert answers[0] == answers[1]
