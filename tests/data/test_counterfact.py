from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palimpsest.data.counterfact import read_edits, write_edits, write_flat_edits
from palimpsest.facts import DataError, Edit, Probe


def rome() -> dict[str, Any]:
    return {
        "case_id": 3,
        "pararel_idx": 2796,
        "requested_rewrite": {
            "prompt": "The mother tongue of {} is",
            "relation_id": "P103",
            "target_new": {"str": "English", "id": "Q1860"},
            "target_true": {"str": "French", "id": "Q150"},
            "subject": "Danielle Darrieux",
        },
        "paraphrase_prompts": ["Danielle Darrieux, a native"],
        "neighborhood_prompts": ["The native language of Montesquieu is", "Michel Rocard is a native speaker of"],
        "attribute_prompts": ["J.R.R. Tolkien is a native speaker of"],
        "generation_prompts": ["Danielle Darrieux's mother tongue is"],
    }


def flat() -> dict[str, Any]:
    return {
        "case_id": 4,
        "prompt": "The twin city of Lyon is",
        "target_new": "Manila",
        "subject": "Lyon",
        "ground_truth": "Beirut",
        "rephrase_prompt": "Lyon is twinned with",
        "locality_prompt": "The twin city of Trieste is",
        "locality_ground_truth": "Graz",
    }


EDIT = Edit(
    case_id="3",
    subject="Danielle Darrieux",
    prompt="The mother tongue of Danielle Darrieux is",
    target_new="English",
    target_true=("French",),
    relation="P103",
    paraphrases=("Danielle Darrieux, a native",),
    neighbors=(
        Probe("The native language of Montesquieu is", "French"),
        Probe("Michel Rocard is a native speaker of", "French"),
    ),
    attribute_prompts=("J.R.R. Tolkien is a native speaker of",),
    generation_prompts=("Danielle Darrieux's mother tongue is",),
)
FLAT_EDIT = Edit(
    case_id="4",
    subject="Lyon",
    prompt="The twin city of Lyon is",
    target_new="Manila",
    target_true=("Beirut",),
    paraphrases=("Lyon is twinned with",),
    neighbors=(Probe("The twin city of Trieste is", "Graz"),),
)


def read(folder: Path, *records: object) -> list[Edit]:
    path = folder / "edits.json"
    path.write_text(json.dumps(records), encoding="utf-8")
    return read_edits(path)


def test_romes_form_by_hand(tmp_path: Path) -> None:
    assert read(tmp_path, rome()) == [EDIT]


def test_portability_is_our_extension(tmp_path: Path) -> None:
    record = rome() | {"portability": [{"prompt": "Her compatriots speak", "answer": "English", "before": "French"}]}
    (edit,) = read(tmp_path, record)
    assert edit.portability == (Probe("Her compatriots speak", "English", "French"),)


@pytest.mark.parametrize("target", [{"str": "English", "id": None}, {"str": "English"}])
def test_ids_of_targets_may_be_null_or_absent(tmp_path: Path, target: dict[str, Any]) -> None:
    record = rome()
    record["requested_rewrite"]["target_new"] = target
    assert read(tmp_path, record) == [EDIT]


def test_easyedits_form_by_hand(tmp_path: Path) -> None:
    assert read(tmp_path, flat()) == [FLAT_EDIT]


def test_without_case_ids_records_are_numbered(tmp_path: Path) -> None:
    records = [{key: value for key, value in flat().items() if key != "case_id"}] * 2
    assert [edit.case_id for edit in read(tmp_path, *records)] == ["0", "1"]


def test_an_empty_file_has_no_edits(tmp_path: Path) -> None:
    assert read(tmp_path) == []


@pytest.mark.parametrize(
    ("records", "problem"),
    [
        ([rome(), flat()], "record 1 (case_id 4): requested_rewrite: expected, but missing from {"),
        ([flat(), rome()], "record 1 (case_id 3): prompt: expected, but missing from {"),
        ([{"src": "?"}], "record 0: expected 'requested_rewrite' (ROME's form) or 'prompt' (EasyEdit's form)"),
        ([3], "record 0: expected 'requested_rewrite' (ROME's form) or 'prompt' (EasyEdit's form)"),
        ([rome(), rome()], "record 1: case_id: expected another than record 0's, found '3'"),
        ([rome(), rome() | {"case_id": "3"}], "record 1: case_id: expected another than record 0's, found '3'"),
        ([rome() | {"paraphrase_prompts": "one"}], "record 0 (case_id 3): paraphrase_prompts: expected a valid list"),
        ([flat() | {"ground_truth": ""}], "record 0 (case_id 4): ground_truth: expected text that is not blank"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, records: list[object], problem: str) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, *records)
    assert str(caught.value).startswith(f"{tmp_path / 'edits.json'}: {problem}")


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("prompt", "The mother tongue is", "prompt: expected {} once, for the subject, found 'The mother tongue is'"),
        ("prompt", "{} and {}", "prompt: expected {} once, for the subject, found '{} and {}'"),
        ("subject", "", "subject: expected text that is not blank, found ''"),
        ("target_new", {"str": " ", "id": None}, "target_new.str: expected text that is not blank, found ' '"),
        ("target_true", {"id": "Q1"}, "target_true.str: expected, but missing from {'id': 'Q1'}"),
    ],
)
def test_rewrites_that_cannot_be_used(tmp_path: Path, key: str, value: object, problem: str) -> None:
    record = rome()
    record["requested_rewrite"][key] = value
    with pytest.raises(DataError) as caught:
        read(tmp_path, record)
    assert str(caught.value).startswith(f"{tmp_path / 'edits.json'}: record 0 (case_id 3): requested_rewrite.{problem}")


CHARACTERS = st.characters(categories=("L", "N", "P", "S", "Zs"))
TEXT = st.text(CHARACTERS, min_size=1, max_size=8).filter(str.strip) | st.sampled_from(["{x}", "a {", "}"])
PROMPTS = st.lists(TEXT, max_size=2).map(tuple)


@st.composite
def edits(draw: st.DrawFn, flat: bool) -> Edit:
    subject, true = draw(TEXT), draw(TEXT)
    edit = Edit(
        case_id=draw(st.integers(0, 10**6).map(str) | TEXT),
        subject=subject,
        prompt=draw(TEXT) + subject + draw(TEXT),
        target_new=draw(TEXT),
        target_true=(true,),
        paraphrases=(draw(TEXT),),
        neighbors=(Probe(draw(TEXT), draw(TEXT) if flat else true),),
    )
    if flat:
        return edit
    probes = st.lists(st.builds(Probe, TEXT, TEXT, st.none() | TEXT), max_size=2).map(tuple)
    return dataclasses.replace(
        edit,
        relation=draw(st.none() | st.just("P17")),
        paraphrases=draw(PROMPTS),
        neighbors=tuple(Probe(prompt, true) for prompt in draw(PROMPTS)),
        attribute_prompts=draw(PROMPTS),
        generation_prompts=draw(PROMPTS),
        portability=draw(probes),
    )


def templatable(edit: Edit) -> bool:
    return edit.prompt.replace(edit.subject, "{}", 1).count("{}") == 1


@settings(deadline=None, max_examples=50)
@given(st.lists(edits(flat=False).filter(templatable), max_size=4, unique_by=lambda edit: edit.case_id))
def test_romes_form_round_trips(tmp_path_factory: pytest.TempPathFactory, values: list[Edit]) -> None:
    path = tmp_path_factory.mktemp("rome") / "edits.json"
    assert write_edits(path, iter(values)) == len(values)
    assert read_edits(path) == values


@settings(deadline=None, max_examples=50)
@given(st.lists(edits(flat=True), max_size=4, unique_by=lambda edit: edit.case_id))
def test_easyedits_form_round_trips(tmp_path_factory: pytest.TempPathFactory, values: list[Edit]) -> None:
    path = tmp_path_factory.mktemp("flat") / "edits.json"
    assert write_flat_edits(path, iter(values)) == len(values)
    assert read_edits(path) == values


def test_written_records_are_romes(tmp_path: Path) -> None:
    path = tmp_path / "edits.json"
    write_edits(path, [EDIT])
    (record,) = json.loads(path.read_text(encoding="utf-8"))
    expected = rome()
    del expected["pararel_idx"]
    for target in ("target_new", "target_true"):
        expected["requested_rewrite"][target]["id"] = None
    assert record == expected


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"prompt": "Her mother tongue is"}, "requested_rewrite.prompt: expected {} once, for the subject"),
        ({"prompt": "{} Danielle Darrieux"}, "requested_rewrite.prompt: expected {} once, for the subject"),
        ({"target_true": ("French", "Breton")}, "this format cannot hold its target_true"),
        ({"target_true": ()}, "requested_rewrite.target_true.str: expected text that is not blank"),
        ({"neighbors": (Probe("Montesquieu spoke", "Latin"),)}, "this format cannot hold its neighbors"),
        ({"target_new": ""}, "requested_rewrite.target_new.str: expected text that is not blank"),
    ],
)
def test_romes_form_refuses_what_it_cannot_hold(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    path = tmp_path / "edits.json"
    with pytest.raises(DataError) as caught:
        write_edits(path, [EDIT, dataclasses.replace(EDIT, case_id="9", **changes)])
    assert str(caught.value).startswith(f"{path}: record 1 (case_id 9): {problem}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"relation": "P190", "generation_prompts": ("Lyon",)},
            "this format cannot hold its relation, generation_prompts",
        ),
        ({"paraphrases": ()}, "rephrase_prompt: expected text that is not blank"),
        ({"paraphrases": ("a", "b")}, "this format cannot hold its paraphrases"),
        ({"neighbors": ()}, "locality_prompt: expected text that is not blank"),
    ],
)
def test_easyedits_form_refuses_what_it_cannot_hold(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    path = tmp_path / "edits.json"
    with pytest.raises(DataError) as caught:
        write_flat_edits(path, [dataclasses.replace(FLAT_EDIT, **changes)])
    assert str(caught.value).startswith(f"{path}: record 0 (case_id 4): {problem}")


def test_two_edits_of_one_name_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="record 1: case_id: expected another than record 0's, found '3'"):
        write_edits(tmp_path / "edits.json", [EDIT, EDIT])
    assert list(tmp_path.iterdir()) == []


def test_real_edits_in_full(samples: Path, tmp_path: Path) -> None:
    """EasyEdit's published file against a computation on the plain JSON, and through ROME's form and back."""
    path = samples / "counterfact_easyedit.json"
    plain = json.loads(path.read_text(encoding="utf-8"))
    real = read_edits(path)

    assert len(real) == len(plain) == 10_000
    assert [edit.case_id for edit in real] == [str(record["case_id"]) for record in plain]
    assert {(edit.subject, edit.prompt, edit.target_new) for edit in real} == {
        (record["subject"], record["prompt"], record["target_new"]) for record in plain
    }
    assert [edit.neighbors[0].prompt for edit in real] == [record["locality_prompt"] for record in plain]
    assert all(edit.prompt.count(edit.subject) == 1 and edit.target_new not in edit.target_true for edit in real)

    for write in (write_flat_edits, write_edits):
        assert write(tmp_path / "again.json", real) == 10_000
        assert read_edits(tmp_path / "again.json") == real
