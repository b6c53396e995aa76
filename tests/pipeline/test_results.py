from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from palimpsest.files import atomic_path
from palimpsest.pipeline.results import gather, read_metrics, save_figure, write_headline, write_metrics, write_table


@dataclass
class Mean:
    value: float
    low: float
    high: float
    n: int


def test_metrics_are_one_flat_sorted_map(tmp_path: Path) -> None:
    path = tmp_path / "metrics" / "lm.json"
    write_metrics(
        path,
        {"lm": {"recall": {"train": Mean(0.5, 0.4, 0.6, 20)}, "steps": np.int64(3)}, "lm.loss": np.float32(0.25)},
    )
    expected = {
        "lm.loss": 0.25,
        "lm.recall.train": 0.5,
        "lm.recall.train.high": 0.6,
        "lm.recall.train.low": 0.4,
        "lm.recall.train.n": 20,
        "lm.steps": 3,
    }
    assert read_metrics(path) == expected
    assert list(json.loads(path.read_text())) == sorted(expected)
    assert isinstance(read_metrics(path)["lm.steps"], int)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan"), "1", True, None, [1]])
def test_what_is_no_finite_number_is_refused_by_name_and_the_old_file_kept(tmp_path: Path, value: object) -> None:
    path = tmp_path / "lm.json"
    write_metrics(path, {"a": 1})
    with pytest.raises(ValueError, match=r"metric lm\.loss"):
        write_metrics(path, {"lm": {"loss": value}})
    assert read_metrics(path) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["lm.json"]


def test_a_name_given_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"metric a\.b: given twice"):
        write_metrics(tmp_path / "lm.json", {"a": {"b": 1}, "a.b": 2})
    with pytest.raises(ValueError, match=r"metric a\.n: given twice"):
        write_metrics(tmp_path / "lm.json", {"a": Mean(1, 0, 2, 3), "a.n": 2})


@pytest.mark.parametrize("text", ["{", "[1]", '{"a": "b"}', '{"a": {"b": 1}}', '{"a": NaN}'])
def test_a_file_that_is_no_metrics_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "lm.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"lm\.json"):
        read_metrics(path)


def test_the_headline_gathers_the_stages(tmp_path: Path) -> None:
    write_metrics(tmp_path / "metrics" / "data.json", {"data.documents": 10})
    write_metrics(tmp_path / "metrics" / "lm.json", {"lm.loss": 1.5})
    write_metrics(tmp_path / "metrics" / "bench.json", {"bench.speed": 2})
    assert gather(tmp_path) == {"data.documents": 10, "lm.loss": 1.5}
    path = write_headline(tmp_path)
    assert path == tmp_path / "metrics" / "headline.json"
    assert read_metrics(write_headline(tmp_path)) == {"data.documents": 10, "lm.loss": 1.5}

    write_metrics(tmp_path / "metrics" / "other.json", {"lm.loss": 1.5})
    with pytest.raises(ValueError, match=r"metric lm\.loss: both in .*lm\.json and in .*other\.json"):
        write_headline(tmp_path)


def test_a_table_reads_back(tmp_path: Path) -> None:
    table = pd.DataFrame({"method": ["none", "größe, x"], "value": [0.1, 1 / 3], "n": [3, 4]}, index=[5, 6])
    write_table(tmp_path / "tables" / "lm.csv", table)
    back = pd.read_csv(tmp_path / "tables" / "lm.csv")
    pd.testing.assert_frame_equal(back, table.reset_index(drop=True), check_exact=True, check_dtype=False)


FIGURE = """
import sys
import matplotlib.pyplot as plt
from palimpsest.pipeline.results import save_figure
figure, axes = plt.subplots()
axes.plot([1, 3, 2], label="a")
axes.fill_between([0, 2], 1, 2, hatch="/")
axes.legend()
save_figure(figure, sys.argv[1], "recall")
"""


def test_a_figure_has_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        command = [sys.executable, "-c", FIGURE, str(tmp_path / folder)]
        subprocess.run(command, check=True, capture_output=True, env={"MPLBACKEND": "agg", "HOME": str(tmp_path)})
    for name in ("recall.svg", "recall.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert b"dc:date" not in (tmp_path / "a" / "recall.svg").read_bytes()
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["recall.png", "recall.svg"]


def test_a_figure_changes_no_settings(tmp_path: Path) -> None:
    figure = plt.figure()
    before = plt.rcParams.copy()
    save_figure(figure, tmp_path, "empty")
    assert plt.rcParams == before
    plt.close("all")


def test_atomic_path_leaves_the_old_file_if_the_block_raises(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("old")
        assert temporary.parent == path.parent
        assert temporary.suffix == ".txt"
    with pytest.raises(TypeError), atomic_path(path) as temporary, temporary.open("w") as file:
        file.writelines(["half", None])  # type: ignore[list-item]
    assert path.read_text() == "old"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.txt"]
