"""The tables of the comparison: averages that can be counted by hand, from rows that editors have left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import pytest
from fake_editors import Leaky, Notebook

from palimpsest.evaluation import comparison, cost, overview
from palimpsest.evaluation.attacks import OWN_PROMPT, families
from palimpsest.evaluation.editing import Probing, Row, greedy_answers, probe, questions
from palimpsest.evaluation.editing_runs import AFTER_EDIT, AFTER_LAST
from palimpsest.evaluation.forgetting import AFTER, forget_some, plan_rounds, summarize_forgetting
from palimpsest.evaluation.rows import write_rows
from palimpsest.facts import Edit, Probe

KNOWS = {"n0": "old0", "n1": "old1"}
EDITS = [
    Edit(
        str(n),
        f"s{n}",
        f"s{n} is",
        f"new{n}",
        (f"old{n}",),
        paraphrases=(f"Who is s{n}?",),
        neighbors=(Probe(f"n{n % 2} is", f"old{n % 2}"),),
    )
    for n in range(4)
]
PROBING = Probing()


def asked(editor: Notebook, made: Sequence[Edit], **columns: object) -> list[Row]:
    """All edits made and asked about after the last."""
    found = questions(made)
    editor.reset()
    baseline = greedy_answers(editor, [one for one in found if one.kind == "neighbor"], PROBING)
    for edit in made:
        editor.apply([edit])
    return [row | columns for row in probe(editor, found, PROBING, baseline)]


def leave(folder: Path, rows: Mapping[str, list[Row]], experiment: str) -> None:
    for method, own in rows.items():
        write_rows(folder / method / f"{experiment}.jsonl", own)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two runs of two edits by a method that keeps all and by one that keeps the last, and one edit by the former."""
    rows: dict[str, list[Row]] = {"none": []}
    for method, capacity in (("good", 9), ("last", 1)):
        editor = Notebook(KNOWS, capacity)
        rows[method] = [
            row
            for run in (0, 1)
            for row in asked(editor, EDITS[2 * run : 2 * run + 2], phase=AFTER_LAST, edits=2, length=2, run=run)
        ]
    rows["good"] += asked(Notebook(KNOWS), EDITS[:1], phase=AFTER_LAST, edits=1, length=1, run=0)
    leave(tmp_path, rows, "sequential")
    return tmp_path


def value(table: pd.DataFrame, **where: object) -> float:
    [found] = table.loc[(table[list(where)] == pd.Series(where)).all(axis=1), "value"]
    return found


def test_methods_come_in_the_order_asked_for_and_those_without_rows_not_at_all(folder: Path) -> None:
    rows = comparison.read_experiment(folder, ["none", "last", "good", "nosuch"], "sequential")
    assert list(rows["method"].unique()) == ["last", "good"]
    assert set(rows["dataset"]) == {"zsre"}
    assert set(rows["setting"]) == {"sequence"}
    assert set(rows["case_id"]) == {"0", "1", "2", "3"}
    with pytest.raises(FileNotFoundError, match="batch"):
        comparison.read_experiment(folder, ["good"], "batch")


def test_an_edit_asked_about_at_once_goes_with_its_whole_sequence(tmp_path: Path) -> None:
    rows = asked(Notebook(KNOWS), EDITS, phase=AFTER_EDIT, edits=3, length=4, run=0)
    leave(tmp_path, {"good": rows}, "sequential")
    assert set(comparison.read_experiment(tmp_path, ["good"], "sequential")["edits"]) == {4}


def test_averages_are_of_all_runs_and_of_each(folder: Path) -> None:
    table = comparison.editing_table(comparison.read_experiment(folder, ["good", "last"], "sequential"))
    said = {"metric": "edit", "protocol": "exact", "edits": 2}
    assert value(table, method="good", run="all", **said) == 1
    assert value(table, method="last", run="all", **said) == 0.5
    assert [value(table, method="last", run=run, **said) for run in ("0", "1")] == [0.5, 0.5]
    pooled, single = (
        table[(table["run"] == run) & (table["method"] == "last") & (table["metric"] == "edit")] for run in ("all", "0")
    )
    assert set(pooled.loc[pooled["protocol"] == "exact", "n"]) == {4}
    assert "success_mean" in set(pooled["protocol"])
    assert set(single["protocol"]) == {"exact"}
    assert set(table.loc[table["edits"] == 1, "run"]) == {"all"}  # one edit by itself is no run to show
    locality = {"metric": "neighbor", "protocol": "unchanged", "edits": 2, "run": "all"}
    assert value(table, method="last", **locality) == 1
    score = {"metric": "score", "protocol": "exact", "edits": 2, "run": "all"}
    assert value(table, method="last", **score) == pytest.approx(3 / (1 / 0.5 + 1 / 0.5 + 1))


def test_a_score_needs_all_of_its_parts(tmp_path: Path) -> None:
    rows = [row for row in asked(Notebook(KNOWS), EDITS, phase=AFTER_LAST, edits=1) if row["kind"] != "neighbor"]
    leave(tmp_path, {"good": rows}, "single")
    table = comparison.editing_table(comparison.read_experiment(tmp_path, ["good"], "single"))
    assert set(table["metric"]) == {"edit", "paraphrase"}
    assert list(comparison.headline(table, comparison.GENERATED)["good"]) == ["reliability", "generalization"]


def test_headline_figures_by_number_of_edits(folder: Path) -> None:
    table = comparison.editing_table(comparison.read_experiment(folder, ["good", "last"], "sequential"))
    found = comparison.by_number(table)
    assert {method: list(own) for method, own in found.items()} == {"good": [1, 2], "last": [2]}
    assert found["last"][2]["reliability"].value == 0.5
    assert list(found["good"][2]) == [name for name in comparison.GENERATED if name != "same_subject"]
    shown = comparison.readable({method: own[2] for method, own in found.items()})
    assert shown.loc["last", "reliability"].startswith("50.0% (")


def test_the_method_is_found_on_which_protocols_differ_most() -> None:
    rows = [("a", "exact", 0.1), ("a", "success_mean", 0.3), ("b", "exact", 0.2), ("b", "token_accuracy", 0.9)]
    table = pd.DataFrame(rows, columns=["method", "protocol", "value"]).assign(metric="edit")
    others = table.assign(metric="neighbor", method="c", value=[0.0, 1.0, 0.0, 1.0])
    assert comparison.most_divided(pd.concat([table, others])) == "b"


def test_at_a_glance(folder: Path) -> None:
    sequential = comparison.editing_table(comparison.read_experiment(folder, ["good", "last"], "sequential"))
    edits = [edit for edit in EDITS if edit.case_id != "3"]
    order = "The following was deleted"
    rounds, attacks = plan_rounds(edits, {1: 1, 2: 1}, 1, seed=0), families(edits, ["Rain fell."])
    left = forget_some(Leaky(KNOWS, order), edits, rounds, attacks, PROBING)
    forgetting = summarize_forgetting(left).assign(method="good")
    own = (forgetting["family"] == OWN_PROMPT) & (forgetting["state"] == AFTER)
    forgetting.loc[own & (forgetting["protocol"] == "retained") & (forgetting["forgotten"] == 2), "value"] = 0.25
    costs = [
        {"case_id": "0", "method": method, "measure": measure, "value": seconds}
        for method, seconds in (("none", 1e-6), ("good", 0.5), ("last", 2.0))
        for measure in (cost.EDIT, cost.ANSWER, cost.LATER)
    ]
    times = cost.cost_table(costs, "none")
    single = sequential[sequential["edits"] == 2]
    cells = overview.cells(single[single["run"] == "all"], sequential, forgetting, times)
    found = cells.set_index(["method", "column"])["value"]
    assert found["last", "says the\nnew answer"] == 0.5
    assert found["last", "all three after\n2 edits"] == pytest.approx(0.6)
    assert found["good", "forgets when\ntold to"] == 0.75
    assert pd.isna(found["last", "forgets when\ntold to"])
    assert found["last", "an edit\ntakes"] == 2.0
    silent = forgetting[forgetting["protocol"] != "retained"]
    cells = overview.cells(single[single["run"] == "all"], sequential, silent, times)
    assert set(cells.loc[cells["column"] == "forgets when\ntold to", "method"]) == {"last"}
    beside = overview.speed_and_quality(single[single["run"] == "all"], times).set_index("method")
    assert list(beside.index) == ["good", "last"]
    assert beside.loc["last", "quality"] == pytest.approx(0.6)
    assert beside.loc["good", "seconds_high"] == 0.5
