"""The README's tables of the comparison and of both papers."""

from __future__ import annotations

from pathlib import Path

from palimpsest.pipeline import papers, readme
from palimpsest.pipeline.results import read_metrics

ROOT = Path(__file__).resolve().parents[2]
NAMES = [name for item in papers.ITEMS for name in item.measured.values()]


def interval(name: str, value: float) -> dict[str, float]:
    return {name: value, f"{name}.low": value / 2, f"{name}.high": value, f"{name}.n": 9}


def test_every_stage_is_there() -> None:
    stages = {stage for item in papers.ITEMS for stage in item.stages}
    assert [stage for stage in sorted(stages) if not (ROOT / "notebooks" / f"{stage}.ipynb").is_file()] == []


def test_every_name_is_one_that_is_measured() -> None:
    figures = read_metrics(ROOT / "results" / "metrics" / "headline.json")
    expected = [name for name in NAMES if not name.startswith("editors.") or "editors.none.seconds_per_edit" in figures]
    assert [name for name in expected if name not in figures] == []


def test_what_was_not_measured_is_left_out() -> None:
    rows = papers.papers_table({"memllm.write.f1.late": 0.921})
    assert len(rows) == 2 + len(papers.ITEMS)
    [row] = [row for row in rows if "late stopping" in row]
    assert row.endswith("| [`memllm_write`](notebooks/memllm_write.ipynb) | F1, late 92.1% |")
    assert sum(row.endswith("| see the notebook |") for row in rows) == len(papers.ITEMS) - 1


def test_methods_have_a_row_each_and_a_dash_for_what_they_cannot() -> None:
    figures = interval("editors.rome.single.reliability", 0.5) | interval("editors.memllm.single.reliability", 1.0)
    figures |= interval("editors.rome.seconds_per_edit", 1.234) | interval("editors.memllm.forget.forgotten", 0.02)
    rows = readme.editors_table(figures)[2:]
    assert [row.split(" | ")[0] for row in rows] == ["| MemLLM", "| ROME"]
    assert "| 50.0% (25.0% – 50.0%) | – |" in rows[1]
    assert rows[1].endswith("| – | 1.2 |")
    assert "| 2.0% (1.0% – 2.0%) | – |" in rows[0]
