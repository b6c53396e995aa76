from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.serialize import dumps_yaml, loads_yaml

from palimpsest.pipeline.compose import check, compose, main, render
from palimpsest.pipeline.project import ProjectError, parse_yaml

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"
SCALES = ("scale", "grid", "data_scale")  # groups of options that hold only what differs


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def keys(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a configuration of two keys."""
    (tmp_path / "conf" / "size").mkdir(parents=True)
    (tmp_path / "conf" / "config.yaml").write_text("defaults: [_self_, size: small]\nrate: 1e-5\ntwice: ${size.n}\n")
    (tmp_path / "conf" / "size" / "small.yaml").write_text("n: 1\n")
    (tmp_path / "conf" / "size" / "large.yaml").write_text("n: ???\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("data", options("data"))
@pytest.mark.parametrize("scale", options("scale"))
def test_every_scale_composes_with_every_data(scale: str, data: str) -> None:
    params = compose(CONF, [f"scale={scale}", f"data={data}"])
    text = render(params)
    assert parse_yaml(text) == params
    assert "???" not in text
    assert "${" not in text


@pytest.mark.parametrize(
    "override",
    [
        f"{folder.name}={name}"
        for folder in sorted(CONF.iterdir())
        if folder.is_dir() and folder.name not in ("data", *SCALES)
        for name in options(folder.name)
    ],
)
def test_every_other_option_composes(override: str) -> None:
    assert compose(CONF, [override])[override.partition("=")[0]]


@pytest.mark.parametrize(
    "name", [f"{group}/{name}" for group in ("scale", "grid", "data_scale") for name in options(group)]
)
def test_a_scale_holds_only_keys_that_there_are_without_it(tmp_path: Path, name: str) -> None:
    """A scale file changes values, or leaves out whole parts; a key that only it has is a slip of the pen."""
    conf = shutil.copytree(CONF, tmp_path / "conf")
    path = conf / f"{name}.yaml"
    header = path.read_text().partition("\n")[0]
    content = parse_yaml(path.read_text()) or {}
    emptied = {"defaults": content.pop("defaults")} if "defaults" in content else {}
    path.write_text(f"{header}\n{json.dumps(emptied)}\n")
    package = header.removeprefix("# @package ")
    own = set(keys(content, "" if package == "_global_" else f"{package}."))
    group, _, option = name.partition("/")
    data, _, chosen = option.rpartition("-") if group == "data_scale" else ("", "", option)
    known: set[str] = set()
    for choice in [data] if data else options("data"):
        known |= set(keys(compose(conf, [f"{group.removeprefix('data_')}={chosen}", f"data={choice}"])))
    known |= {key[:end] for key in known for end in range(len(key)) if key[end] == "."}
    assert own <= known


def test_the_committed_parameters_are_what_the_configuration_composes_to() -> None:
    difference = check(CONF, ROOT / "params.yaml")
    assert not difference, f"run `make repro`, or the compose command in params.yaml's first lines:\n{difference}"


def test_composed_once_resolved_and_recorded(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["size.n=3"]) == 0
    path = folder / "params.yaml"
    assert parse_yaml(path.read_text()) == {"overrides": ["size.n=3"], "rate": 1e-5, "twice": 3, "size": {"n": 3}}
    assert path.read_text().startswith("# Made from conf/")
    assert "compose size.n=3" in path.read_text()
    assert sorted(entry.name for entry in folder.iterdir()) == ["conf", "params.yaml"]  # no run folder, no leftovers

    before = path.stat()
    assert main(["size.n=3"]) == 0
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert "up to date" in capsys.readouterr().out


def test_check_compares_with_the_overrides_that_the_file_records(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["size.n=3"])
    assert main(["--check"]) == 0
    path = folder / "params.yaml"
    changed = path.read_text().replace("twice: 3", "twice: 4")
    path.write_text(changed)
    capsys.readouterr()
    assert main(["--check"]) == 1
    assert re.search(r"^-twice: 4\n\+twice: 3$", capsys.readouterr().out, re.MULTILINE)
    assert path.read_text() == changed


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["size=large"], "no value for size.n"),
        (["size=huge"], "Could not find 'size/huge'"),
        (["sise=small"], "sise"),
        (["rate=${nowhere}"], "nowhere"),
        (["rate=1,2"], "Ambiguous value"),
    ],
)
def test_what_does_not_compose_is_refused_and_nothing_written(
    folder: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], message: str
) -> None:
    assert main(overrides) == 1
    assert message in capsys.readouterr().err
    assert not (folder / "params.yaml").exists()


def test_a_missing_value_is_named_to_callers(folder: Path) -> None:
    with pytest.raises(ProjectError, match=r"no value for size\.n"):
        compose(folder / "conf", ["size=large"])
    assert compose(folder / "conf", ["size=large", "size.n=2"])["twice"] == 2


def test_dvc_reads_the_same_values_and_writes_the_same_text(folder: Path) -> None:
    """`dvc exp run -S` parses and writes the whole file; only the value set may change."""
    params = compose(folder / "conf", ["rate=1e-5", '+text="1e-5"', "+on=on", "+empty=null", "+list=[1,{a: 2}]"])
    text = render(params)
    assert loads_yaml(text) == params
    assert dumps_yaml(loads_yaml(text, typ="rt")) == text


def test_real_configuration_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(CONF, tmp_path / "conf")
    monkeypatch.chdir(tmp_path)
    assert main(["scale=smoke", "data=real", "data.mirror=../shared/data"]) == 0
    params = parse_yaml((tmp_path / "params.yaml").read_text())
    assert params["data"]["mirror"] == "../shared/data"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["conf", "params.yaml"]
