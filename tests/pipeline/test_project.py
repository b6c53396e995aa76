from __future__ import annotations

from pathlib import Path

import pytest

from palimpsest.pipeline import project
from palimpsest.pipeline.project import ProjectError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "params.yaml").write_text("lm: {rate: 1e-5, mode: on, layers: [1, 2]}\nseed: 7\nnothing: null\n")
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    return tmp_path


def test_enter_goes_up_to_the_root(folder: Path) -> None:
    assert project.enter() == folder == Path.cwd()
    assert project.enter() == folder


def test_a_section_is_plain_values_read_as_dvc_reads_them(folder: Path) -> None:
    assert project.section("lm") == {"rate": 1e-5, "mode": "on", "layers": [1, 2]}
    assert type(project.section("lm")) is dict
    assert project.section("seed") == 7
    assert project.section("nothing") is None


def test_an_unknown_section_is_refused_with_the_known_ones(folder: Path) -> None:
    with pytest.raises(ProjectError, match=r"params\.yaml: no section 'ml'; it has lm, seed, nothing"):
        project.section("ml")


@pytest.mark.parametrize("text", ["a: [", "- a\n", ""])
def test_params_that_are_no_mapping_are_refused_by_name(folder: Path, text: str) -> None:
    (folder / "params.yaml").write_text(text)
    with pytest.raises(ProjectError, match=r"params\.yaml"):
        project.section("a")


def test_outside_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ProjectError, match=r"no project here.*params\.yaml and dvc\.yaml"):
        project.enter()
