"""Every editor in turn, each on a tiny model of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from every_editor import METHODS, copying_lm, make

from palimpsest.editors.editor import Editor
from palimpsest.lm.load import LanguageModel


@pytest.fixture(autouse=True, scope="package")
def _one_thread() -> Iterator[None]:
    """Threads that wait for one another cost more than these models' arithmetic."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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
