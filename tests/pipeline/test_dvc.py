"""The pipeline's graph says what is true: a stage depends on all that its notebook uses.

``problems(root)`` reads dvc.yaml as DVC does, and the notebooks and modules as text; nothing is run.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest
from dvc.dependency.param import ParamsDependency
from dvc.repo import Repo
from nbformat.v4 import new_code_cell, new_notebook

from palimpsest.pipeline.notebook import parameter_names
from palimpsest.pipeline.project import parse_yaml

ROOT = Path(__file__).parents[2]
BENCHMARKS = "results/bench"  # what `make bench` wrote is read, but no stage makes it
RUNNER = re.compile(r"python -m palimpsest\.pipeline\.notebook (\w+)")


@dataclass
class Stage:
    name: str
    notebook: str
    sections: set[str]
    deps: set[str]
    outs: set[str]
    skipped: set[str]
    """Outputs for whose sake DVC's run cache passes over the stage: kept by git, but neither plots nor metrics."""


def read_stages(root: Path) -> list[Stage]:
    """The stages that run a notebook, with all templates filled in."""
    stages = []
    with Repo(str(root)) as repo:
        for stage in repo.index.stages:
            if found := RUNNER.search(str(stage.cmd)):
                sections = {name for dep in stage.deps if isinstance(dep, ParamsDependency) for name in dep.params}
                deps = {dep.def_path for dep in stage.deps if not isinstance(dep, ParamsDependency)}
                outs = {out.def_path for out in stage.outs}
                skipped = {o.def_path for o in stage.outs if not (o.use_cache or o.is_metric or o.is_plot)}
                stages.append(Stage(stage.name, f"notebooks/{found[1]}.ipynb", sections, deps, outs, skipped))
    return stages


def covers(paths: set[str], path: str) -> bool:
    """Whether ``path`` is one of ``paths`` or lies in one of them."""
    return any(path == other or path.startswith(f"{other.rstrip('/')}/") for other in paths)


def code(notebook: nbformat.NotebookNode) -> ast.Module:
    """All code cells as one program, without IPython's own lines."""
    sources = (cell.source for cell in notebook.cells if cell.cell_type == "code")
    return ast.parse("\n".join(re.sub(r"(?m)^\s*[%!].*$", "", source) for source in sources))


def module_path(root: Path, name: str) -> Path | None:
    """The file of the project's module ``name``, if it is one."""
    path = root / "src" / Path(*name.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def imported(root: Path, tree: ast.Module, package: str) -> Iterator[str]:
    """Names of the project's modules that ``tree``, a module of ``package``, imports anywhere."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[:end]) for end in range(1, len(parts) + 1))


def modules(root: Path, notebook: nbformat.NotebookNode) -> set[str]:
    """Files under src/ that running the notebook imports, directly or not; those of docstrings alone are left out."""
    files: set[Path] = set()
    queue = list(imported(root, code(notebook), ""))
    seen = set()
    while queue:
        name = queue.pop()
        path = module_path(root, name)
        if name in seen or path is None:
            continue
        seen.add(name)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if any(not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)) for node in tree.body):
            files.add(path)
        queue += imported(root, tree, name if path.name == "__init__.py" else name.rpartition(".")[0])
    return {str(file.relative_to(root)) for file in files}


def evaluate(node: ast.AST, known: dict[str, Any]) -> Any:
    """The value of a path expression built from ``known`` names, or None."""
    match node:
        case ast.Constant(value=str() as value):
            return value
        case ast.Name(id=name):
            return known.get(name)
        case ast.Subscript(value=value, slice=ast.Constant(value=key)):
            return values.get(key) if isinstance(values := evaluate(value, known), dict) else None
        case ast.FormattedValue(value=value):
            return evaluate(value, known)
        case ast.JoinedStr(values=values):
            parts = [evaluate(value, known) for value in values]
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            parts = [evaluate(left, known), "/", evaluate(right, known)]
        case ast.Call(func=ast.Name(id="Path"), args=args):
            parts = [part for arg in args for part in ("/", evaluate(arg, known))][1:]
        case _:
            return None
    return "".join(parts) if all(isinstance(part, str) for part in parts) else None


def paths_named(tree: ast.Module, params: dict[str, Any], sections: list[str]) -> set[str]:
    """Paths under data/, models/ and the results folder that the code spells out."""
    known = {name: params[name] for name in sections if name in params}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id not in known:
            known[node.targets[0].id] = evaluate(node.value, known)
    values = {value for node in ast.walk(tree) if isinstance(value := evaluate(node, known), str)}
    folders = {"data", "models", params["results"]}
    return {value for value in values if covers(folders, value) and value not in folders}


def problems(root: Path) -> list[str]:
    """What the graph leaves out or gets wrong, one line each."""
    params = parse_yaml((root / "params.yaml").read_text(encoding="utf-8"))
    stages = read_stages(root)
    made = {folder: stage.name for stage in stages for folder in stage.outs}
    found = []
    for stage in stages:
        notebook = nbformat.read(root / stage.notebook, as_version=4)
        if stage.notebook not in stage.deps:
            found.append(f"{stage.name}: {stage.notebook} is not among its deps")
        if stage.skipped:
            found.append(f"{stage.name}: neither cached nor plots nor metrics: {', '.join(sorted(stage.skipped))}")
        names = parameter_names(notebook)
        if stage.sections - {"results"} != set(names) - {"results"}:
            found.append(f"{stage.name}: params {sorted(stage.sections)}, but the notebook uses {sorted(names)}")
        uncovered = sorted(module for module in modules(root, notebook) if not covers(stage.deps, module))
        found += [f"{stage.name}: uses {module}, which no dep covers" for module in uncovered]
        for dep in sorted(stage.deps):
            if dep.endswith(".ipynb") and dep != stage.notebook:
                found.append(f"{stage.name}: depends on a notebook of another stage, {dep}")
            if covers({"data", "models", params["results"]}, dep) and not covers({*made, BENCHMARKS}, dep):
                found.append(f"{stage.name}: depends on {dep}, which no stage declares as its output")
        for path in sorted(paths_named(code(notebook), params, names)):
            declared = stage.deps | stage.outs
            if not covers(declared, path) and not any(covers({path}, other) for other in declared):
                found.append(f"{stage.name}: names {path}, which is neither a dep nor an output of it")
    unused = {f"notebooks/{path.name}" for path in (root / "notebooks").glob("*.ipynb")}
    found += [f"{path}: no stage runs it" for path in sorted(unused - {stage.notebook for stage in stages})]
    return found


def test_the_pipeline_says_what_its_notebooks_use() -> None:
    assert problems(ROOT) == []


def test_composition_stays_out_of_dvc() -> None:
    """DVC's own Hydra composition runs in `dvc exp run` but not in `dvc repro`, and would undo what was composed."""
    assert "hydra" not in (ROOT / ".dvc" / "config").read_text()


def write(root: Path, name: str, *cells: str, parameters: str) -> None:
    tagged = new_code_cell(parameters, metadata={"tags": ["parameters"]})
    nbformat.write(new_notebook(cells=[tagged, *map(new_code_cell, cells)]), root / "notebooks" / f"{name}.ipynb")


@pytest.fixture(autouse=True)
def no_traces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What DVC notes of a repository outside of it goes away with the test."""
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A sound pipeline of two stages."""
    Repo.init(str(tmp_path), no_scm=True).close()
    (tmp_path / "notebooks").mkdir()
    package = tmp_path / "src" / "thing"
    (package / "deep").mkdir(parents=True)
    (package / "__init__.py").write_text('"""Only words."""\n')
    (package / "deep" / "__init__.py").write_text("")
    (package / "a.py").write_text("def f():\n    from .deep import b\n")
    (package / "deep" / "b.py").write_text("from thing import c\n")
    (package / "c.py").write_text("x = 1\n")
    (tmp_path / "params.yaml").write_text("results: results\nlm: {folder: models/lm}\nseed: 1\n")
    results = 'results = project.section("results")'
    write(tmp_path, "one", "%matplotlib inline\nfrom thing.a import f", parameters=f"seed = 1\n{results}")
    reading = "from pathlib import Path\nfolder = Path(results) / 'metrics'\nopen(folder / 'one.json')\nlm['folder']"
    write(tmp_path, "two", reading, parameters=f"lm = 1\n{results}")
    (tmp_path / "dvc.yaml").write_text(
        """
stages:
  one:
    cmd: python -m palimpsest.pipeline.notebook one
    deps: [notebooks/one.ipynb, src/thing/a.py, src/thing/deep, src/thing/c.py]
    params: [seed]
    metrics: ["${results}/metrics/one.json": {cache: false}]
  two:
    cmd: python -m palimpsest.pipeline.notebook two
    deps: [notebooks/two.ipynb, "${results}/metrics/one.json"]
    params: [lm]
    outs: ["${lm.folder}"]
"""
    )
    return tmp_path


def test_a_sound_pipeline_has_no_problems(root: Path) -> None:
    assert problems(root) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("[notebooks/one.ipynb, ", "[", "one: notebooks/one.ipynb is not among its deps"),
        ("params: [seed]", "params: [seed, lm]", "one: params ['lm', 'seed'], but the notebook uses"),
        ("params: [lm]", "params: [lm.folder]", "two: params ['lm.folder'], but the notebook uses"),
        (", src/thing/c.py", "", "one: uses src/thing/c.py, which no dep covers"),
        ("src/thing/deep, ", "", "one: uses src/thing/deep/b.py, which no dep covers"),
        ("two.ipynb,", "two.ipynb, notebooks/one.ipynb,", "two: depends on a notebook of another stage"),
        ("two.ipynb,", "two.ipynb, data/raw,", "two: depends on data/raw, which no stage declares"),
        (', "${results}/metrics/one.json"', "", "two: names results/metrics/one.json, which is neither"),
        ('outs: ["${lm.folder}"]', "outs: [models/other]", "two: names models/lm, which is neither"),
        ('outs: ["${lm.folder}"]', 'outs: ["${lm.folder}": {cache: false}]', "two: neither cached nor plots"),
        ("notebook two", "other two", "notebooks/two.ipynb: no stage runs it"),
    ],
)
def test_each_kind_of_problem_is_found(root: Path, old: str, new: str, problem: str) -> None:
    path = root / "dvc.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert any(line.startswith(problem) for line in problems(root)), problems(root)
