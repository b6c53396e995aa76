"""Selective forgetting with editors that forget, and with one that only seems to."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from fake_editors import Leaky, Notebook

from palimpsest.editors.none import NoEdit
from palimpsest.evaluation.attacks import OWN_PROMPT, families
from palimpsest.evaluation.editing import Probing
from palimpsest.evaluation.forgetting import (
    AFTER,
    BEFORE,
    FORGOTTEN,
    KEPT,
    NEVER,
    excess_leakage,
    forget_some,
    headline,
    plan_rounds,
    summarize_forgetting,
)
from palimpsest.evaluation.rows import RowFiles
from palimpsest.evaluation.statistics import share
from palimpsest.facts import Edit

ORDER = "The following was deleted"
EDITS = [
    Edit(str(n), f"S{n:02}", f"S{n:02} is", f"new{n}", (f"old{n}",), paraphrases=(f"Is S{n:02}",)) for n in range(10)
]
KNOWN = {edit.subject: edit.target_true[0] for edit in EDITS} | {"S01": "new1"}  # a fact that can be guessed
FAMILIES = families(EDITS, ["It rained."])
PROBING = Probing()


def test_rounds_forget_others_each_time_and_ask_a_share_of_the_kept() -> None:
    rounds = plan_rounds(EDITS, {1: 3, 4: 2}, limit=5, seed=0)
    forgotten = [(each.count, each.turn, [edit.case_id for edit in each.groups[FORGOTTEN]]) for each in rounds]
    assert forgotten == [
        (1, 0, ["0"]), (1, 1, ["1"]), (1, 2, ["2"]), (4, 0, ["0", "1", "2", "3"]), (4, 1, ["4", "5", "6", "7"])
    ]  # fmt: skip
    assert [len(each.groups[KEPT]) for each in rounds] == [2, 2, 2, 3, 3]
    for each in rounds:
        assert not {edit.case_id for edit in each.groups[FORGOTTEN]} & {edit.case_id for edit in each.groups[KEPT]}
    assert plan_rounds(EDITS, {1: 3, 4: 2}, limit=5, seed=0) == rounds
    assert len(plan_rounds(EDITS, {1: 1}, limit=99, seed=0)[0].groups[KEPT]) == 9
    with pytest.raises(ValueError, match="3 times 4 edits to forget, but there are 10 edits"):
        plan_rounds(EDITS, {4: 3}, limit=5, seed=0)


def test_the_forgotten_are_asked_before_and_after_and_without_having_been_made() -> None:
    editor = Notebook(KNOWN)
    rounds = plan_rounds(EDITS, {2: 1}, limit=8, seed=0)
    rows = forget_some(editor, EDITS, rounds, FAMILIES, PROBING)
    everything = [edit.case_id for edit in EDITS]
    assert editor.calls == [
        ("reset", []), ("apply", everything),  # before
        ("reset", []), ("apply", everything), ("forget", ["0", "1"]),
        ("reset", []), ("apply", everything[2:]),
        ("reset", []),
    ]  # fmt: skip
    plain = {
        (row["group"], row["case_id"], row["state"]): (row["success_mean"], row["exact"], row["retained"])
        for row in rows
        if row["family"] == OWN_PROMPT
    }
    assert len(plain) == 3 * 10
    assert plain[FORGOTTEN, "0", BEFORE] == (True, True, None)
    assert plain[FORGOTTEN, "0", AFTER] == plain[FORGOTTEN, "0", NEVER] == (False, False, False)
    assert plain[FORGOTTEN, "1", AFTER] == plain[FORGOTTEN, "1", NEVER] == (True, True, True)  # guessed
    assert {plain[KEPT, case, state] for case in everything[2:] for state in (AFTER, NEVER)} == {(True, True, True)}
    attempts = Counter((row["state"], row["group"], row["family"]) for row in rows)
    for state in (BEFORE, AFTER, NEVER):
        asked = {family: attempts[state, FORGOTTEN, family] for family in FAMILIES}
        assert asked == dict.fromkeys(FAMILIES, 2) | {"instruction": 4}
        assert {family: attempts[state, KEPT, family] for family in FAMILIES} == dict.fromkeys(FAMILIES, 0) | {
            OWN_PROMPT: 8, "paraphrase": 8
        }  # fmt: skip
    json.dumps(rows)


def test_shares_by_hand() -> None:
    rows = forget_some(Notebook(KNOWN), EDITS, plan_rounds(EDITS, {1: 4, 5: 1}, 12, seed=0), FAMILIES, PROBING)
    table = summarize_forgetting(rows)
    assert list(table.columns) == [
        "forgotten", "group", "family", "state", "protocol", "value", "low", "high", "n"
    ]  # fmt: skip
    figures = {
        tuple(key): (value, n)
        for *key, value, n in table[
            ["forgotten", "group", "family", "state", "protocol", "value", "n"]
        ].itertuples(index=False)
    }  # fmt: skip
    for state in (AFTER, NEVER):
        assert figures[1, FORGOTTEN, OWN_PROMPT, state, "exact"] == (1 / 4, 4)
        assert figures[5, FORGOTTEN, OWN_PROMPT, state, "exact"] == (1 / 5, 5)
        assert figures[5, FORGOTTEN, OWN_PROMPT, state, "leaked"] == (1 / 5, 5)
        assert figures[5, KEPT, OWN_PROMPT, state, "retained"] == (1.0, 5)
    assert figures[5, FORGOTTEN, "instruction", BEFORE, "leaked"] == (1.0, 5)
    assert figures[5, FORGOTTEN, "multiple choice", NEVER, "leaked"] == (1 / 5, 5)
    assert (5, FORGOTTEN, OWN_PROMPT, BEFORE, "retained") not in figures
    found = headline(table)
    assert {count: {name: figure.value for name, figure in parts.items()} for count, parts in found.items()} == {
        1: {"forgotten": 1 / 4, "never_seen": 1 / 4, "kept": 1.0, "kept_before": 1.0},
        5: {"forgotten": 1 / 5, "never_seen": 1 / 5, "kept": 1.0, "kept_before": 1.0},
    }
    one = table.query(f"forgotten == 5 and group == 'forgotten' and family == '{OWN_PROMPT}' and state == '{AFTER}'")
    interval = share([True, False, False, False, False])
    assert one.query("protocol == 'exact'")[["low", "high"]].to_numpy().tolist() == [[interval.low, interval.high]]


def test_a_trace_shows_in_the_family_that_finds_it_and_nowhere_else() -> None:
    rounds = plan_rounds(EDITS, {5: 1}, 5, seed=0)
    rows = forget_some(Leaky(KNOWN, ORDER), EDITS, rounds, FAMILIES, PROBING)
    excess = excess_leakage(rows).set_index("family")
    assert excess.loc["instruction", ["value", "n"]].tolist() == [4 / 10, 10]  # of two orders one, but one is guessed
    assert 0 < excess.loc["instruction", "low"] < 4 / 10 < excess.loc["instruction", "high"] <= 0.5
    others = excess.drop("instruction")
    assert (others[["value", "low", "high"]] == 0).all(axis=None)
    assert set(excess["forgotten"]) == {5}
    clean = excess_leakage(forget_some(Notebook(KNOWN), EDITS, rounds, FAMILIES, PROBING))
    assert (clean[["value", "low", "high"]] == 0).all(axis=None)
    assert set(clean["family"]) == set(FAMILIES)


class Interrupted(Notebook):
    """Ends at the given call of ``forget``."""

    def __init__(self, at: int) -> None:
        super().__init__(KNOWN)
        self.at = at

    def forget(self, edits: Sequence[Edit]) -> None:
        self.at -= 1
        if self.at < 0:
            raise KeyboardInterrupt
        super().forget(edits)


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    rounds = plan_rounds(EDITS, {1: 2, 3: 1}, 6, seed=0)
    whole = forget_some(Notebook(KNOWN), EDITS, rounds, FAMILIES, PROBING)
    sink = RowFiles(tmp_path, {})
    killed = Interrupted(at=2)
    with pytest.raises(KeyboardInterrupt):
        forget_some(killed, EDITS, rounds, FAMILIES, PROBING, sink=sink)
    assert killed.told == {}
    editor = Notebook(KNOWN)
    assert forget_some(editor, EDITS, rounds, FAMILIES, PROBING, sink=sink) == whole
    assert [name for name, _ in editor.calls] == ["reset", "apply", "forget", "reset", "apply", "reset"]


def test_what_cannot_be_measured_is_refused() -> None:
    rounds = plan_rounds(EDITS, {1: 1}, 1, seed=0)
    with pytest.raises(ValueError, match="NoEdit cannot forget"):
        forget_some(NoEdit(None), EDITS, rounds, FAMILIES, PROBING)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the same prompt"):
        forget_some(Notebook(KNOWN), [*EDITS, EDITS[0]], rounds, FAMILIES, PROBING)
