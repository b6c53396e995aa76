"""The whole pipeline on the generated world, and what DVC makes of a second run."""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path

import pytest
from pipelines import ROOT, call, run_pipeline

from palimpsest.pipeline.results import read_metrics


def fingerprints(folder: Path) -> dict[Path, str]:
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_the_pipeline_runs_at_smoke_scale(copy: Path) -> None:
    results_before, params_before = fingerprints(ROOT / "results"), (ROOT / "params.yaml").read_bytes()
    run_pipeline(copy, copy / "results")

    again = call(copy, sys.executable, "-m", "dvc", "repro")
    assert "Running stage" not in again
    assert "Data and pipelines are up to date." in again
    assert "Data and pipelines are up to date." in call(copy, sys.executable, "-m", "dvc", "status")

    (copy / "dvc.lock").unlink()
    shutil.rmtree(copy / "models")
    assert "Running stage" not in call(copy, sys.executable, "-m", "dvc", "repro")  # earlier runs are brought back
    assert (copy / "models").exists()

    assert fingerprints(ROOT / "results") == results_before
    assert (ROOT / "params.yaml").read_bytes() == params_before

    headline = read_metrics(copy / "results" / "metrics" / "headline.json")
    assert {"lm.recall.train_templates", "lm.recall.heldout_templates", "lm.recall.test_entities"} <= headline.keys()
    classes, splits = ("all", "target", "entity"), ("train", "test")
    assert {f"lm.ppl.{name}.{split}" for name in classes for split in splits} <= headline.keys()
