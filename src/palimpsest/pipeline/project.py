"""Where the project lies, and the parameters it was composed with.

A notebook opens with ``project.enter()`` and reads its parameters with ``project.section(name)``; by hand in JupyterLab
and in the pipeline it then stands in the same folder and sees the same values.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

PARAMS = "params.yaml"


class ProjectError(Exception):
    """The project cannot be used as asked: no root, no such parameter, a configuration that does not compose."""


def root(*, markers: tuple[str, ...] = (PARAMS, "dvc.yaml")) -> Path:
    """The nearest folder, from the working directory upwards, that holds all ``markers``.

    Raises ProjectError if there is none.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if all((folder / marker).is_file() for marker in markers):
            return folder
    raise ProjectError(f"no project here: neither {here} nor a folder above it holds {' and '.join(markers)}")


def enter() -> Path:
    """Make the project's root the working directory, and return it."""
    folder = root()
    os.chdir(folder)
    return folder


def parse_yaml(text: str) -> Any:
    """Plain values from YAML 1.2, which is what DVC reads and writes (``1e-5`` is a number, ``on`` is text)."""
    return YAML(typ="safe", pure=True).load(text)


def parameters() -> dict[str, Any]:
    """Everything in params.yaml. Raises ProjectError if that is not a mapping."""
    path = root() / PARAMS
    try:
        values = parse_yaml(path.read_text(encoding="utf-8"))
    except YAMLError as error:
        raise ProjectError(f"{path}: not YAML: {error}") from error
    if not isinstance(values, dict):
        raise ProjectError(f"{path}: expected a mapping from section names to values")
    return values


def section(name: str) -> Any:
    """One top-level entry of params.yaml, as plain dicts, lists and scalars.

    Raises ProjectError, naming the sections there are, if ``name`` is not one of them.
    """
    values = parameters()
    if name not in values:
        raise ProjectError(f"{root() / PARAMS}: no section {name!r}; it has {', '.join(values)}")
    return values[name]
