"""Growing numbers of edits: what is made when, what is asked, and what an editor that forgets the oldest retains."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fake_editors import Notebook

from palimpsest.editors.editor import ReadingEditor
from palimpsest.evaluation.capacity import (
    BATCH,
    SEQUENCE,
    UNRELATED,
    Retention,
    headline,
    known_facts,
    retention,
)
from palimpsest.evaluation.editing import Probing, summarize
from palimpsest.evaluation.editing_runs import drawn
from palimpsest.evaluation.rows import RowFiles
from palimpsest.evaluation.statistics import share
from palimpsest.facts import Edit
from palimpsest.lm.scoring import TargetScore

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


def test_a_sequence_may_come_some_edits_at_a_time() -> None:
    editor = Notebook(KNOWN, capacity=8)
    ready: list[tuple[int, int]] = []
    rows = retention(
        editor, EDITS, PROBING, {}, unrelated=[], counts=(2, 9), mode=SEQUENCE, limit=100, seed=0, together=3,
        ready=lambda count: ready.append((count, len(editor.prompts))),
    )  # fmt: skip
    assert made(editor) == [-1, 2, 3, 3, 1, -1]
    assert ready == [(2, 0), (9, 6)]  # before anything is asked at a number
    single = retention(
        Notebook(KNOWN, capacity=8), EDITS, PROBING, {}, unrelated=[], counts=(2, 9), mode=SEQUENCE, limit=100, seed=0
    )  # fmt: skip
    assert rows == single


class Choosy(Notebook):
    """Knows its edits only while its threshold is that for their number."""

    threshold, scope = 0.5, "a detector"

    def answer(self, prompt: str) -> str:
        fitting = self.threshold == (len(self.told) / 100 if self.told else 0.5)
        return super().answer(prompt) if fitting else "nothing"


def test_at_each_number_of_edits_the_threshold_is_the_one_for_it() -> None:
    editor: Any = Choosy(KNOWN)
    known = known_facts(editor, FACTS, EDITS, PROBING)
    thresholds = {2: 0.02, 5: 0.05, 9: 0.1}
    made = Retention(edits=EDITS, probing=PROBING, limit=100, seed=0, together=4)
    table = made.table(editor, known, (2, 5, 9), SEQUENCE, thresholds)
    assert set(table["mode"]) == {SEQUENCE}
    found = headline(table, (2, 9))
    assert {name: (figure.value, figure.n) for name, figure in found[2].items()} == {
        "success": (1.0, 2), "paraphrase": (1.0, 2), "retained": (1.0, 2)
    }  # fmt: skip
    assert {name: figure.value for name, figure in found[9].items()} == {
        "success": 0.0, "paraphrase": 0.0, "retained": 0.0
    }  # fmt: skip
    assert headline(made.table(editor, {}, (2,), BATCH, {2: 0.02}), (2,))[2].keys() == {"success", "paraphrase"}


class Reading(Notebook, ReadingEditor[tuple[str, str | None]]):
    """Reads for a prompt what it was told, if it was; each prompt that it is asked is noted."""

    def read(self, prompts: Sequence[str]) -> list[tuple[str, str | None]]:
        touched = [any(subject in prompt for subject in self.told) for prompt in prompts]
        return [(prompt, self.answer(prompt) if told else None) for prompt, told in zip(prompts, touched, strict=True)]

    def score_read(self, readings: Sequence[tuple[str, str | None]], targets: Sequence[str]) -> list[TargetScore]:
        said = [self.knows.get(prompt.split()[0]) if read is None else read for prompt, read in readings]
        right = [answer == target for answer, target in zip(said, targets, strict=True)]
        return [TargetScore((0,), (-0.1 if it_is else -3.0,), (it_is,)) for it_is in right]

    def generate_read(self, readings: Sequence[tuple[str, str | None]], **_: Any) -> list[str]:
        self.prompts += [prompt for prompt, _ in readings]
        return [f" {self.knows.get(prompt.split()[0]) if read is None else read}" for prompt, read in readings]


def test_unrelated_facts_are_asked_again_only_where_something_is_read_for_them() -> None:
    facts = [Edit(name, name, f"{name} is", "-", (KNOWN.get(name, "-"),)) for name in ("U0", "U2", "S03")]
    rows = {}
    for editor in (Notebook(KNOWN), Reading(KNOWN)):
        known = known_facts(editor, facts, [], PROBING)
        assert len(known) == 3
        editor.prompts.clear()
        rows[type(editor)] = retention(
            editor, EDITS, PROBING, known, unrelated=list(known), counts=(2, 3, 8), mode=BATCH, limit=1, seed=0
        )
        asked = [prompt for prompt in editor.prompts if prompt in {"U0 is", "U2 is"}]
        assert len(asked) == (6 if type(editor) is Notebook else 2)
    assert rows[Reading] == rows[Notebook]
    lost = [(row["edits"], row["case_id"]) for row in rows[Reading] if row["kind"] == UNRELATED and not row["exact"]]
    assert lost == [(8, "S03")]  # which is edited then


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
