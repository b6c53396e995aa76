"""The pipeline's graph says what is true: a stage depends on all that its notebook or its command uses.

``problems(root)`` reads dvc.yaml as DVC does, and the notebooks and modules as text; nothing is run.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
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
COMMAND = re.compile(r"python -m ([\w.]+)(?: (\w+))?")


@dataclass
class Stage:
    name: str
    cmd: str
    params: set[str]
    deps: set[str]
    outs: set[str]
    skipped: set[str]
    """Outputs for whose sake DVC's run cache passes over the stage: kept by git, but neither plots nor metrics."""

    @property
    def notebook(self) -> str:
        """The notebook that it runs; empty for a command of its own."""
        found = RUNNER.search(self.cmd)
        return f"notebooks/{found[1]}.ipynb" if found else ""

    @property
    def sections(self) -> set[str]:
        """The sections of params.yaml that it depends on, wholly or in part."""
        return {name.partition(".")[0] for name in self.params}


def read_stages(root: Path) -> list[Stage]:
    """The stages that run Python, with all templates filled in."""
    stages = []
    with Repo(str(root)) as repo:
        for stage in repo.index.stages:
            if COMMAND.search(str(stage.cmd)):
                params = {name for dep in stage.deps if isinstance(dep, ParamsDependency) for name in dep.params}
                deps = {dep.def_path for dep in stage.deps if not isinstance(dep, ParamsDependency)}
                outs = {out.def_path for out in stage.outs}
                skipped = {o.def_path for o in stage.outs if not (o.use_cache or o.is_metric or o.is_plot)}
                stages.append(Stage(stage.name, str(stage.cmd), params, deps, outs, skipped))
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


def modules(root: Path, names: Iterable[str]) -> set[str]:
    """Files under src/ of some modules and of all that they import; those of docstrings alone are left out."""
    files: set[Path] = set()
    queue = list(names)
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


def targets(value: Any) -> Iterator[str]:
    """The modules of what Hydra would instantiate from a part of the parameters."""
    if isinstance(value, dict):
        if isinstance(name := value.get("_target_"), str):
            yield name.rpartition(".")[0]
        value = list(value.values())
    for item in value if isinstance(value, list) else ():
        yield from targets(item)


def sections_read(tree: ast.Module) -> set[str]:
    """The sections that a module asks for by ``project.section("name")``."""
    return {
        node.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "section"
        and isinstance(node.args[0], ast.Constant)
    }


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
        if stage.skipped:
            found.append(f"{stage.name}: neither cached nor plots nor metrics: {', '.join(sorted(stage.skipped))}")
        found += notebook_problems(root, stage, params) if stage.notebook else command_problems(root, stage, params)
        for dep in sorted(stage.deps):
            known = covers({*made, BENCHMARKS}, dep) or any(
                covers({dep}, out) for out in made
            )  # one, or a folder of some
            if covers({"data", "models", params["results"]}, dep) and not known:
                found.append(f"{stage.name}: depends on {dep}, which no stage declares as its output")
    unused = {f"notebooks/{path.name}" for path in (root / "notebooks").glob("*.ipynb")}
    found += [f"{path}: no stage runs it" for path in sorted(unused - {stage.notebook for stage in stages})]
    return found


def notebook_problems(root: Path, stage: Stage, params: dict[str, Any]) -> Iterator[str]:
    """Of a stage that runs a notebook."""
    notebook = nbformat.read(root / stage.notebook, as_version=4)
    program, names = code(notebook), parameter_names(notebook)
    if stage.notebook not in stage.deps:
        yield f"{stage.name}: {stage.notebook} is not among its deps"
    if stage.params - {"results"} != set(names) - {"results"}:
        yield f"{stage.name}: params {sorted(stage.params)}, but the notebook uses {sorted(names)}"
    yield from uncovered(root, stage, imported(root, program, ""))
    for dep in sorted(stage.deps):
        if dep.endswith(".ipynb") and dep != stage.notebook:
            yield f"{stage.name}: depends on a notebook of another stage, {dep}"
    for path in sorted(paths_named(program, params, names)):
        declared = stage.deps | stage.outs
        if not covers(declared, path) and not any(covers({path}, other) for other in declared):
            yield f"{stage.name}: names {path}, which is neither a dep nor an output of it"


def command_problems(root: Path, stage: Stage, params: dict[str, Any]) -> Iterator[str]:
    """Of a stage that runs a module, perhaps on one entry of a section, which is then its argument's name."""
    module, argument = COMMAND.search(stage.cmd).groups()  # type: ignore[union-attr]
    path = module_path(root, module)
    names = sections_read(ast.parse(path.read_text(encoding="utf-8"))) if path else set()
    if stage.sections != names:
        yield f"{stage.name}: params {sorted(stage.params)}, but the command uses {sorted(names)}"
    entries = {name for name in stage.params if "." in name}
    for entry in sorted(entries):
        if entry.rpartition(".")[2] != argument:
            yield f"{stage.name}: depends on {entry}, but is about {argument}"
    described = {name for entry in entries for name in targets(entry_of(params, entry))}
    yield from uncovered(root, stage, {module, *described})


def entry_of(params: dict[str, Any], name: str) -> Any:
    """What the parameters have under a dotted name."""
    return reduce(dict.__getitem__, name.split("."), params)


def uncovered(root: Path, stage: Stage, names: Iterable[str]) -> Iterator[str]:
    """Modules that a stage imports, directly or not, and does not depend on."""
    for module in sorted(modules(root, names)):
        if not covers(stage.deps, module):
            yield f"{stage.name}: uses {module}, which no dep covers"


def test_the_pipeline_says_what_its_notebooks_use() -> None:
    assert problems(ROOT) == []


def test_every_editing_method_has_a_stage() -> None:
    methods = parse_yaml((ROOT / "params.yaml").read_text(encoding="utf-8"))["editors"]["methods"]
    assert {out for stage in read_stages(ROOT) for out in stage.outs} >= {f"data/editing/{name}" for name in methods}


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
    """A sound pipeline of two stages that run notebooks, and one that runs a module."""
    Repo.init(str(tmp_path), no_scm=True).close()
    (tmp_path / "notebooks").mkdir()
    package = tmp_path / "src" / "thing"
    (package / "deep").mkdir(parents=True)
    (package / "__init__.py").write_text('"""Only words."""\n')
    (package / "deep" / "__init__.py").write_text("")
    (package / "a.py").write_text("def f():\n    from .deep import b\n")
    (package / "deep" / "b.py").write_text("from thing import c\n")
    (package / "c.py").write_text("x = 1\n")
    (package / "method.py").write_text("from thing import c\n")
    (package / "cli.py").write_text("from thing import project\nproject.section('ways')\nproject.section('seed')\n")
    ways = "ways: {here: {_target_: thing.method.Way, parts: [{_target_: thing.deep.b.Part}]}, there: 1}"
    (tmp_path / "params.yaml").write_text(f"results: results\nlm: {{folder: models/lm}}\nseed: 1\n{ways}\n")
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
  three:
    foreach: [here]
    do:
      cmd: python -m thing.cli ${item}
      deps: [src/thing/cli.py, src/thing/method.py, src/thing/deep/b.py, src/thing/c.py]
      params: ["ways.${item}", seed]
      outs: ["data/${item}"]
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
        ("[src/thing/cli.py, ", "[", "three@here: uses src/thing/cli.py, which no dep covers"),
        ("src/thing/method.py, ", "", "three@here: uses src/thing/method.py, which no dep covers"),
        ("src/thing/deep/b.py, ", "", "three@here: uses src/thing/deep/b.py, which no dep covers"),
        ('"ways.${item}", seed', '"ways.${item}"', "three@here: params ['ways.here'], but the command uses ['seed',"),
        ('"ways.${item}"', "ways.there", "three@here: depends on ways.there, but is about here"),
    ],
)
def test_each_kind_of_problem_is_found(root: Path, old: str, new: str, problem: str) -> None:
    path = root / "dvc.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert any(line.startswith(problem) for line in problems(root)), problems(root)
