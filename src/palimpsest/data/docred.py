"""DocRED's format: documents with their entities and the relations between them (also Re-DocRED and the world).

``[{title, sents: [[token]], vertexSet: [[{name, pos, sent_id, type}]], labels: [{h, t, r, evidence}]}]``, and relation
names in a second file ``{P-id: label}``. The format gives each mention a type, which seldom differs within an entity
(for 9 of 9,684 in Re-DocRED's dev split); an entity has the type of its first mention. Keys that no reader here needs
(``global_pos``, ``index``) are ignored. A split without annotation has no ``labels``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from palimpsest.data.records import Record, Text, expect, parse_records, read_json, write_json, write_list
from palimpsest.facts import Document, Entity, Fact, Mention


class MentionRecord(Record):
    name: Text
    pos: Annotated[list[int], Field(min_length=2, max_length=2)]
    sent_id: int
    type: str


class LabelRecord(Record):
    h: int
    t: int
    r: Text
    evidence: list[int] = Field(default_factory=list)


class DocumentRecord(Record):
    title: str
    sents: list[list[str]]
    vertexSet: list[Annotated[list[MentionRecord], Field(min_length=1)]]
    labels: list[LabelRecord] = Field(default_factory=list)


def read_documents(path: Path, labels: Mapping[str, str] | None = None) -> list[Document]:
    """Read annotated documents.

    Args:
        path: a JSON file in DocRED's format.
        labels: relation names by P-id; where given, a fact with any other relation is an error.

    Raises:
        DataError: the file or a record cannot be used; mentions, facts and evidence must point into the document.
    """
    return parse_records(path, read_json(path, list), DocumentRecord, lambda record, _: _document(record, labels))


def write_documents(path: Path, documents: Iterable[Document]) -> int:
    """Write documents, in flat memory and atomically, and return how many there were.

    Raises:
        DataError: a document could not be read again, because something in it points outside it.
    """
    return write_list(path, documents, _record, DocumentRecord, lambda record, _: _document(record, None))


def read_relations(path: Path) -> dict[str, str]:
    """Read relation names, ``{P-id: label}``.

    Raises:
        DataError: the file cannot be used, a key is no P-id or a label is blank.
    """
    relations = read_json(path, dict)
    for relation, label in relations.items():
        usable = isinstance(label, str) and bool(label.strip())
        expect(relation[:1] == "P" and relation[1:].isdecimal(), f"{path}: key", 'a P-id such as "P17"', relation)
        expect(usable, f"{path}: {relation}", "a label that is not blank", label)
    return relations


def write_relations(path: Path, relations: Mapping[str, str]) -> None:
    """Write relation names, ``{P-id: label}``."""
    write_json(path, dict(relations))


def _document(record: DocumentRecord, labels: Mapping[str, str] | None) -> Document:
    lengths = [len(tokens) for tokens in record.sents]
    sentences, entities = f"a sentence number below {len(lengths)}", f"an entity number below {len(record.vertexSet)}"
    for e, mentions in enumerate(record.vertexSet):
        for m, mention in enumerate(mentions):
            field, (start, end) = f"vertexSet[{e}][{m}]", mention.pos
            expect(0 <= mention.sent_id < len(lengths), f"{field}.sent_id", sentences, mention.sent_id)
            length = lengths[mention.sent_id]
            expect(0 <= start < end <= length, f"{field}.pos", f"0 <= start < end <= {length}", mention.pos)
    for n, label in enumerate(record.labels):
        field = f"labels[{n}]"
        expect(0 <= label.h < len(record.vertexSet), f"{field}.h", entities, label.h)
        expect(0 <= label.t < len(record.vertexSet), f"{field}.t", entities, label.t)
        expect(labels is None or label.r in labels, f"{field}.r", "a relation that has a name", label.r)
        for sentence in label.evidence:
            expect(0 <= sentence < len(lengths), f"{field}.evidence", sentences, sentence)
    return Document(
        title=record.title,
        sentences=tuple(tuple(tokens) for tokens in record.sents),
        entities=tuple(
            Entity(tuple(Mention(m.name, m.sent_id, *m.pos) for m in mentions), mentions[0].type)
            for mentions in record.vertexSet
        ),
        facts=tuple(Fact(label.h, label.r, label.t, tuple(label.evidence)) for label in record.labels),
    )


def _record(document: Document) -> dict[str, Any]:
    return {
        "title": document.title,
        "sents": [list(tokens) for tokens in document.sentences],
        "vertexSet": [
            [
                {"name": m.name, "pos": [m.start, m.end], "sent_id": m.sentence, "type": entity.type}
                for m in entity.mentions
            ]
            for entity in document.entities
        ],
        "labels": [
            {"h": fact.head, "t": fact.tail, "r": fact.relation, "evidence": list(fact.evidence)}
            for fact in document.facts
        ],
    }
