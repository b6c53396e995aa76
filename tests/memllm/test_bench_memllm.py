"""The benchmark of MemLLM runs from end to end on a tiny model, at a size that says nothing about speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks import memllm
from support import LABELS, RULES, page, remembered, trained

from palimpsest.evaluation.lookup_perplexity import Pages
from palimpsest.facts import Query


def ask(calls: Sequence[Sequence[Query]]) -> list[list[str]]:
    return [remembered(queries) for queries in calls]


@pytest.fixture
def case() -> memllm.Case:
    """A reader that is never sure, a writer that knows its pages, and a window that is shorter than the longest."""
    reader, documents = trained(60), [page(1), page(6, 0, 1), page(3, sentences=0)]
    pages = Pages.prepare(documents, LABELS, RULES, reader)
    assert max(len(text.ids) for text in pages.texts) > 48
    return memllm.Case(reader, trained(150), pages, ask, window=48, delay=5)


def test_both_ways_agree_and_all_figures_are_measured(case: memllm.Case) -> None:
    figures = memllm.run(case, repetitions=2)
    names = [f"{speedup}{part}" for speedup in ("ppl_speedup", "write_speedup") for part in ("", ".low", ".high", ".n")]
    assert set(figures) == {f"bench.memllm.{name}" for name in [*names, "same_writes"]}
    assert figures["bench.memllm.same_writes"] == 1
    assert all(value > 0 for value in figures.values())
    assert memllm.plain_loss(case) == pytest.approx(memllm.batched_loss(case), rel=1e-5)
    assert any("Ann Lee" in call for call in memllm.plain_writes(case))


def test_the_plain_way_looks_things_up(case: memllm.Case) -> None:
    forgetful = replace(case, ask=lambda calls: [[] for _ in calls])
    assert abs(memllm.plain_loss(case) - memllm.plain_loss(forgetful)) > 1


def test_ways_that_disagree_are_not_compared(case: memllm.Case) -> None:
    moody = replace(case, ask=lambda calls: ask(calls) if len(calls) == 1 else [["Rain"] for _ in calls])
    with pytest.raises(RuntimeError, match="not the same"):
        memllm.run(moody, repetitions=1)


def test_without_models_it_says_what_makes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "params.yaml").write_text("memllm: {folder: m}\ndata_folder: data\nbase_lm: base\n")
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="base is absent: `make repro` makes it"):
        memllm.run()
