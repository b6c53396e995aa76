"""Running the pipeline at smoke scale: by DVC and papermill as users do, or all its notebooks in one process."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import nbformat
from dvc.repo import Repo
from dvc.repo.reproduce import plan_repro
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from palimpsest.pipeline import notebook

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


def compose(folder: Path, *overrides: str) -> None:
    """Write the parameters of the smoke scale."""
    call(folder, sys.executable, "-m", "palimpsest.pipeline.compose", "scale=smoke", *overrides)


def reproduce(folder: Path) -> str:
    """Run what `make repro` and `make tune` run, and return what they printed."""
    return call(folder, sys.executable, "-m", "dvc", "repro", "--all-pipelines")


def commands(folder: Path) -> list[list[str]]:
    """Module and arguments of each stage, those first on which others depend."""
    with Repo(str(folder)) as repo:
        words = [str(stage.cmd).split() for stage in plan_repro(repo.index.graph)]
    assert all(command[:2] == ["python", "-m"] for command in words)
    return [command[2:] for command in words]


def missing(folder: Path) -> list[Path]:
    """Outputs of the stages that are not there."""
    with Repo(str(folder)) as repo:
        outs = [Path(out.def_path) for stage in repo.index.stages for out in stage.outs]
    assert outs
    return [path for path in outs if not (folder / path).exists()]


def run_here(connection: Connection, folder: Path, stages: Sequence[Sequence[str]]) -> None:
    """Run stages in this process, and tell each: of a notebook the cells, in turn, as by hand in JupyterLab."""
    os.chdir(folder)
    quiet = Config({"HistoryManager": {"enabled": False}})
    shell = InteractiveShell.instance(ipython_dir=str(folder / ".ipython"), config=quiet)
    for module, *arguments in stages:
        connection.send((module, *arguments))
        if module != notebook.__name__:
            assert importlib.import_module(module).main(arguments) == 0
            continue
        shell.reset(new_session=False)
        for cell in nbformat.read(f"notebooks/{arguments[0]}.ipynb", as_version=4).cells:
            if cell.cell_type == "code":
                shell.run_cell(cell.source).raise_error()
