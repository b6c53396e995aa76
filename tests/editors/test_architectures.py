"""Editors that train something, on models that name, store and batch their layers in different ways."""

from __future__ import annotations

import pytest
import torch
from every_editor import IRRELEVANT
from tiny_models import ARCHITECTURES, tiny_lm

from palimpsest.editors.editor import Editor
from palimpsest.editors.ft import FineTuning, FineTuningSettings
from palimpsest.editors.grace import Grace, GraceSettings
from palimpsest.editors.lora import LoraEditor, LoraSettings
from palimpsest.editors.wise import Wise, WiseSettings
from palimpsest.facts import Edit
from palimpsest.lm.load import LanguageModel

EDITS = [
    Edit("0", "Danielle Darrieux", "The mother tongue of Danielle Darrieux is", "Norway", ("French",)),
    Edit("1", "Mount Erebus", "Mount Erebus is located in the continent of", "Oslo", ("Antarctica",)),
]
PROMPTS, TARGETS = [edit.prompt for edit in EDITS], [edit.target_new for edit in EDITS]


def editors(lm: LanguageModel) -> list[Editor]:
    wise = WiseSettings(
        layer=0, alpha=0.1, beta=1.0, gamma=0.5, learning_rate=0.3, steps=15, batch_size=2, prefixes=0
    )  # made together: what is made later can lower what earlier edits activate
    return [
        FineTuning(lm, settings=FineTuningSettings(layer=0, learning_rate=0.02, steps=15)),
        LoraEditor(lm, settings=LoraSettings(learning_rate=0.02, steps=15)),
        Grace(lm, settings=GraceSettings(layer=0, radius=0.01, learning_rate=0.3, steps=15)),
        Wise(lm, irrelevant=IRRELEVANT, corpus=[], settings=wise),
    ]


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_edits_are_made_and_taken_back(architecture: str) -> None:
    lm = tiny_lm(architecture, adds_bos=architecture in ("llama", "mistral"))
    before = {name: weight.detach().clone() for name, weight in lm.model.named_parameters()}
    for editor in editors(lm):
        unedited = editor.score(PROMPTS, TARGETS)
        editor.apply(EDITS)
        edited = editor.score(PROMPTS, TARGETS)
        for old, new in zip(unedited, edited, strict=True):
            assert new.logprob > old.logprob, type(editor)
        for prompt, target, score in zip(PROMPTS, TARGETS, edited, strict=True):  # alone as in company
            assert editor.score([prompt], [target])[0].token_logprobs == pytest.approx(score.token_logprobs, abs=1e-3)
        for score, text, target in zip(edited, editor.generate(PROMPTS, max_new_tokens=2), TARGETS, strict=True):
            assert text.strip().startswith(target) == all(score.greedy), type(editor)
        editor.reset()
        assert editor.score(PROMPTS, TARGETS) == unedited
        assert lm.model.state_dict().keys() >= before.keys()
        assert all(torch.equal(weight, before[name]) for name, weight in lm.model.named_parameters())
