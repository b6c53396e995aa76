from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from palimpsest.pipeline.clean import cleaned, main

ROOT = Path(__file__).parents[2]


def executed() -> nbformat.NotebookNode:
    output = new_output("stream", name="stdout", text="secret")
    cell = new_code_cell("print(1)", id="kept", execution_count=4, outputs=[output])
    cell.metadata = nbformat.from_dict({"tags": ["parameters"], "collapsed": True, "execution": {"started": "now"}})
    return new_notebook(
        cells=[new_markdown_cell("# é ∈ ℝ", id="title"), cell],
        metadata={"kernelspec": {"name": "mine", "display_name": "Mine"}, "papermill": {"duration": 3}},
    )


def test_cleaning_keeps_sources_ids_and_tags_and_nothing_else() -> None:
    text = cleaned(nbformat.writes(executed()))
    title, code = nbformat.reads(text, as_version=4).cells
    assert (title.id, title.source) == ("title", "# é ∈ ℝ")
    assert (code.id, code.source, code.metadata) == ("kept", "print(1)", {"tags": ["parameters"]})
    assert (code.outputs, code.execution_count) == ([], None)
    assert not any(word in text for word in ("secret", "Mine", "papermill", "collapsed", "now"))
    assert "é ∈ ℝ" in text
    assert cleaned(text) == text


def test_cells_without_ids_get_the_same_ones_each_time() -> None:
    notebook = executed()
    notebook.nbformat_minor = 4
    for cell in notebook.cells:
        del cell["id"]
    old = nbformat.writes(notebook)
    assert cleaned(old) == cleaned(old)
    assert [cell.id for cell in nbformat.reads(cleaned(old), as_version=4).cells] == ["cell-1", "cell-2"]


def test_check_names_the_files_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "params.yaml").write_text("a: 1\n")
    dirty, clean = tmp_path / "notebooks" / "dirty.ipynb", tmp_path / "notebooks" / "clean.ipynb"
    dirty.write_text(nbformat.writes(executed()))
    clean.write_text(cleaned(nbformat.writes(executed())))
    monkeypatch.chdir(tmp_path / "notebooks")
    before = dirty.read_bytes(), clean.stat().st_mtime_ns

    assert main(["--check"]) == 1
    assert "dirty.ipynb" in (out := capsys.readouterr().out)
    assert "clean.ipynb" not in out.replace("dirty.ipynb", "")
    assert (dirty.read_bytes(), clean.stat().st_mtime_ns) == before

    assert main([]) == 0
    assert dirty.read_bytes() == clean.read_bytes()
    assert clean.stat().st_mtime_ns == before[1]
    assert main(["--check"]) == 0

    (tmp_path / "notebooks" / "broken.ipynb").write_text("{")
    assert main(["--check"]) == 1
    assert "broken.ipynb: not a notebook" in capsys.readouterr().err


def test_the_committed_notebooks_are_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["--check"]) == 0
