"""The benchmark of Larimar's memory runs from end to end, at a size that says nothing about speed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks import larimar
from tiny import tiny_encoder, tiny_lm

from palimpsest.data.counterfact import write_edits
from palimpsest.facts import Edit
from palimpsest.larimar import Addressing, FeatureAddressing, NearestAddressing, SpanAddressing
from palimpsest.larimar.algebra import PUBLISHED_SCALE, pseudo_inverse, read, write
from palimpsest.larimar.model import Larimar

TINY = larimar.Case(facts=(1, 4, 8), slots=8, code=12, episodes=2)
EDITS = [
    Edit("0", "Danielle Darrieux", "The mother tongue of Danielle Darrieux is", "English", ("French",), "P103"),
    Edit("1", "Mount Erebus", "Mount Erebus is located in the continent of", "Europe", ("Antarctica",), "P30"),
    Edit("2", "Glenda Adams", "Glenda Adams lived in", "Paris", ("Sydney",), "P551"),
]
PARTS = ["encoding", "write", "read", "scope", "answer"]
SPREAD = ["", ".low", ".high", ".n"]


def test_all_figures_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = larimar.run(TINY, repetitions=3, model=tmp_path / "best")
    assert f"edits are not measured, for {tmp_path / 'best'} is absent" in capsys.readouterr().out
    spreads = [f"{way}_speedup_n{facts}" for way in ("write", "read", "read_matrix") for facts in TINY.facts]
    spreads += ["write_speedup", "read_speedup"]
    residuals = [f"{way}_residual_n{facts}" for way in ("write", "read") for facts in TINY.facts]
    names = [f"{name}{part}" for name in spreads for part in SPREAD]
    names += [f"{name}{part}" for name in residuals for part in ("", "_published")]
    assert set(figures) == {f"bench.larimar.{name}" for name in names}
    for way in ("write", "read"):
        own = [figures[f"bench.larimar.{way}_speedup_n{facts}"] for facts in TINY.facts]
        assert figures[f"bench.larimar.{way}_speedup"] == min(own)
    for name in residuals:
        assert 0 <= figures[f"bench.larimar.{name}"] < 1e-5


def test_the_published_way_is_the_published_way() -> None:
    assert larimar.PUBLISHED_SCALE == PUBLISHED_SCALE
    z, prior = TINY.episode(4), TINY.prior()
    for start in larimar.STARTS:
        memory = larimar.published_write(z, prior, start)
        scale = start(prior[None])
        weights = z @ pseudo_inverse(prior, larimar.STEPS, scale=float(scale), tolerance=None)
        assert memory.shape == (2, 8, 12)
        torch.testing.assert_close(weights @ memory, z, rtol=0.05, atol=0.05)
        if start is larimar.safe_start:
            torch.testing.assert_close(memory, write(z, prior).matrix.float(), rtol=1e-3, atol=1e-3)
            values = larimar.published_read(z, memory, start)
            torch.testing.assert_close(values, read(z, write(z, prior)).values, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("make", [
    lambda: SpanAddressing(torch.eye(5, 16)),
    lambda: FeatureAddressing(24, 16, seed=0),
    lambda: NearestAddressing(4, 16),
], ids=["span", "features", "nearest"])  # fmt: skip
def test_an_edit_is_measured_with_its_parts(make: Callable[[], Addressing[Any]], tmp_path: Path) -> None:
    model = Larimar(tiny_encoder(tmp_path), tiny_lm("llama"), slots=5, code=16)
    figures = larimar.edit_figures(larimar.EditCase(model, make(), EDITS[:2], EDITS[2:]))
    times = ["edit", *(f"edit_{part}" for part in PARTS)]
    names = [*(f"{name}_{unit}" for name in times for unit in ("ms", "forward_passes")), "forward_pass_ms"]
    assert set(figures) == {f"bench.larimar.{name}{part}" for name in names for part in SPREAD}
    assert min(figures.values()) > 0
    assert figures["bench.larimar.edit_ms.n"] == 2
    whole = sum(figures[f"bench.larimar.edit_{part}_ms.low"] for part in PARTS)
    assert whole < 3 * figures["bench.larimar.edit_ms.high"], "its parts are those of an edit"


def test_edits_of_the_pipelines_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = {"hardware": {"device": "cpu", "dtype": "float32"}, "data_folder": "prepared"}
    (tmp_path / "params.yaml").write_text(json.dumps(params))
    (tmp_path / "dvc.yaml").touch()
    monkeypatch.chdir(tmp_path)
    write_edits(Path("prepared/edits/test.json"), EDITS)
    Larimar(tiny_encoder(tmp_path / "encoder"), tiny_lm("llama"), slots=5, code=16).save(tmp_path / "best")
    case = larimar.prepared_edits(Path("best"), 2)
    assert [edit.case_id for edit in case.edits] == ["0", "1"]
    assert [edit.case_id for edit in case.held] == ["2"]
    assert (case.addressing.slots, case.addressing.key_size) == (larimar.SLOTS, 16)


def test_a_larger_residual_is_no_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(larimar, "write", lambda z, prior: write(z + 0.1, prior))
    with pytest.raises(RuntimeError, match="write: a residual of"):
        larimar.algebra_figures(TINY, 1)
