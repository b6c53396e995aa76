"""One set of versions: pyproject.toml says what is needed, requirements.lock what was tested; the others follow."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LINES = (ROOT / "requirements.lock").read_text().splitlines()
LOCK = {canonicalize_name(name): version for name, version in (line.split("==") for line in LINES)}


def test_the_lock_pins_one_version_each_and_names_no_place() -> None:
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line) for line in LINES)
    assert len(LOCK) == len(LINES)


@pytest.mark.parametrize("text", [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]])
def test_the_lock_has_what_the_project_asks_for(text: str) -> None:
    requirement = Requirement(text)
    assert requirement.specifier.contains(LOCK[canonicalize_name(requirement.name)])


def test_conda_gets_the_same_python_and_the_same_packages() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    (python,) = [entry.partition("=")[2] for entry in conda if entry.startswith("python=")]
    assert sorted(conda) == ["pip", f"python={python}"]  # packages come from the lock alone
    assert pip == ["--requirement requirements.lock", "--editable ."]
    wanted = SpecifierSet(PROJECT["requires-python"])
    assert wanted.contains(f"{python}.0")
    assert not wanted.contains("3.12.0")
    assert sys.version_info[:2] == tuple(map(int, python.split(".")))


def test_all_files_name_the_same_python() -> None:
    makefile = (ROOT / "Makefile").read_text()
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())
    (setup,) = [step["with"] for step in workflow["jobs"]["test"]["steps"] if "python-version" in step.get("with", {})]
    assert "PYTHON ?= python3.11\n" in makefile
    assert setup["python-version"] == "3.11"


def test_the_environment_needs_a_python_that_works(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    for python in ("no-such-python", "false"):
        done = subprocess.run(["make", "env", f"PYTHON={python}"], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode != 0
        assert f"error: {python} is not a working Python 3.11" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    done = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True)
    for target in re.findall(r"^\.PHONY: (\w+)$", makefile, re.MULTILINE):
        assert re.search(rf"^  {target} +\w", done.stdout, re.MULTILINE), target
