"""The whole pipeline, run at smoke scale in a temporary copy of the working tree."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from dvc.repo import Repo

from palimpsest.pipeline.results import read_metrics

ROOT = Path(__file__).parents[1]
MADE = ("data/", "models/", "results/", "dvc.lock")
READ = "results/bench/"  # made by `make bench`, not by the pipeline


def call(folder: Path, *command: str) -> str:
    """Run a command in ``folder`` with this environment's python first, and return what it printed."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(folder / "src"),
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(folder / ".dvc" / "tmp" / "site"),
    }
    done = subprocess.run(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert done.returncode == 0, f"{' '.join(command)} exited with {done.returncode}:\n{done.stdout}"
    return done.stdout


def fingerprints(folder: Path) -> dict[Path, str]:
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


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


def reproduce(copy: Path) -> str:
    """Run what `make repro` runs, and `make tune`."""
    return call(copy, sys.executable, "-m", "dvc", "repro", "--all-pipelines")


def run_pipeline(copy: Path, results: Path, *overrides: str) -> None:
    """Run all stages, and check what they leave in ``results``."""
    call(copy, sys.executable, "-m", "palimpsest.pipeline.compose", "scale=smoke", *overrides)
    reproduce(copy)

    with Repo(str(copy)) as repo:
        outs = [out.def_path for stage in repo.index.stages for out in stage.outs]
    assert outs
    assert [path for path in outs if not (copy / path).exists()] == []

    executed = sorted((results / "notebooks").glob("*.ipynb"))
    assert [path.name for path in executed] == sorted(path.name for path in (copy / "notebooks").glob("*.ipynb"))
    for path in executed:
        outputs = [output for cell in nbformat.read(path, as_version=4).cells for output in cell.get("outputs", [])]
        assert [output for output in outputs if output.output_type == "error"] == [], path
        assert path.with_suffix(".html").is_file()


@pytest.mark.slow
def test_the_pipeline_runs_at_smoke_scale(copy: Path) -> None:
    results_before, params_before = fingerprints(ROOT / "results"), (ROOT / "params.yaml").read_bytes()
    run_pipeline(copy, copy / "results")

    again = reproduce(copy)
    assert "Running stage" not in again
    assert "Data and pipelines are up to date." in again
    assert "Data and pipelines are up to date." in call(copy, sys.executable, "-m", "dvc", "status")

    (copy / "dvc.lock").unlink()
    shutil.rmtree(copy / "models")
    assert "Running stage" not in reproduce(copy)  # earlier runs are brought back
    assert (copy / "models").exists()

    assert fingerprints(ROOT / "results") == results_before
    assert (ROOT / "params.yaml").read_bytes() == params_before

    headline = read_metrics(copy / "results" / "metrics" / "headline.json")
    assert {"lm.recall.train_templates", "lm.recall.heldout_templates", "lm.recall.test_entities"} <= headline.keys()
    classes, splits = ("all", "target", "entity"), ("train", "test")
    assert {f"lm.ppl.{name}.{split}" for name in classes for split in splits} <= headline.keys()


@pytest.mark.slow
def test_the_same_stages_run_on_real_documents(copy: Path, samples: Path) -> None:
    run_pipeline(copy, copy / "results" / "real", "data=real", f"data.mirror={samples}")
    headline = read_metrics(copy / "results" / "real" / "metrics" / "headline.json")
    assert headline["data.documents.train"] == 400
    assert headline["lm.ppl.target.test"] > 1
