"""Compose ``conf/`` into ``params.yaml``, once, before the pipeline runs.

    python -m palimpsest.pipeline.compose scale=smoke data=real data.mirror=../mirror
    python -m palimpsest.pipeline.compose --check

Everything after it (DVC's stages, the notebooks, ``dvc exp run -S``) reads params.yaml; nothing composes a second time.
The overrides are kept in the file, under ``overrides``, so that ``--check`` can compose it again and compare.
"""

from __future__ import annotations

import argparse
import difflib
import io
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from ruamel.yaml import YAML

from palimpsest.files import atomic_path
from palimpsest.pipeline import project
from palimpsest.pipeline.project import PARAMS, ProjectError


def compose(conf: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The resolved parameters, as plain values, with the overrides they were composed from under ``overrides``.

    Raises ProjectError for an unknown group, option or key, and for keys left without a value (``???``).
    """
    try:
        with hydra.initialize_config_dir(str(conf.resolve()), version_base="1.3"):
            config = hydra.compose("config", overrides=list(overrides))
        if missing := list(_missing(OmegaConf.to_container(config, resolve=False))):
            hints = " ".join(f"{key}=…" for key in missing)
            raise ProjectError(f"no value for {', '.join(missing)}; give one, as in: {hints}")
        values = OmegaConf.to_container(config, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        causes = [str(cause) for cause in (error, error.__cause__) if cause]
        raise ProjectError(f"{conf} does not compose: {': '.join(dict.fromkeys(causes))}") from error
    assert isinstance(values, dict)
    return {"overrides": list(overrides), **{str(key): value for key, value in values.items()}}


def _missing(values: Any, prefix: str = "") -> Iterator[str]:
    """Dotted names of the mandatory values that nobody gave."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _missing(value, f"{prefix}{key}.")
        elif value == "???":
            yield f"{prefix}{key}"


def render(params: dict[str, Any]) -> str:
    """The text of params.yaml, written as DVC would write it, so that ``dvc exp run -S`` changes only values."""
    yaml = YAML()
    yaml.default_flow_style = False
    text = io.StringIO()
    yaml.dump(params, text)
    command = shlex.join(["python", "-m", "palimpsest.pipeline.compose", *params["overrides"]])
    return f"# Made from conf/, and replaced at the next `make repro`, by:\n#   {command}\n{text.getvalue()}"


def check(conf: Path, path: Path) -> str:
    """How ``path`` differs from the composition of the overrides it records: a unified diff, empty if it does not."""
    found = path.read_text(encoding="utf-8")
    recorded = (project.parse_yaml(found) or {}).get("overrides", [])
    expected = render(compose(conf, recorded))
    lines = difflib.unified_diff(found.splitlines(True), expected.splitlines(True), str(path), "composed from conf/")
    return "".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m palimpsest.pipeline.compose", description=__doc__.split("\n")[0])
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, as scale=smoke or lm.steps=100")
    parser.add_argument("--check", action="store_true", help=f"only tell whether {PARAMS} is up to date with conf/")
    options = parser.parse_args(arguments)
    try:
        folder = project.root(markers=("conf/config.yaml",))
        conf, path = folder / "conf", folder / PARAMS
        if options.check:
            difference = check(conf, path)
            print(difference or f"{PARAMS} is what conf/ composes to", end="" if difference else "\n")
            return 1 if difference else 0
        text = render(compose(conf, options.overrides))
    except (ProjectError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        print(f"{PARAMS} is up to date")
        return 0
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(f"{PARAMS} composed from {' '.join(options.overrides) or 'the defaults'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
