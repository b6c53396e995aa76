"""The search for settings: what is tried, how it is scored, and which is chosen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from fake_editors import Notebook

from palimpsest.editors.editor import Editor
from palimpsest.evaluation import tuning
from palimpsest.evaluation.rows import RowFiles
from palimpsest.evaluation.tuning import Task, chosen_settings, draw_settings, run_trial, search, trial_table
from palimpsest.facts import Edit, Probe
from palimpsest.lm.scoring import TargetScore
from palimpsest.pipeline.project import parameters

ROOT = Path(__file__).parents[2]
KNOWS = {f"n{number:02}": f"old{number}" for number in range(20)}
EDITS = [
    Edit(
        str(n),
        f"s{n:02}",
        f"s{n:02} is",
        f"new{n}",
        (f"old{n}",),
        paraphrases=(f"Truly, s{n:02} is",),
        neighbors=(Probe(f"n{n:02} is", f"old{n}"), Probe(f"n{n:02} was", f"old{n}")),
    )
    for n in range(20)
]


def task(alone: int = 6, in_turn: int = 8) -> Task:
    return Task.of(EDITS, EDITS, alone=alone, in_turn=in_turn, neighbors=1, max_new_tokens=5, seed=0)


class Capped(Notebook):
    """A notebook with settings; one of no capacity cannot be written, and a negative one is full of nonsense."""

    def __init__(self, *, capacity: int) -> None:
        super().__init__(KNOWS, abs(capacity))
        self.nonsense = capacity < 0

    def apply(self, edits: Sequence[Edit]) -> None:
        if not self.capacity:
            raise ArithmeticError("no place")
        super().apply(edits)

    def score(self, prompts: Sequence[str], targets: Sequence[str]) -> list[TargetScore]:
        if self.nonsense and self.told:
            return [TargetScore((0,), (float("nan"),), (False,))] * len(prompts)
        return super().score(prompts, targets)


def trial(editor: Notebook, made: Task) -> dict:
    editor.lm = SimpleNamespace(device=torch.device("cpu"))  # type: ignore[assignment]
    return run_trial(editor, made)


def test_settings_are_different_and_each_value_is_tried_as_often_as_any_other() -> None:
    space = {"layer": [0, 1, 2, 3], "layers": [[0], [0, 1]], "rate": [1e-3, 1e-2, 1e-1]}
    found = draw_settings(space, 12, seed=0)
    assert len({str(settings) for settings in found}) == 12
    for name, values in space.items():
        assert Counter(str(s[name]) for s in found) == {str(value): 12 // len(values) for value in values}
    assert found == draw_settings(space, 12, seed=0) != draw_settings(space, 12, seed=1)
    assert sorted(map(str, draw_settings(space, 24, seed=0))) == sorted(
        str({"layer": layer, "layers": layers, "rate": rate})
        for layer in space["layer"]
        for layers in space["layers"]
        for rate in space["rate"]
    )
    with pytest.raises(ValueError, match="at least 25 settings, got 24"):
        draw_settings(space, 25, seed=0)


def test_a_trial_is_the_mean_of_edits_alone_and_of_what_is_left_of_a_sequence() -> None:
    found = trial(Notebook(KNOWS, capacity=4), task(alone=6, in_turn=8))
    parts = ("success", "reliability", "generalization", "locality", "score")
    assert [found[f"single_{part}"] for part in parts] == [1, 1, 1, 1, 1]
    assert [found[f"sequence_{part}"] for part in parts[:4]] == [0.5, 0.5, 0.5, 1]
    assert found["sequence_score"] == pytest.approx(3 / (2 + 2 + 1))
    assert found["score"] == pytest.approx((1 + 0.6) / 2)
    assert found["failed"] == ""
    assert found["seconds_per_edit"] > 0


def test_the_sample_keeps_to_edits_that_name_their_subject_and_to_few_neighbours() -> None:
    nameless = [Edit(f"x{n}", "Oslo", "The capital of Norway is", "Bergen", ("Oslo",)) for n in range(50)]
    made = Task.of([*nameless, *EDITS], EDITS, alone=99, in_turn=5, neighbors=1, max_new_tokens=5, seed=0)
    assert [edit.case_id for edit in made.alone] == [edit.case_id for edit in EDITS]
    assert {len(edit.neighbors) for edit in (*made.alone, *made.in_turn)} == {1}


@pytest.mark.parametrize(("capacity", "reason"), [(0, "no place"), (-99, "42 answers have no probability")])
def test_what_blows_up_scores_nothing_and_says_why(capacity: int, reason: str) -> None:
    found = trial(Capped(capacity=capacity), task(alone=6, in_turn=8))  # three questions about each of 14 edits
    assert found["score"] == 0
    assert found["failed"] == reason


def test_the_best_is_chosen_and_of_equally_good_ones_the_fastest(tmp_path: Path) -> None:
    rows = [
        {"method": "a", "settings": {"layers": [0, 1]}, "score": 0.5, "failed": "", "seconds_per_edit": 2.0},
        {"method": "a", "settings": {"layers": [1]}, "score": 0.5, "failed": "", "seconds_per_edit": 1.0},
        {"method": "a", "settings": {"layers": [2]}, "score": 0.0, "failed": "no place"},
        {"method": "b", "settings": {"rate": 1e-05}, "score": 0.0, "failed": "", "seconds_per_edit": 3.0},
        {"method": "b", "settings": {"rate": 1.0}, "score": 0.0, "failed": "no place"},
    ]
    table = trial_table(rows)
    assert table["chosen"].tolist() == [False, True, False, True, False]
    table.to_csv(tmp_path / "table.csv", index=False)
    assert chosen_settings(pd.read_csv(tmp_path / "table.csv")) == {"a": {"layers": [1]}, "b": {"rate": 1e-5}}
    assert tuning.headline(table)["a"] == {"score": 0.5, "seconds_per_edit": 1.0}


def test_a_search_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[dict] = []

    def build(description: dict, resources: dict) -> Editor:
        built.append(description["settings"])
        editor = Capped(capacity=description["settings"]["capacity"])
        editor.lm = resources["lm"]
        return editor

    def run(trials: int) -> list[dict]:
        description = {"_target_": "Capped", "settings": {"capacity": 1, "colour": "red"}}
        space, sink = {"capacity": [0, 2, 8]}, RowFiles(tmp_path, {})
        lm = SimpleNamespace(device=torch.device("cpu"))
        return search("capped", description, space, {"lm": lm}, task(), trials=trials, seed=0, sink=sink)

    monkeypatch.setattr(tuning, "build_editor", build)
    first = run(2)
    assert len(built) == 2
    whole = run(3)
    assert whole[:2] == first
    assert sorted(settings["capacity"] for settings in built) == [0, 2, 8]
    assert {settings["colour"] for settings in built} == {"red"}
    assert chosen_settings(trial_table(whole)) == {"capped": {"capacity": 8}}


def test_the_configuration_holds_what_the_search_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    if "scale=laptop" not in parameters()["overrides"]:
        pytest.skip("the results here are of another scale than the committed ones")
    methods = parameters()["editors"]["methods"]
    chosen = chosen_settings(pd.read_csv("results/tables/editors_tuning.csv"))
    assert chosen.keys() == parameters()["tuning"]["spaces"].keys()
    configured = {
        method: {name: methods[method]["settings"].get(name) for name in settings}
        for method, settings in chosen.items()
    }
    assert configured == chosen, "copy what is chosen into conf/editors"
