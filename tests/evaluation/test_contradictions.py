"""Contradicting edits: which pairs are made, and whose answer is counted."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from fake_editors import Notebook

from palimpsest.evaluation.contradictions import (
    EARLIER,
    ELSE,
    LATER,
    ORIGINAL,
    OTHER,
    SAME,
    contradict,
    contradictions,
    summarize_contradictions,
)
from palimpsest.evaluation.editing import Probing
from palimpsest.facts import Edit

EDITS = [
    Edit(str(n), f"s{n}", f"s{n} is", f"new{n}", (f"old{n}",), "P1", (f"what is s{n}? It is", f"all know s{n} to be"))
    for n in range(6)
]
OTHERS = [Edit("9", "z", "z is", "other", ("old",), "P1"), Edit("8", "y", "y is", "wrong kind", ("old",), "P2")]


class Literal(Notebook):
    """Knows only the prompts it was told, word by word, and what it said before of all others."""

    def apply(self, edits: Sequence[Edit]) -> None:
        super().apply(edits)
        self.told |= {edit.prompt: edit.target_new for edit in edits}

    def answer(self, prompt: str) -> str:
        return self.told.get(prompt, next((said for name, said in self.knows.items() if name in prompt), "nothing"))


def test_pairs_are_of_one_relation_and_in_the_same_and_other_words_in_turn() -> None:
    pairs = contradictions([OTHERS[0], *EDITS], [*EDITS, *OTHERS], 4, seed=0)
    assert [pair.first for pair in pairs] == EDITS[:4]  # the one without paraphrases is passed over
    assert [pair.wording for pair in pairs] == [SAME, OTHER] * 2
    for pair in pairs:
        assert pair.second.prompt == (pair.first.prompt if pair.wording == SAME else pair.first.paraphrases[0])
        assert pair.second.target_new not in (pair.first.target_new, *pair.first.target_true, "wrong kind")
        assert pair.second.subject == pair.first.subject
    assert pairs == contradictions([OTHERS[0], *EDITS], [*EDITS, *OTHERS], 4, seed=0)
    assert contradictions(EDITS[:1], EDITS[:1], 4, seed=0) == []  # no other answer


def test_the_later_edit_wins_where_it_is_recognised() -> None:
    pairs = contradictions(EDITS, EDITS, 6, seed=0)
    rows = contradict(Notebook({}), pairs, Probing())
    assert {row["says"] for row in rows} == {LATER}
    assert [row["asked"] for row in rows] == ["first", "third", "first", "second", "third"] * 3
    editor = Literal({edit.subject: edit.target_true[0] for edit in EDITS[:-1]})
    outcomes = {(row["wording"], row["asked"], row["says"]) for row in contradict(editor, pairs[:4], Probing())}
    assert outcomes == {
        (SAME, "first", LATER),
        (SAME, "third", ORIGINAL),
        (OTHER, "first", EARLIER),
        (OTHER, "second", LATER),
        (OTHER, "third", ORIGINAL),
    }
    assert {row["says"] for row in contradict(editor, pairs[5:], Probing())} == {EARLIER, LATER, ELSE}
    assert editor.told == {}


def test_all_first_edits_are_made_before_the_second_ones() -> None:
    editor = Notebook({})
    contradict(editor, contradictions(EDITS, EDITS, 3, seed=0), Probing())
    assert [cases for name, cases in editor.calls if name == "apply"] == [["0"], ["1"], ["2"], ["0"], ["1"], ["2"]]


def test_shares_add_up_to_one() -> None:
    rows = [
        {"case_id": str(n), "wording": SAME, "asked": "first", "says": LATER if n < 3 else EARLIER} for n in range(4)
    ]
    table = summarize_contradictions(rows).set_index("says")
    assert table["value"].to_dict() == {LATER: 0.75, EARLIER: 0.25, ORIGINAL: 0.0, ELSE: 0.0}
    assert table["value"].sum() == pytest.approx(1)
    assert set(table["n"]) == {4}
