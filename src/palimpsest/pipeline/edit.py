"""Put one editing method through all experiments.

    python -m palimpsest.pipeline.edit rome

The method is described in the section ``editors`` of params.yaml, the experiments in the section ``editing``. Their
rows go to ``data/editing/rome``, a JSON Lines file for each of :mod:`palimpsest.evaluation.experiments`, and how long
it took to ``<results>/metrics/seconds/edit_rome.json``. A run that was killed goes on where it was. A method whose
description is ``null`` is left out: its files are empty.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import palimpsest
from palimpsest.evaluation.rows import EXPERIMENTS, RowFiles, write_rows
from palimpsest.pipeline import project
from palimpsest.pipeline.project import ProjectError
from palimpsest.pipeline.results import write_metrics

if TYPE_CHECKING:
    from palimpsest.evaluation.editing import Row

ROWS = Path("data/editing")


def run(method: str) -> Path:
    """Run a method's experiments in the project's root and return the folder of its rows.

    Raises ProjectError if params.yaml has no such method.
    """
    start = time.monotonic()
    project.enter()
    methods, editing = project.section("editors")["methods"], project.section("editing")
    results, hardware = project.section("results"), project.section("hardware")
    data, base_lm = Path(project.section("data_folder")), Path(project.section("base_lm"))
    if method not in methods:
        raise ProjectError(f"no method {method!r}; there are: {', '.join(methods)}")
    description, partial, done = methods[method], ROWS / f".{method}", ROWS / method
    rows: dict[str, list[Row]] = {}
    if description is not None:
        # Imported here for their time to count, and because nothing else needs them.
        from palimpsest.data.prepared import PreparedData
        from palimpsest.editors.registry import build_editor
        from palimpsest.evaluation.experiments import Experiments
        from palimpsest.evaluation.lineup import Resources

        prepared = PreparedData(data)
        editor = build_editor(description, Resources(prepared, base_lm, hardware))
        models = [base_lm, *([description["folder"]] if "folder" in description else [])]
        used = digest([*models, *(data / kind for kind in ("edits", "questions", "text")), *palimpsest.__path__])
        sink = RowFiles(partial, {"method": description, "editing": editing, "files": used})
        rows = Experiments(editor=editor, prepared=prepared, settings=editing, sink=sink, progress=True).rows()
    for name in EXPERIMENTS:
        write_rows(done / f"{name}.jsonl", rows.get(name, []))
    shutil.rmtree(partial, ignore_errors=True)
    timing = Path(results, "metrics", "seconds", f"edit_{method}.json")
    write_metrics(timing, {f"repro.seconds.edit_{method}": round(time.monotonic() - start, 1)})
    return done


def digest(paths: Iterable[str | Path]) -> str:
    """SHA-256 of files, and of those in folders, by their names and content; caches of Python count for nothing."""
    whole = hashlib.sha256()
    for path in map(Path, paths):
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.is_file() and file.suffix != ".pyc":
                whole.update(f"{file.relative_to(path)}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return whole.hexdigest()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status: 0, or 2 for a method that there is not."""
    parser = argparse.ArgumentParser(prog="python -m palimpsest.pipeline.edit", description=__doc__.split("\n")[0])
    parser.add_argument("method", help="its name in the section editors.methods of params.yaml")
    try:
        done = run(parser.parse_args(arguments).method)
    except ProjectError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"the experiments are done: {done}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
