"""All experiments on one editor: what is asked, how often, and how a killed run goes on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fake_editors import Notebook

from palimpsest.data.prepared import PreparedData
from palimpsest.editors.editor import Editor
from palimpsest.evaluation.drift import PERPLEXITY
from palimpsest.evaluation.experiments import Experiments
from palimpsest.evaluation.rows import EXPERIMENTS, RowFiles
from palimpsest.evaluation.same_subject import SAME_SUBJECT
from palimpsest.facts import Edit

SETTINGS: dict[str, Any] = {
    "seed": 0,
    "max_new_tokens": 4,
    "single": {"edits": 5, "chunk": 2},
    "questions": {"neighbors": 1, "portability": 1, "same_subject": 2},
    "sequential": {"sequences": [[1, 3], [4, 2]], "at_once": 2, "limit": 3},
    "batch": {"sizes": [[2, 3], [6, 1]], "limit": 4},
    "drift": {"lengths": [4], "texts": 2, "sampled_tokens": 2, "fluency": {"edits": 1, "max_new_tokens": 4}},
    "forgetting": {"edits": 6, "turns": [[1, 2], [3, 1]], "kept": 2},
    "contradictions": 4,
}
COUNT = 12
KNOWS = {f"S{number}X": f"old{number}" for number in range(COUNT)} | {f"N{number}X": "near" for number in range(COUNT)}


@pytest.fixture
def prepared(tmp_path: Path) -> PreparedData:
    """Edits about S0X, S1X and so on, the last fact twice; questions about the same; text for drift."""
    edits = [
        {
            "case_id": number,
            "requested_rewrite": {
                "prompt": f"form {number}: {{}} is",
                "relation_id": "P1",
                "subject": f"S{min(number, COUNT - 1)}X",
                "target_new": {"str": f"new{number}"},
                "target_true": {"str": f"old{number}"},
            },
            "paraphrase_prompts": [f"surely S{number}X is"],
            "neighborhood_prompts": [f"N{number}X is", f"N{number}X remains"],
            "attribute_prompts": [],
            "generation_prompts": [f"S{number}X"],
        }
        for number in range(COUNT + 1)
    ]
    questions = [
        {"case_id": n, "subject": f"S{n}X", "src": f"Who is S{n}X?", "rephrase": f"Name S{n}X", "alt": f"new{n}",
         "answers": [f"old{n}"], "loc": f"nq question: Who is N{n}X?", "loc_ans": "near"}
        for n in range(COUNT)
    ]  # fmt: skip
    facts = [
        {
            "case_id": f"{relation} {subject}",
            "requested_rewrite": {
                "prompt": f"the {relation} of {{}} is",
                "relation_id": relation,
                "subject": subject,
                "target_new": {"str": "never"},
                "target_true": {"str": "true"},
            },
            "paraphrase_prompts": [],
            "neighborhood_prompts": [],
            "attribute_prompts": [],
            "generation_prompts": [],
        }
        for relation in ("P1", "P2", "P3", "P4")
        for subject in ("S1X", "S9X")
    ]
    for name, content in (
        ("edits/test.json", edits),
        ("questions/test.json", questions),
        ("recall/train.json", facts),
    ):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(json.dumps(content))
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "dev.txt").write_text("One two three four.\n\nFive six seven eight.\n\nNine ten.\n")
    return PreparedData(tmp_path)


class Undrifted:
    """In place of :class:`~palimpsest.evaluation.drift.Drift`, which needs a language model."""

    @classmethod
    def of(cls, editor: Notebook, texts: Sequence[str], *, sampled_tokens: int, seed: int) -> Undrifted:
        assert editor.told == {}
        return cls()

    def rows(self, editor: Notebook, edits: Sequence[Edit], *, max_new_tokens: int) -> list[dict]:
        assert [edit.generation_prompts for edit in edits] == [(edits[0].subject,)]
        return [{"measure": PERPLEXITY, "number": 0, "total": len(editor.told), "count": 1}]


@pytest.fixture(autouse=True)
def no_drift(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("palimpsest.evaluation.experiments.Drift", Undrifted)


def experiments(prepared: PreparedData, editor: Editor | None = None, **more: Any) -> dict[str, list[dict]]:
    return Experiments(editor=editor or Notebook(KNOWS), prepared=prepared, settings=SETTINGS, **more).rows()


def test_each_experiment_makes_and_asks_what_the_settings_say(prepared: PreparedData) -> None:
    rows = experiments(prepared)
    assert tuple(rows) == EXPERIMENTS
    kinds = {"edit": 5, "paraphrase": 5, "neighbor": 5, SAME_SUBJECT: 2}
    assert Counter(row["kind"] for row in rows["single"]) == kinds
    beside = [row for row in rows["single"] if row["kind"] == SAME_SUBJECT]
    assert [(row["case_id"], row["number"], row["unchanged"]) for row in beside] == [("1", 0, False), ("1", 1, False)]
    runs = Counter((row["length"], row["run"], row["phase"]) for row in rows["sequential"] if row["kind"] == "edit")
    assert runs == {(1, run, "after_last"): 1 for run in range(3)} | {
        (4, run, phase): count for run in range(2) for phase, count in (("after_edit", 2), ("after_last", 3))
    }
    cases = {run: {r["case_id"] for r in rows["sequential"] if (r["length"], r["run"]) == (4, run)} for run in range(2)}
    assert cases[0] <= {"0", "2", "4", "6"}  # in turn from the front
    assert cases[1] <= {"1", "3", "5", "7"}
    batches = Counter((row["length"], row["run"], row["edits"]) for row in rows["batch"] if row["kind"] == "edit")
    assert batches == {(2, 0, 2): 2, (2, 1, 2): 2, (2, 2, 2): 2, (6, 0, 6): 4}
    assert [(row["length"], row["run"], row["total"]) for row in rows["drift"]] == [(4, 0, 4), (4, 1, 4)]
    assert {(row["forgotten"], row["turn"]) for row in rows["forgetting"]} == {(1, 0), (1, 1), (3, 0)}
    assert len({row["case_id"] for row in rows["contradictions"]}) == 4
    assert all(row["exact"] for row in rows["single"] if row["kind"] == "edit")
    assert all(row["unchanged"] for row in [*rows["single"], *rows["sequential"]] if row["kind"] == "neighbor")


def test_of_two_edits_of_one_fact_the_first_is_made(prepared: PreparedData) -> None:
    edits = Experiments(editor=Notebook({}), prepared=prepared, settings=SETTINGS).edits
    assert [edit.case_id for edit in edits] == [str(number) for number in range(COUNT)]


def test_what_an_editor_cannot_do_is_left_out(prepared: PreparedData) -> None:
    class Unforgetting(Notebook):
        forgets = False

    assert experiments(prepared, Unforgetting(KNOWS))["forgetting"] == []


def test_more_edits_than_there_are_is_an_error(prepared: PreparedData) -> None:
    settings = SETTINGS | {"batch": {"sizes": [[5, 3]], "limit": 4}}
    with pytest.raises(ValueError, match="3 times 5 edits are asked for, but there are 12"):
        Experiments(editor=Notebook(KNOWS), prepared=prepared, settings=settings).rows()


class Killed(Notebook):
    """Raises at a call of ``apply``."""

    def __init__(self, at: int) -> None:
        super().__init__(KNOWS)
        self.left = at

    def apply(self, edits: Sequence[Edit]) -> None:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        super().apply(edits)


def test_a_killed_run_goes_on_and_gives_the_same_rows(prepared: PreparedData, tmp_path: Path) -> None:
    whole, sink = experiments(prepared), RowFiles(tmp_path / "rows", {})
    for at in (2, 9, 14, 5):  # in the sequences, single edits, forgetting, and contradictions
        with pytest.raises(KeyboardInterrupt):
            experiments(prepared, Killed(at), sink=sink)
    editor = Notebook(KNOWS)
    assert experiments(prepared, editor, sink=sink) == whole
    again = Notebook(KNOWS)
    assert experiments(prepared, again, sink=sink) == whole
    applied = [sum(name == "apply" for name, _ in one.calls) for one in (editor, again)]
    assert applied == [8, 0]  # the contradictions alone were missing
