"""From a description to an editor: a new method is one file, and one description in the configuration.

A description is what Hydra instantiates: the class as ``_target_``, and its settings, which are a dataclass with a
``_target_`` of its own. What else a class asks for by name (a language model, a sentence encoder, a corpus) is a
resource, which the caller has at hand for all methods and of which each takes what it needs.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from hydra.utils import instantiate

from palimpsest.editors.editor import Editor


def build_editor(description: Mapping[str, Any], resources: Mapping[str, Any]) -> Editor:
    """Make an editor.

    Args:
        description: for example ``{"_target_": "palimpsest.editors.ft.FineTuning", "settings": {"_target_":
            "palimpsest.editors.ft.FineTuningSettings", "layer": 1}}``.
        resources: by the name under which a class asks for them: ``lm``, or ``model`` for Larimar's, and so on. One
            that a class can do without may be absent.

    Raises:
        ValueError: the class asks for a resource that is not there, or is no editor.
        hydra.errors.InstantiationException: there is no such class or setting.
    """
    make = instantiate(dict(description), _partial_=True, _convert_="all")
    asked = {
        name: parameter
        for name, parameter in inspect.signature(make.func).parameters.items()
        if name not in make.keywords and parameter.kind is not parameter.VAR_KEYWORD
    }
    missing = [name for name, value in asked.items() if value.default is value.empty and name not in resources]
    if missing:
        raise ValueError(f"{description['_target_']} needs {', '.join(missing)}; there are {', '.join(resources)}")
    editor = make(**{name: resources[name] for name in asked if name in resources})
    if not isinstance(editor, Editor):
        raise ValueError(f"{description['_target_']} makes a {type(editor).__name__}, expected an Editor")
    return editor
