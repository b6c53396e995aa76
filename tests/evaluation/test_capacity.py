"""Growing numbers of edits: what is made when, what is asked, and what an editor that forgets the oldest retains."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from fake_editors import Notebook

from palimpsest.evaluation.capacity import BATCH, SEQUENCE, UNRELATED, drawn, known_facts, retention
from palimpsest.evaluation.editing import Probing, summarize
from palimpsest.evaluation.editing_runs import RowFiles
from palimpsest.evaluation.statistics import share
from palimpsest.facts import Edit

EDITS = [
    Edit(str(n), f"S{n:02}", f"S{n:02} is", f"new{n}", (f"old{n}",), paraphrases=(f"Is S{n:02}", f"So S{n:02} is"))
    for n in range(16)
]
FACTS = [
    Edit("0", "U0", "U0 is", "-", ("right", "just")),
    Edit("1", "U1", "U1 is", "-", ("right",)),
    Edit("2", "U2", "U2 is", "-", ("right",)),
    Edit("3", "S03", "S03 was", "-", ("old3",)),
]
KNOWN = {edit.subject: edit.target_true[0] for edit in EDITS} | {"U0": "just", "U1": "wrong", "U2": "right"}
PROBING = Probing(kinds=("edit", "paraphrase"))


def test_known_facts_are_answered_and_are_about_nobody_who_is_edited() -> None:
    known = known_facts(Notebook(KNOWN), FACTS, EDITS, PROBING)
    assert {(question.case_id, question.prompt, question.answer): said for question, said in known.items()} == {
        ("0", "U0 is", "just"): "just",
        ("2", "U2 is", "right"): "right",
    }
    assert {question.rivals for question in known} == {()}


def made(editor: Notebook) -> list[int]:
    """How many edits each call made; -1 where all were taken back."""
    return [len(cases) if name == "apply" else -1 for name, cases in editor.calls]


@pytest.mark.parametrize(("mode", "calls"), [(BATCH, [-1, -1, 1, -1, 4, -1, 16, -1]), (SEQUENCE, [-1, *[1] * 16, -1])])
def test_edits_are_made_at_once_or_one_by_one(mode: str, calls: list[int]) -> None:
    editor = Notebook(KNOWN, capacity=8)
    known = known_facts(editor, FACTS, EDITS, PROBING)
    rows = retention(
        editor, EDITS, PROBING, known, unrelated=list(known), counts=(16, 1, 4, 99), mode=mode, limit=100, seed=0
    )
    assert made(editor) == calls
    figures = {
        (edits, kind, protocol): (value, n)
        for edits, kind, protocol, value, n in summarize(rows)[
            ["edits", "kind", "protocol", "value", "n"]
        ].itertuples(index=False)
    }  # fmt: skip
    for kind in ("edit", "paraphrase"):
        for protocol in ("success_mean", "exact"):
            assert figures[1, kind, protocol] == (1.0, 1)
            assert figures[4, kind, protocol] == (1.0, 4)
            assert figures[16, kind, protocol] == (0.5, 16)  # it remembers eight
    assert {figures[count, UNRELATED, protocol] for count in (1, 4, 16) for protocol in ("exact", "unchanged")} == {
        (1.0, 2)
    }
    assert {row["phase"] for row in rows} == {"after_last"}


class Drowning(Notebook):
    """Mixes everything up from ten edits on."""

    def answer(self, prompt: str) -> str:
        return "mud" if len(self.told) >= 10 else super().answer(prompt)


def test_unrelated_facts_are_counted_as_lost() -> None:
    editor = Drowning(KNOWN)
    known = known_facts(editor, FACTS, EDITS, PROBING)
    rows = retention(
        editor, EDITS, PROBING, known, unrelated=list(known), counts=(4, 16), mode=BATCH, limit=100, seed=0
    )
    table = summarize(rows).query(f"kind == '{UNRELATED}' and protocol == 'exact'").set_index("edits")
    assert table["value"].tolist() == [1.0, 0.0]
    interval = share([False, False])
    assert table.loc[16, ["low", "high", "n"]].tolist() == [interval.low, interval.high, 2]


def test_a_limit_draws_the_same_edits_each_time() -> None:
    editor = Notebook(KNOWN)
    rows = retention(editor, EDITS, PROBING, {}, unrelated=[], counts=(2, 16), mode=BATCH, limit=5, seed=1)
    asked = [row["case_id"] for row in rows if row["kind"] == "edit" and row["edits"] == 16]
    assert asked == [edit.case_id for edit in drawn(EDITS, 5, seed=1)]
    assert asked == sorted(asked, key=int)
    assert len(set(asked)) == 5
    assert sum(row["kind"] == "edit" and row["edits"] == 2 for row in rows) == 2
    assert drawn(EDITS, 5, seed=1) != drawn(EDITS, 5, seed=2)
    assert set(summarize(rows).query("edits == 16 and protocol == 'exact'")["n"]) == {5}


class Killed(Notebook):
    """Ends at the given edit."""

    def __init__(self, at: int) -> None:
        super().__init__(KNOWN, capacity=8)
        self.at = at

    def apply(self, edits: Sequence[Edit]) -> None:
        if len(self.told) == self.at:
            raise KeyboardInterrupt
        super().apply(edits)


def test_a_killed_sequence_makes_earlier_edits_again_and_asks_only_what_is_left(tmp_path: Path) -> None:
    given = {"unrelated": [], "counts": (2, 4, 12), "mode": SEQUENCE, "limit": 3, "seed": 0}
    whole = retention(Notebook(KNOWN, capacity=8), EDITS, PROBING, {}, **given)
    sink, killed = RowFiles(tmp_path, {}), Killed(at=6)
    with pytest.raises(KeyboardInterrupt):
        retention(killed, EDITS, PROBING, {}, sink=sink, **given)
    assert killed.told == {}
    editor = Notebook(KNOWN, capacity=8)
    assert retention(editor, EDITS, PROBING, {}, sink=sink, **given) == whole
    assert made(editor) == [-1, *[1] * 12, -1]
    assert len(editor.prompts) == 3 * 3  # three cases at the last number alone
    assert retention(Killed(at=0), EDITS, PROBING, {}, sink=sink, **given) == whole  # nothing is made


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="mode 'all': expected 'batch' or 'sequence'"):
        retention(Notebook({}), EDITS, PROBING, {}, unrelated=[], counts=(1,), mode="all", limit=1, seed=0)
