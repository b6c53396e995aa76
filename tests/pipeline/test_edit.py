"""The command that puts a method through all experiments: what it reads, and what it leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from palimpsest.editors.editor import Editor
from palimpsest.evaluation import experiments
from palimpsest.evaluation.rows import EXPERIMENTS, Sink, read_rows
from palimpsest.pipeline.edit import digest, main

NONE = {"_target_": "palimpsest.editors.none.NoEdit"}
PARAMS = {
    "editors": {"methods": {"none": NONE, "left_out": None}},
    "editing": {"edits": 2},
    "data_folder": "data/prepared",
    "base_lm": "models/base_lm",
    "hardware": {"device": "cpu", "dtype": "float32"},
    "results": "results",
}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project, in which experiments give a row each and fail while there is a file ``broken``."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").touch()
    for folder in ("data/prepared/edits", "data/prepared/questions", "data/prepared/text", "models/base_lm"):
        (tmp_path / folder).mkdir(parents=True)
    with (tmp_path / "params.yaml").open("w") as file:
        YAML().dump(PARAMS, file)

    class OneRow:
        def __init__(self, *, editor: Editor, settings: dict[str, Any], sink: Sink, **_: object) -> None:
            self.made, self.settings, self.sink = type(editor).__name__, settings, sink

        def rows(self) -> dict[str, list[dict]]:
            known = self.sink.load("one")
            self.sink.save("one", [{"edits": self.settings["edits"]}])
            if Path("broken").exists():
                raise KeyboardInterrupt
            return {name: [{"made": self.made, "known": known, **self.settings}] for name in EXPERIMENTS}

    monkeypatch.setattr(experiments, "Experiments", OneRow)
    monkeypatch.setattr("palimpsest.evaluation.lineup.Resources.lm", None)
    return tmp_path


def test_rows_and_seconds_are_left(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["none"]) == 0
    assert "data/editing/none" in capsys.readouterr().out
    row = {"made": "NoEdit", "known": None, "edits": 2}
    found = {path.stem: read_rows(path) for path in (root / "data/editing/none").iterdir()}
    assert found == {name: [row] for name in EXPERIMENTS}
    [(name, seconds)] = json.loads((root / "results/metrics/seconds/edit_none.json").read_text()).items()
    assert name == "repro.seconds.edit_none"
    assert seconds >= 0


@pytest.mark.parametrize("changed", [None, "models/base_lm/model", "data/prepared/edits/test.json", "params.yaml"])
def test_a_killed_run_goes_on_unless_something_changed(root: Path, changed: str | None) -> None:
    (root / "broken").touch()
    with pytest.raises(KeyboardInterrupt):
        main(["none"])
    assert not (root / "data/editing/none").exists()
    (root / "broken").unlink()
    if changed == "params.yaml":
        (root / changed).write_text((root / changed).read_text().replace("edits: 2", "edits: 3"))
    elif changed:
        (root / changed).touch()
    assert main(["none"]) == 0
    [row] = read_rows(root / "data/editing/none/single.jsonl")
    assert row["known"] == (None if changed else [{"edits": 2}])
    assert sorted(path.name for path in (root / "data/editing").iterdir()) == ["none"]


def test_a_method_without_description_leaves_empty_files(root: Path) -> None:
    assert main(["left_out"]) == 0
    assert {path.stem: path.read_text() for path in (root / "data/editing/left_out").iterdir()} == dict.fromkeys(
        EXPERIMENTS, ""
    )


def test_an_unknown_method_is_told_from_those_there_are(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["romeo"]) == 2
    assert "no method 'romeo'; there are: none, left_out" in capsys.readouterr().err


def test_a_digest_is_of_names_and_content(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one").write_text("x")
    before = digest([tmp_path / "a"])
    (tmp_path / "a" / "one.pyc").write_text("cache")
    assert digest([tmp_path / "a"]) == before
    (tmp_path / "a" / "one").write_text("y")
    changed = digest([tmp_path / "a"])
    (tmp_path / "a" / "one").rename(tmp_path / "a" / "two")
    assert len({before, changed, digest([tmp_path / "a"]), digest([tmp_path / "a" / "two"])}) == 4
