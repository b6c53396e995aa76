from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from tiny_models import CORPUS, EDITS, searched, tiny_lm

from palimpsest.editors.values import Request, ValueSettings, draw_prefixes, prepare
from palimpsest.editors.weights import find_blocks, hooked
from palimpsest.lm.load import LanguageModel

SETTINGS = ValueSettings(steps=10, learning_rate=0.5, kl_weight=0.5, weight_decay=0.3, clamp=20.0, enough=0.3)


def reference(lm: LanguageModel, request: Request, module: str, settings: ValueSettings) -> torch.Tensor:
    """One edit, one row at a time, as the papers have it."""
    change = torch.zeros(16, requires_grad=True)
    adam = torch.optim.Adam([change], lr=settings.learning_rate)
    seen: list[torch.Tensor] = []

    def logprobs(ids: tuple[int, ...], place: int, delta: torch.Tensor | None) -> torch.Tensor:
        def add(state: torch.Tensor) -> torch.Tensor | None:
            seen.append(state.view(1, len(ids), 16)[0, place].detach())
            shift = torch.zeros_like(state)
            shift.view(len(ids), 16)[place] = 1
            return None if delta is None else state + shift * delta

        with hooked(lm.model, module, add):
            return lm.model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)

    essence = request.essence
    unedited = logprobs(essence.ids, essence.last, None)[-1].detach()
    logprobs(request.contexts[0].ids, request.contexts[0].last, None)
    size = seen[-1].norm()
    for _ in range(settings.steps):
        losses = []
        for context, target in zip(request.contexts, request.targets, strict=True):
            rows = logprobs((*context.ids, *target[:-1]), context.last, change)[len(context.ids) - 1 :]
            losses.append(-torch.stack([row[token] for row, token in zip(rows, target, strict=True)]).mean())
        loss = torch.stack(losses).mean()
        if loss <= -math.log(settings.enough):
            break
        edited = logprobs(essence.ids, essence.last, change)[-1]
        kl = (edited.exp() * (edited - unedited)).sum()
        adam.zero_grad()
        (loss + settings.kl_weight * kl + settings.weight_decay * change.norm() / size**2).backward()
        adam.step()
        with torch.no_grad():
            change *= min(1.0, float(settings.clamp * size / change.norm()))
    return change.detach()


@pytest.mark.parametrize("architecture", ["qwen2", "opt"])
def test_a_batch_is_searched_like_one_edit_at_a_time(architecture: str) -> None:
    lm = tiny_lm(architecture, adds_bos=True)
    block = find_blocks(lm.model)[0]
    long = replace(EDITS[0], target_new="Ann Lee of Oslo")
    requests = prepare(lm, [*EDITS[1:], long], draw_prefixes(CORPUS, 1, 6, 0))
    for module, settings in ((block.down_name, SETTINGS), (block.name, replace(SETTINGS, clamp=1.5))):
        expected = torch.stack([reference(lm, request, module, settings) for request in requests])
        for budget in (1, 8192):
            lm.model.zero_grad()
            changes = searched(lm, requests, module, settings, max_tokens_per_batch=budget)
            torch.testing.assert_close(changes, expected, rtol=1e-3, atol=1e-3)
            assert all(weight.grad is None and weight.requires_grad for weight in lm.model.parameters())


def test_an_edit_that_is_done_stays_while_others_go_on() -> None:
    lm = tiny_lm()
    module = find_blocks(lm.model)[0].name
    requests = prepare(lm, EDITS, [""])
    settings = replace(SETTINGS, steps=20, clamp=100.0)
    assert (searched(lm, requests, module, settings).norm(dim=1) > 0).all()
    at_once = replace(settings, enough=1e-30)
    assert not searched(lm, requests, module, at_once).any()
    clamped = searched(lm, requests, module, replace(settings, clamp=0.1))
    assert (clamped.norm(dim=1) > 0).all()
    assert (clamped.norm(dim=1) < searched(lm, requests, module, settings).norm(dim=1)).all()


def test_prefixes_are_openings_of_texts() -> None:
    prefixes = draw_prefixes([*CORPUS, " "], 50, 4, 3)
    assert prefixes[0] == ""
    assert len(prefixes) == 51
    assert {len(prefix.split()) for prefix in prefixes[1:]} == {2, 3, 4}
    assert all(
        prefix.endswith(". ") and any(text.startswith(prefix[:-2]) for text in CORPUS) for prefix in prefixes[1:]
    )
    assert prefixes == draw_prefixes([*CORPUS, " "], 50, 4, 3)
    assert prefixes != draw_prefixes([*CORPUS, " "], 50, 4, 4)
    assert draw_prefixes([], 0, 4, 3) == [""]
    with pytest.raises(ValueError, match="no text"):
        draw_prefixes([" "], 1, 4, 3)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"enough": 1.0}, {"enough": 0}, {"prefixes": -1}, {"prefix_words": 1}])
def test_settings_that_make_no_sense(wrong: dict) -> None:
    with pytest.raises(ValueError, match="expected steps >= 1"):
        ValueSettings(**wrong)
