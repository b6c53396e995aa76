"""Run a notebook with the project's parameters.

    python -m palimpsest.pipeline.notebook lm -p lm.steps=100

The names assigned in the cell tagged ``parameters`` are sections of params.yaml; papermill injects their values after
that cell. The executed copy goes to ``<results>/notebooks/lm.ipynb`` with ``lm.html`` beside it, and how long it took
to ``<results>/metrics/seconds/lm.json``. If a cell fails, its source and traceback are shown, the cells run so far are
kept as ``lm.failed.ipynb``, and the last good copy stays.
"""

from __future__ import annotations

import argparse
import ast
import math
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, TextIO

if "rfc3987_syntax" not in sys.modules:
    # nbformat loads jsonschema, which builds a parser of internationalised addresses where JupyterLab has brought it
    # along. That takes longer than all that follows here, and no notebook's schema asks for it.
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]

import nbformat
import papermill
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import DeadKernelError
from nbconvert import HTMLExporter
from papermill.exceptions import PapermillExecutionError
from ruamel.yaml.error import YAMLError

from palimpsest.files import atomic_path
from palimpsest.pipeline import project
from palimpsest.pipeline.project import PARAMS, ProjectError
from palimpsest.pipeline.results import write_metrics

ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")


class ThisInterpreter(AsyncKernelManager):
    """Starts kernels with the interpreter that runs this, whatever kernelspecs are installed."""

    environment: ClassVar[dict[str, str]] = {}

    @property
    def kernel_spec(self) -> KernelSpec:
        # Of what the kernel says of itself only a crash matters here.
        return KernelSpec(**get_kernel_dict(["--log-level=CRITICAL"]), env=self.environment)


class Echo:
    """Shows what the cells print, as they print it.

    Progress bars redraw their line. A terminal gets that as it is; a log gets the state of a bar at most every
    ``interval`` seconds, each on a line of its own, and without colours.
    """

    def __init__(self, stream: TextIO, interval: float = 20.0) -> None:
        self._stream, self._interval = stream, interval
        self._line, self._shown = "", -math.inf

    def write(self, text: str) -> None:
        if self._stream.isatty():
            self._line = re.split(r"[\r\n]", self._line + text)[-1]
            self._stream.write(text)
            return
        *lines, self._line = re.split(r"(?<=\n)|(?<=\r)(?!\n)", self._line + ANSI.sub("", text))
        for line in lines:
            redrawn = line.endswith("\r")
            if line.strip() and (not redrawn or time.monotonic() - self._shown >= self._interval):
                self._stream.write(line.rstrip("\r\n") + "\n")
                self._shown = time.monotonic() if redrawn else self._shown

    def flush(self) -> None:
        self._stream.flush()

    def end_line(self) -> None:
        """Close a line left open, so that what follows starts on a new one."""
        if self._line.strip():
            self._stream.write("\n" if self._stream.isatty() else self._line + "\n")
        self._line, self._shown = "", -math.inf
        self.flush()


def parameter_names(notebook: nbformat.NotebookNode) -> list[str]:
    """The names assigned in the cell tagged ``parameters``: the sections of params.yaml that the notebook uses.

    Raises ProjectError if there is not exactly one such cell, or if it holds anything but assignments to names.
    """
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise ProjectError(f"expected one cell tagged 'parameters', found {len(cells)}")
    try:
        statements = ast.parse(cells[0].source).body
    except SyntaxError as error:
        raise ProjectError(f"the parameters cell is not plain Python: {error}") from error
    names = []
    for statement in statements:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                names.append(name)
            case _:
                raise ProjectError(f"the parameters cell may only assign to names; found {ast.unparse(statement)!r}")
    return names


def override(sections: dict[str, Any], assignment: str) -> None:
    """Set one value in place, from ``dotted.name=value`` with the value in YAML.

    Raises ProjectError if the name is not one that ``sections`` has, or the value is not YAML.
    """
    name, equals, text = assignment.partition("=")
    if not equals:
        raise ProjectError(f"expected NAME=VALUE, got {assignment!r}")
    *parents, last = name.split(".")
    node: Any = sections
    for key in parents:
        node = node.get(key) if isinstance(node, dict) else None
    if not isinstance(node, dict) or last not in node:
        raise ProjectError(
            f"unknown parameter {name!r}: the notebook uses the sections {', '.join(sections)} of {PARAMS}"
        )
    try:
        node[last] = project.parse_yaml(text)
    except YAMLError as error:
        raise ProjectError(f"parameter {name!r}: {text!r} is not YAML: {error}") from error


def announcer(name: str, notebook: nbformat.NotebookNode, echoes: Sequence[Echo]) -> Callable[..., None]:
    """What to call before each cell: it shows how far the notebook is, under which heading."""
    titles, heading = [], ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and (found := re.search(r"^#+ +(.+)$", cell.source, re.MULTILINE)):
            heading = found[1]
        if cell.cell_type == "code" and cell.source.strip():
            # The parameters cell is followed by the one that papermill injects.
            titles += [heading] * (2 if "parameters" in cell.metadata.get("tags", []) else 1)
    steps = enumerate(titles, start=1)

    def announce(**_: Any) -> None:
        step, title = next(steps)
        filled = 20 * step // len(titles)
        for echo in echoes:
            echo.end_line()
        print(f"{name} [{'#' * filled}{'.' * (20 - filled)}] {step}/{len(titles)}  {title}", flush=True)

    return announce


def run(name: str, overrides: Sequence[str] = ()) -> Path:
    """Execute ``notebooks/<name>.ipynb`` in the project's root and return the path of the executed copy.

    Raises ProjectError before anything runs if the notebook or a parameter does not exist. Whatever stops the run
    (papermill's PapermillExecutionError for a failing cell) passes through, after the cells so far have been kept.
    """
    folder = project.enter()
    source = Path("notebooks", f"{name}.ipynb")
    if not source.is_file():
        others = ", ".join(sorted(path.stem for path in source.parent.glob("*.ipynb")))
        raise ProjectError(f"no notebook {source}; there are: {others}")
    notebook = nbformat.read(source, as_version=4)
    params = project.parameters()
    names = parameter_names(notebook)
    if unknown := [section for section in names if section not in params]:
        raise ProjectError(f"{source}: the parameters cell names {', '.join(unknown)}, which {PARAMS} does not have")
    sections = {section: params[section] for section in names}
    for assignment in overrides:
        override(sections, assignment)

    done = Path({**params, **sections}.get("results", "results"), "notebooks", f"{name}.ipynb")
    running, failed = done.with_suffix(".running.ipynb"), done.with_suffix(".failed.ipynb")
    done.parent.mkdir(parents=True, exist_ok=True)
    echoes = Echo(sys.stdout), Echo(sys.stderr)
    start = time.monotonic()
    try:
        with tempfile.TemporaryDirectory() as profile:
            # The copy of the package in this folder comes first (a copy of the project runs its own code), and no
            # start-up files of the user's are read.
            search_path = os.pathsep.join(filter(None, [str(folder / "src"), os.environ.get("PYTHONPATH")]))
            # Threads that soon go to sleep when they wait: a fifth faster here than those that spin for long, and many
            # times faster where other programs want the cores too.
            spins = os.environ.get("GOMP_SPINCOUNT", "20000")
            environment = {"PYTHONPATH": search_path, "IPYTHONDIR": profile, "GOMP_SPINCOUNT": spins}
            environment["PYTHONWARNINGS"] = "ignore:IProgress not found"  # progress goes to the terminal
            executed = papermill.execute_notebook(
                source,
                running,
                sections,
                kernel_name="python3",
                language="python",
                progress_bar=False,
                stdout_file=echoes[0],
                stderr_file=echoes[1],
                kernel_manager_class=type("Kernels", (ThisInterpreter,), {"environment": environment}),
                coalesce_streams=True,
                on_cell_execute=announcer(name, notebook, echoes),
            )
        html, _ = HTMLExporter().from_notebook_node(executed, {"metadata": {"name": name}})
    except BaseException as error:
        if running.exists():
            os.replace(running, failed)
            error.add_note(f"the cells run so far are in {failed}")
        raise
    finally:
        for echo in echoes:
            echo.end_line()
    with atomic_path(done.with_suffix(".html")) as page:
        page.write_text(html, encoding="utf-8")
    os.replace(running, done)
    failed.unlink(missing_ok=True)
    timing = done.parents[1] / "metrics" / "seconds" / f"{name}.json"
    write_metrics(timing, {f"repro.seconds.{name}": round(time.monotonic() - start, 1)})
    return done


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status: 0, 1 if the notebook failed, 2 if it could not be started."""
    parser = argparse.ArgumentParser(prog="python -m palimpsest.pipeline.notebook", description=__doc__.split("\n")[0])
    parser.add_argument("name", help="the notebook's name, as lm for notebooks/lm.ipynb")
    parser.add_argument("-p", dest="overrides", action="append", default=[], metavar="NAME=VALUE", help="lm.steps=100")
    options = parser.parse_args(arguments)
    try:
        done = run(options.name, options.overrides)
    except ProjectError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (PapermillExecutionError, DeadKernelError) as error:
        if isinstance(error, PapermillExecutionError):
            report = "\n".join([error.source, "", *error.traceback])
            print(report if sys.stderr.isatty() else ANSI.sub("", report), end="\n\n", file=sys.stderr)
            reason = f"failed in cell [{error.exec_count}]"
        else:
            reason = "lost its kernel (out of memory, or killed)"
        print(f"error: notebook {options.name} {reason}; {'; '.join(error.__notes__)}", file=sys.stderr)
        return 1
    print(f"{options.name} is done: {done.with_suffix('.html')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
