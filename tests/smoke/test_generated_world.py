"""The whole pipeline on the generated world, and what DVC makes of a second run."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import nbformat
import pytest
from dvc.repo import Repo
from pipelines import ROOT, compose, missing, reproduce

from palimpsest.pipeline.results import read_metrics


def fingerprints(folder: Path) -> dict[Path, str]:
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_the_pipeline_runs_at_smoke_scale(copy: Path) -> None:
    results_before, params_before = fingerprints(ROOT / "results"), (ROOT / "params.yaml").read_bytes()
    compose(copy)
    reproduce(copy)
    assert missing(copy) == []
    executed = sorted((copy / "results" / "notebooks").glob("*.ipynb"))
    assert [path.name for path in executed] == sorted(path.name for path in (copy / "notebooks").glob("*.ipynb"))
    for path in executed:
        outputs = [output for cell in nbformat.read(path, as_version=4).cells for output in cell.get("outputs", [])]
        assert [output for output in outputs if output.output_type == "error"] == [], path
        assert path.with_suffix(".html").is_file()

    again = reproduce(copy)
    assert "Running stage" not in again
    assert "Data and pipelines are up to date." in again
    with Repo(str(copy)) as repo:
        assert repo.status() == {}

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
