"""ZsRE's format as MEND made it: questions with another answer, a rephrasing and an unrelated question.

``{subject, src, pred, rephrase, alt, answers, loc, loc_ans, cond}``. ``alt`` is the answer to be edited in, ``answers``
are the true ones, ``pred`` is what MEND's own base model answered (in the published data often not a true answer) and
``cond`` repeats the edit as text, ``pred >> alt || src``. The latter two describe one model, are not read, and are
written from the true answer. ``loc`` comes from Natural Questions, with a marker in front that is no part of it.

The published data have records whose ``alt`` is empty (2 of 1,000): nothing can be edited in, so they are left out,
as is the custom, and the others keep their numbers. In some ``alt`` begins with a space: answers are stripped. ``alt``
may be one of ``answers``, and a subject need not occur in its question: those records are used as they are.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from palimpsest.data.records import CaseId, Record, Text, case_number, expect, parse_records, read_json, write_list
from palimpsest.facts import Edit, Probe

log = logging.getLogger(__name__)

MARKER = "nq question: "


class QuestionRecord(Record):
    case_id: CaseId | None = None  # only in files of ours
    subject: Text
    src: Text
    rephrase: str
    alt: str
    answers: Annotated[list[Text], Field(min_length=1)]
    loc: Text
    loc_ans: Text


class EditableRecord(QuestionRecord):
    alt: Text


def read_questions(path: Path) -> list[Edit]:
    """Read questions as edits; ``case_id`` is a record's position in the file, unless the record has its own.

    Records whose ``alt`` is empty are left out (and their number logged). An empty ``rephrase`` is no paraphrase.

    Raises:
        DataError: the file or a record cannot be used.
    """
    records = read_json(path, list)
    edits = [edit for edit in parse_records(path, records, QuestionRecord, _edit) if edit.target_new]
    if len(edits) < len(records):
        log.warning("%s: left out %d of %d records: alt is empty", path, len(records) - len(edits), len(records))
    return edits


def write_questions(path: Path, edits: Iterable[Edit]) -> int:
    """Write edits as questions, atomically, and return how many there were.

    Raises:
        DataError: this form cannot hold an edit: it has a relation, portability, attribute or generation prompts, more
            than one paraphrase, not exactly one neighbour, or an answer that is empty or has spaces around it.
    """
    return write_list(path, edits, _record, EditableRecord, _edit)


def _edit(record: QuestionRecord, index: int) -> Edit:
    question = record.loc.removeprefix(MARKER)
    expect(bool(question.strip()), "loc", "a question", record.loc)
    return Edit(
        case_id=str(index) if record.case_id is None else record.case_id,
        subject=record.subject,
        prompt=record.src,
        target_new=record.alt.strip(),
        target_true=tuple(answer.strip() for answer in record.answers),
        paraphrases=(record.rephrase,) if record.rephrase.strip() else (),
        neighbors=(Probe(question, record.loc_ans),),
    )


def _record(edit: Edit) -> dict[str, Any]:
    true = next(iter(edit.target_true), "")
    neighbor = next(iter(edit.neighbors), Probe("", ""))
    return {
        "case_id": case_number(edit.case_id),
        "subject": edit.subject,
        "src": edit.prompt,
        "pred": true,
        "rephrase": next(iter(edit.paraphrases), ""),
        "alt": edit.target_new,
        "answers": list(edit.target_true),
        "loc": MARKER + neighbor.prompt,
        "loc_ans": neighbor.answer,
        "cond": f"{true} >> {edit.target_new} || {edit.prompt}",
    }
