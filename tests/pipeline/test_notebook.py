"""The runner, on small notebooks that are executed for real."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from palimpsest.pipeline.notebook import Echo, main, override, parameter_names
from palimpsest.pipeline.project import ProjectError

ENTER = "from palimpsest.pipeline import project\n\nproject.enter()"
PARAMETERS = 'lm = project.section("lm")\nseed = project.section("seed")'


def write(folder: Path, name: str, *cells: str, parameters: str = PARAMETERS) -> Path:
    tagged = new_code_cell(parameters, metadata={"tags": ["parameters"]})
    sources = [new_markdown_cell("# A title"), new_code_cell(ENTER), tagged, *map(new_code_cell, cells)]
    path = folder / "notebooks" / f"{name}.ipynb"
    nbformat.write(new_notebook(cells=sources), path)
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project, seen from its notebooks folder by a user whose only kernel is a broken one."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "params.yaml").write_text("lm: {steps: 3, name: 'a \"b\" \\ {c}'}\nseed: 7\nother: 1\nresults: out\n")
    kernel = tmp_path / "home" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text(json.dumps({"argv": ["false"], "display_name": "-", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "notebooks")
    return tmp_path


def outputs(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "out" / "notebooks").iterdir())


def test_a_run_injects_the_parameters_and_leaves_a_copy_and_a_page(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "src" / "palimpsest_of_this_copy").mkdir(parents=True)
    source = write(
        folder,
        "good",
        "import json, os, sys\nimport palimpsest_of_this_copy\n"
        "seen = [sys.executable, os.getcwd(), lm, seed]\nopen('seen.json', 'w').write(json.dumps(seen));",
        "for state in range(3):\n    print(f'\\rstep {state}', end='', file=sys.stderr)",
        "print('done')",
    )
    before = source.read_bytes()
    assert main(["good", "-p", "lm.steps=1e-5", "-p", "seed=[1, two]"]) == 0

    expected = [sys.executable, str(folder), {"steps": 1e-5, "name": 'a "b" \\ {c}'}, [1, "two"]]
    assert json.loads((folder / "seen.json").read_text()) == expected
    assert outputs(folder) == ["good.html", "good.ipynb"]
    assert source.read_bytes() == before
    executed = nbformat.read(folder / "out" / "notebooks" / "good.ipynb", as_version=4)
    injected = executed.cells[[cell.source for cell in executed.cells].index(PARAMETERS) + 1]
    assert injected.metadata["tags"] == ["injected-parameters"]
    assert executed.cells[-2].outputs[0].text == "step 2"  # a bar's last state, not its history
    assert "done" in (folder / "out" / "notebooks" / "good.html").read_text()
    shown = capsys.readouterr()
    assert "good [####################] 6/6  A title\ndone\n" in shown.out
    assert "step 2\n" in shown.err


def test_a_failing_cell_is_shown_and_the_good_copy_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(folder, "sometimes", "import os\nprint('first')", "assert os.environ['LUCK'] == 'good', 'no luck'")
    monkeypatch.setenv("LUCK", "good")
    assert main(["sometimes"]) == 0
    good = {name: (folder / "out" / "notebooks" / name).read_bytes() for name in outputs(folder)}

    monkeypatch.setenv("LUCK", "bad")
    capsys.readouterr()
    assert main(["sometimes"]) == 1
    shown = capsys.readouterr().err
    assert "assert os.environ['LUCK'] == 'good', 'no luck'" in shown
    assert "AssertionError: no luck" in shown
    assert "error: notebook sometimes failed in cell [5]" in shown
    assert "out/notebooks/sometimes.failed.ipynb" in shown
    assert "\x1b" not in shown
    assert outputs(folder) == ["sometimes.failed.ipynb", *good]
    assert {name: (folder / "out" / "notebooks" / name).read_bytes() for name in good} == good
    partial = nbformat.read(folder / "out" / "notebooks" / "sometimes.failed.ipynb", as_version=4)
    assert any(output.get("text") == "first\n" for cell in partial.cells for output in cell.get("outputs", []))

    path.write_text(path.read_text().replace("os.environ['LUCK'] == 'good'", "True"))
    assert main(["sometimes"]) == 0
    assert outputs(folder) == ["sometimes.html", "sometimes.ipynb"]


def test_a_killed_kernel_is_an_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, "dies", "import os\nos.kill(os.getpid(), 9)")
    assert main(["dies"]) == 1
    assert "error: notebook dies lost its kernel" in capsys.readouterr().err
    assert outputs(folder) == ["dies.failed.ipynb"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none"], "no notebook notebooks/none.ipynb; there are: good"),
        (["good", "-p", "lm.step=4"], "unknown parameter 'lm.step': the notebook uses the sections lm, seed"),
        (["good", "-p", "lm.steps.more=4"], "unknown parameter 'lm.steps.more'"),
        (["good", "-p", "other=4"], "unknown parameter 'other'"),
        (["good", "-p", "seed"], "expected NAME=VALUE, got 'seed'"),
        (["good", "-p", "seed=["], "parameter 'seed': '[' is not YAML"),
    ],
)
def test_a_run_that_cannot_be_meant_is_refused_before_it_starts(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    write(folder, "good")
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
    assert not (folder / "out").exists()


def test_sections_that_params_lacks_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, "good", parameters='ml = project.section("ml")')
    assert main(["good"]) == 2
    assert "good.ipynb: the parameters cell names ml, which params.yaml does not have" in capsys.readouterr().err


def test_output_is_shown_while_the_cell_runs(folder: Path) -> None:
    """The cell waits for a file that appears only after its output has been read here."""
    write(
        folder,
        "live",
        "import pathlib, time\nprint('waiting')\nwhile not pathlib.Path('go').exists():\n    time.sleep(0.05)",
    )
    command = [sys.executable, "-m", "palimpsest.pipeline.notebook", "live"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any(line == "waiting\n" for line in process.stdout)
        (folder / "go").touch()
        assert "live is done" in process.stdout.read()
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ([], "found 0"),
        (["a = 1", "b = 1"], "found 2"),
        (["a = 1\nprint(a)"], r"may only assign to names; found 'print\(a\)'"),
        (["a.b = 1"], "may only assign to names"),
        (["a = "], "not plain Python"),
    ],
)
def test_a_parameters_cell_that_is_none_is_refused(sources: list[str], message: str) -> None:
    cells = [new_code_cell(source, metadata={"tags": ["parameters"]}) for source in sources]
    with pytest.raises(ProjectError, match=message):
        parameter_names(new_notebook(cells=[new_code_cell("c = 1"), *cells]))


def test_parameter_names_are_those_assigned() -> None:
    source = '# why\nlm = project.section("lm")\nseed: int = project.section("seed")'
    notebook = new_notebook(cells=[new_code_cell(source, metadata={"tags": ["parameters"]})])
    assert parameter_names(notebook) == ["lm", "seed"]


def test_overrides_change_the_named_value_alone() -> None:
    sections = {"lm": {"steps": 3, "deep": {"rate": 0.1}}, "seed": 0}
    override(sections, "lm.deep.rate=1e-3")
    override(sections, "seed=5")
    assert sections == {"lm": {"steps": 3, "deep": {"rate": 0.001}}, "seed": 5}


def test_a_log_gets_lines_whole_and_bars_seldom() -> None:
    log = io.StringIO()
    echo = Echo(log, interval=3600)
    for text in ["one\ntw", "o\n\x1b[31mred\x1b[0m\n", "\r 0%", "\r 1%", "\r 2%", "\r 3%\r\n", "left", " open"]:
        echo.write(text)
    echo.end_line()
    echo.end_line()
    assert log.getvalue() == "one\ntwo\nred\n 0%\n 3%\nleft open\n"


def test_a_terminal_gets_everything_as_it_is() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    echo = Echo(terminal)
    echo.write("\r 0%")
    echo.write("\r 1%\x1b[A")
    echo.end_line()
    echo.write("closed\n")
    echo.end_line()
    assert terminal.getvalue() == "\r 0%\r 1%\x1b[A\nclosed\n"


def test_the_runner_starts_without_what_only_cells_need() -> None:
    """Every stage waits for it: a second of imports is half a minute of the pipeline."""
    code = "import sys, palimpsest.pipeline.notebook; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"papermill", "nbconvert"} <= set(done.stdout.split())
    assert not {"matplotlib", "numpy", "pandas", "torch", "lark"} & set(done.stdout.split())
