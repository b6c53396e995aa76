"""CounterFact's formats: counterfactual edits with paraphrases and neighbours.

*ROME's form*, nested, as published: ``{case_id, requested_rewrite: {prompt, relation_id, subject, target_new: {str,
id}, target_true: {str, id}}, paraphrase_prompts, neighborhood_prompts, attribute_prompts, generation_prompts}``. Its
prompt is a template with ``{}`` for the subject; its neighbours have the *true* target as their answer, by construction
of the data. Files of ours may add ``portability: [{prompt, answer, before}]``. Targets' Wikidata ids are ignored, and
written as null: an :class:`~palimpsest.facts.Edit` does not know them, and an invented id could be taken for real.

*EasyEdit's form*, flat: ``{case_id?, prompt, subject, target_new, ground_truth, rephrase_prompt, locality_prompt,
locality_ground_truth}``, with one paraphrase and one neighbour.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from palimpsest.data.records import CaseId, Record, Text, case_number, expect, parse_records, read_json, write_list
from palimpsest.facts import DataError, Edit, Probe


class TargetRecord(Record):
    text: Text = Field(alias="str")


class RewriteRecord(Record):
    prompt: Text
    relation_id: Text | None = None
    subject: Text
    target_new: TargetRecord
    target_true: TargetRecord


class PortabilityRecord(Record):
    prompt: Text
    answer: Text
    before: Text | None = None


class RomeRecord(Record):
    case_id: CaseId
    requested_rewrite: RewriteRecord
    paraphrase_prompts: list[Text]
    neighborhood_prompts: list[Text]
    attribute_prompts: list[Text] = Field(default_factory=list)
    generation_prompts: list[Text] = Field(default_factory=list)
    portability: list[PortabilityRecord] = Field(default_factory=list)


class FlatRecord(Record):
    case_id: CaseId | None = None
    prompt: Text
    subject: Text
    target_new: Text
    ground_truth: Text
    rephrase_prompt: Text
    locality_prompt: Text
    locality_ground_truth: Text


def read_edits(path: Path) -> list[Edit]:
    """Read edits in either form; the first record decides which, and all the others must have the same.

    Raises:
        DataError: the file or a record cannot be used, or two records have the same ``case_id``.
    """
    records = read_json(path, list)
    keys = set(records[0]) if records and isinstance(records[0], dict) else set()
    if "requested_rewrite" in keys:
        edits = parse_records(path, records, RomeRecord, _from_rome)
    elif "prompt" in keys or not records:
        edits = parse_records(path, records, FlatRecord, _from_flat)
    else:
        raise DataError(
            f"{path}: record 0: expected 'requested_rewrite' (ROME's form) or 'prompt' (EasyEdit's form) "
            f"among its keys, found {sorted(keys)}"
        )
    return list(_distinct(path, edits))


def write_edits(path: Path, edits: Iterable[Edit]) -> int:
    """Write edits in ROME's form, atomically, and return how many there were.

    Raises:
        DataError: this form cannot hold an edit: its prompt lacks the subject, it has not exactly one true target, or a
            neighbour's answer is not that target. Or two edits have the same ``case_id``.
    """
    return write_list(path, _distinct(path, edits), _to_rome, RomeRecord, _from_rome)


def write_flat_edits(path: Path, edits: Iterable[Edit]) -> int:
    """Write edits in EasyEdit's form, atomically, and return how many there were.

    Raises:
        DataError: this form cannot hold an edit: it has a relation, portability, attribute or generation prompts, or
            not exactly one true target, paraphrase and neighbour. Or two edits have the same ``case_id``.
    """
    return write_list(path, _distinct(path, edits), _to_flat, FlatRecord, _from_flat)


def _distinct(path: Path, edits: Iterable[Edit]) -> Iterator[Edit]:
    seen: dict[str, int] = {}
    for index, edit in enumerate(edits):
        first = seen.setdefault(edit.case_id, index)
        expect(first == index, f"{path}: record {index}: case_id", f"another than record {first}'s", edit.case_id)
        yield edit


def _from_rome(record: RomeRecord, _: int) -> Edit:
    rewrite = record.requested_rewrite
    expect(rewrite.prompt.count("{}") == 1, "requested_rewrite.prompt", "{} once, for the subject", rewrite.prompt)
    true = rewrite.target_true.text
    return Edit(
        case_id=record.case_id,
        subject=rewrite.subject,
        prompt=rewrite.prompt.replace("{}", rewrite.subject),
        target_new=rewrite.target_new.text,
        target_true=(true,),
        relation=rewrite.relation_id,
        paraphrases=tuple(record.paraphrase_prompts),
        neighbors=tuple(Probe(prompt, true) for prompt in record.neighborhood_prompts),
        attribute_prompts=tuple(record.attribute_prompts),
        generation_prompts=tuple(record.generation_prompts),
        portability=tuple(Probe(probe.prompt, probe.answer, probe.before) for probe in record.portability),
    )


def _to_rome(edit: Edit) -> dict[str, Any]:
    portability = [{"prompt": p.prompt, "answer": p.answer, "before": p.before} for p in edit.portability]
    return {
        "case_id": case_number(edit.case_id),
        "requested_rewrite": {
            "prompt": edit.prompt.replace(edit.subject, "{}", 1),
            "relation_id": edit.relation,
            "target_new": {"str": edit.target_new, "id": None},
            "target_true": {"str": next(iter(edit.target_true), ""), "id": None},
            "subject": edit.subject,
        },
        "paraphrase_prompts": list(edit.paraphrases),
        "neighborhood_prompts": [probe.prompt for probe in edit.neighbors],
        "attribute_prompts": list(edit.attribute_prompts),
        "generation_prompts": list(edit.generation_prompts),
    } | ({"portability": portability} if portability else {})


def _from_flat(record: FlatRecord, index: int) -> Edit:
    return Edit(
        case_id=str(index) if record.case_id is None else record.case_id,
        subject=record.subject,
        prompt=record.prompt,
        target_new=record.target_new,
        target_true=(record.ground_truth,),
        paraphrases=(record.rephrase_prompt,),
        neighbors=(Probe(record.locality_prompt, record.locality_ground_truth),),
    )


def _to_flat(edit: Edit) -> dict[str, Any]:
    neighbor = next(iter(edit.neighbors), Probe("", ""))
    return {
        "case_id": case_number(edit.case_id),
        "prompt": edit.prompt,
        "target_new": edit.target_new,
        "subject": edit.subject,
        "ground_truth": next(iter(edit.target_true), ""),
        "rephrase_prompt": next(iter(edit.paraphrases), ""),
        "locality_prompt": neighbor.prompt,
        "locality_ground_truth": neighbor.answer,
    }
