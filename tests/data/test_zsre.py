from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palimpsest.data.zsre import read_questions, write_questions
from palimpsest.facts import DataError, Edit, Probe


def raw() -> dict[str, Any]:
    return {
        "subject": "Munich",
        "src": "Who was the head of government of Munich?",
        "pred": "Bruno Granier",
        "rephrase": "Who was the director of Munich?",
        "alt": "Claude Monet",
        "answers": ["Dieter Reiter", "Christian Ude"],
        "loc": "nq question: who made the song i like to move it",
        "loc_ans": "Reel 2 Real",
        "cond": "Bruno Granier >> Claude Monet || Who was the head of government of Munich?",
    }


EDIT = Edit(
    case_id="0",
    subject="Munich",
    prompt="Who was the head of government of Munich?",
    target_new="Claude Monet",
    target_true=("Dieter Reiter", "Christian Ude"),
    paraphrases=("Who was the director of Munich?",),
    neighbors=(Probe("who made the song i like to move it", "Reel 2 Real"),),
)


def read(folder: Path, *records: object) -> list[Edit]:
    path = folder / "zsre.json"
    path.write_text(json.dumps(records), encoding="utf-8")
    return read_questions(path)


def test_a_question_by_hand(tmp_path: Path) -> None:
    assert read(tmp_path, raw()) == [EDIT]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"alt": " Claude Monet"}, {}),
        ({"answers": ["Dieter Reiter ", "Christian Ude"]}, {}),
        ({"rephrase": ""}, {"paraphrases": ()}),
        ({"loc": "who made it"}, {"neighbors": (Probe("who made it", "Reel 2 Real"),)}),
        ({"subject": "Rome"}, {"subject": "Rome"}),
        ({"alt": "Christian Ude"}, {"target_new": "Christian Ude"}),
        ({"case_id": 12}, {"case_id": "12"}),
    ],
)
def test_odd_records_that_can_be_used(tmp_path: Path, changes: dict[str, Any], expected: dict[str, Any]) -> None:
    assert read(tmp_path, raw() | changes) == [dataclasses.replace(EDIT, **expected)]


def test_an_empty_alt_is_left_out_and_the_others_keep_their_numbers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        edits = read(tmp_path, raw() | {"alt": ""}, raw())
    assert edits == [dataclasses.replace(EDIT, case_id="1")]
    assert caplog.messages == [f"{tmp_path / 'zsre.json'}: left out 1 of 2 records: alt is empty"]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"src": ""}, "src: expected text that is not blank, found ''"),
        ({"subject": " "}, "subject: expected text that is not blank, found ' '"),
        ({"alt": None}, "alt: expected a valid string, found None"),
        ({"answers": []}, "answers: List should have at least 1 item after validation, not 0, found []"),
        ({"answers": ["a", ""]}, "answers[1]: expected text that is not blank, found ''"),
        ({"answers": "a"}, "answers: expected a valid list, found 'a'"),
        ({"loc": "nq question: "}, "loc: expected a question, found 'nq question: '"),
        ({"loc_ans": ""}, "loc_ans: expected text that is not blank, found ''"),
    ],
)
def test_records_that_cannot_be_used(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, raw(), raw() | changes)
    assert str(caught.value) == f"{tmp_path / 'zsre.json'}: record 1: {problem}"


TEXT = st.text(st.characters(categories=("L", "N", "P", "S", "Zs")), max_size=8).map(str.strip).filter(bool)
EDITS = st.builds(
    Edit,
    case_id=TEXT,
    subject=TEXT,
    prompt=TEXT,
    target_new=TEXT,
    target_true=st.lists(TEXT, min_size=1, max_size=3).map(tuple),
    paraphrases=st.lists(TEXT, max_size=1).map(tuple),
    neighbors=st.builds(Probe, TEXT, TEXT).map(lambda probe: (probe,)),
)


@settings(deadline=None, max_examples=50)
@given(st.lists(EDITS, max_size=4))
def test_questions_round_trip(tmp_path_factory: pytest.TempPathFactory, values: list[Edit]) -> None:
    path = tmp_path_factory.mktemp("zsre") / "zsre.json"
    assert write_questions(path, iter(values)) == len(values)
    assert read_questions(path) == values


def test_written_records_are_mends(tmp_path: Path) -> None:
    path = tmp_path / "zsre.json"
    write_questions(path, [EDIT])
    (record,) = json.loads(path.read_text(encoding="utf-8"))
    cond = "Dieter Reiter >> Claude Monet || Who was the head of government of Munich?"
    assert record == raw() | {"case_id": 0, "pred": "Dieter Reiter", "cond": cond}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"relation": "P6"}, "this format cannot hold its relation"),
        ({"target_new": " Claude"}, "this format cannot hold its target_new"),
        ({"target_new": ""}, "alt: expected text that is not blank, found ''"),
        ({"paraphrases": ("a", "b")}, "this format cannot hold its paraphrases"),
        ({"neighbors": ()}, "loc_ans: expected text that is not blank, found ''"),
    ],
)
def test_what_cannot_be_read_is_not_written(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    path = tmp_path / "zsre.json"
    with pytest.raises(DataError) as caught:
        write_questions(path, [dataclasses.replace(EDIT, **changes)])
    assert str(caught.value).startswith(f"{path}: record 0 (case_id 0): {problem}")
    assert list(tmp_path.iterdir()) == []


def test_real_questions_in_full(samples: Path, tmp_path: Path) -> None:
    """A published sample against a computation on the plain JSON."""
    path = samples / "zsre_mend_1k.json"
    plain = json.loads(path.read_text(encoding="utf-8"))
    real = read_questions(path)

    assert len(plain) == 1_000
    kept = [index for index, record in enumerate(plain) if record["alt"]]
    assert len(kept) == 998
    assert [edit.case_id for edit in real] == [str(index) for index in kept]
    for edit, index in zip(real, kept, strict=True):
        record = plain[index]
        assert (edit.subject, edit.prompt, edit.target_new) == (record["subject"], record["src"], record["alt"].strip())
        assert edit.target_true == tuple(record["answers"])
        assert edit.paraphrases == (record["rephrase"],)
        assert record["loc"] == "nq question: " + edit.neighbors[0].prompt
        assert edit.subject in edit.prompt

    assert write_questions(tmp_path / "again.json", real) == 998
    assert read_questions(tmp_path / "again.json") == real
