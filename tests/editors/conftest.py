"""Every editor in turn, each on a tiny model of its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from every_editor import METHODS, copying_lm, make

from palimpsest.editors.editor import Editor
from palimpsest.lm.load import LanguageModel


@pytest.fixture
def lm() -> LanguageModel:
    """A model to edit."""
    return copying_lm()


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> str:
    """Each method in turn."""
    return request.param


@pytest.fixture
def editor(method: str, lm: LanguageModel) -> Editor:
    """An editor of each method in turn."""
    return make(method, lm)


@pytest.fixture
def another() -> Callable[[str], Editor]:
    """``another(method)``: an editor of a model of its own, which is like the first."""
    return lambda method: make(method, copying_lm())
