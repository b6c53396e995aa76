"""A temporary copy of the working tree, to run the pipeline in."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pipelines import ROOT, call

MADE = ("data/", "models/", "results/", "dvc.lock")
READ = "results/bench/"  # made by `make bench`, not by the pipeline


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """What git would commit of the working tree, without anything that the pipeline makes."""
    listed = call(ROOT, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in listed.split("\0"):
        if name and (name.startswith(READ) or not name.startswith(MADE)) and (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tmp_path / name)
    call(tmp_path, "git", "init", "--quiet")
    return tmp_path
