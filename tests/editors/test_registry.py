"""From a description to an editor."""

from __future__ import annotations

import pytest
from every_editor import METHODS
from hydra.errors import InstantiationException

from palimpsest.editors.ft import FineTuning, FineTuningSettings
from palimpsest.editors.registry import build_editor
from palimpsest.lm.load import LanguageModel


class Listener:
    """Takes a model and does not edit it."""

    def __init__(self, lm: LanguageModel) -> None:
        pass


def test_a_description_becomes_an_editor_with_its_settings(lm: LanguageModel) -> None:
    editor = build_editor(METHODS["ft_l"], {"lm": lm, "corpus": ["more than it needs"]})
    assert isinstance(editor, FineTuning)
    assert editor.lm is lm
    assert editor.settings == FineTuningSettings(layer=1, learning_rate=0.01, bound=0.03, steps=10)


def test_a_resource_that_is_missing_is_named(lm: LanguageModel) -> None:
    with pytest.raises(ValueError, match=r"Wise needs irrelevant; there are lm, corpus"):
        build_editor(METHODS["wise"], {"lm": lm, "corpus": []})
    with pytest.raises(ValueError, match="needs settings"):
        build_editor({"_target_": "palimpsest.editors.ft.FineTuning"}, {"lm": lm})


def test_what_is_no_editor_is_refused(lm: LanguageModel) -> None:
    with pytest.raises(ValueError, match="makes a Listener, expected an Editor"):
        build_editor({"_target_": f"{__name__}.Listener"}, {"lm": lm})
    with pytest.raises(InstantiationException):
        build_editor({"_target_": "palimpsest.editors.nowhere.Nothing"}, {"lm": lm})
    with pytest.raises(InstantiationException):
        build_editor({**METHODS["ft"], "settings": {**METHODS["ft"]["settings"], "speed": 1}}, {"lm": lm})
