"""The README's numbers are those of the result files."""

from pathlib import Path

import pytest

from palimpsest.pipeline import readme
from palimpsest.pipeline.project import parameters
from palimpsest.pipeline.results import write_metrics

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    figures = {"repro.seconds.data": 12.3, "repro.seconds.total": 12.3, "repro.cores": 2}
    figures |= {"lm.recall.test_entities": 0.125, "lm.recall.test_entities.low": 0.1}
    figures |= {"lm.recall.test_entities.high": 0.15, "lm.recall.test_entities.n": 1600}
    write_metrics("results/metrics/headline.json", figures)
    return tmp_path


def test_tables_are_made_from_the_results(project: Path) -> None:
    text = "before\n<!-- results recall -->\nold\n<!-- end -->\nafter <!-- results seconds -->\n<!-- end -->\n"
    new = readme.rendered(text)
    assert "| facts of entities never mentioned | 12.5% | 10.0% – 15.0% | 1,600 |" in new
    assert "| `data` | 12 |" in new
    assert "old" not in new
    assert new.startswith("before\n<!-- results recall -->\n")
    assert readme.rendered(new) == new


def test_memllm_is_shown_from_no_help_to_all(project: Path) -> None:
    figures = {}
    for number, setting in enumerate(readme.HELP):
        for kind in readme.CLASSES:
            name = f"memllm.ppl.{kind}.{setting}"
            figures |= {name: 200.4 + number, f"{name}.low": 150, f"{name}.high": 1250, f"{name}.n": 9}
    write_metrics("results/metrics/headline.json", figures)
    rows = readme.rendered("<!-- results memllm_perplexity -->\n<!-- end -->").splitlines()[3:-1]
    assert len(rows) == len(readme.HELP)
    assert rows[0].startswith("| no memory | 200 (150 – 1,250) |")
    assert rows[-1].startswith(f"| gold all | {200 + len(readme.HELP) - 1} (150 – 1,250) |")


def test_a_benchmark_is_one_row_with_its_range(project: Path) -> None:
    figures = {"bench.a": 2.5, "bench.a.low": 2.25, "bench.a.high": 123.4, "bench.a.n": 3, "bench.b": 0.5}
    write_metrics("results/metrics/bench.json", figures)
    rows = readme.rendered("<!-- results bench -->\n<!-- end -->").splitlines()[3:-1]
    assert rows == ["| `bench.a` | 2.5 | 2.25 – 123 |", "| `bench.b` | 0.5 |  |"]


def test_an_unknown_table_is_an_error(project: Path) -> None:
    with pytest.raises(KeyError, match="nosuch"):
        readme.rendered("<!-- results nosuch -->\n<!-- end -->")


def test_the_committed_readme_is_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    if "scale=laptop" not in parameters()["overrides"]:
        pytest.skip("the results here are of another scale than the committed ones")
    text = readme.README.read_text(encoding="utf-8")
    assert readme.rendered(text) == text, "run: python -m palimpsest.pipeline.readme"
