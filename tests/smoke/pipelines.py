"""Running the pipeline at smoke scale, and checking what it leaves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
from dvc.repo import Repo

ROOT = Path(__file__).parents[2]


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


def run_pipeline(copy: Path, results: Path, *overrides: str) -> None:
    """Run all stages, and check what they leave in ``results``."""
    call(copy, sys.executable, "-m", "palimpsest.pipeline.compose", "scale=smoke", *overrides)
    call(copy, sys.executable, "-m", "dvc", "repro")

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
