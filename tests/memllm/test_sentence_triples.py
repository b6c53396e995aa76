"""Which triples a sentence gives to store: by hand, and against a slow literal computation on real documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from palimpsest.data.docred import read_documents, read_relations
from palimpsest.facts import Document, Entity, Fact, Mention, Triple
from palimpsest.memllm.targets import sentence_triples

LABELS = {"P50": "author", "P17": "country", "P19": "place of birth"}
SENTENCES = (
    ("Dawn", "was", "written", "by", "Ann", "Lee", "."),
    (),
    ("In", "Oslo", "Lee", "was", "born", "."),
    ("It", "rained", "."),
    ("Oslo", "lies", "in", "Norway", "and", "Lee", "in", "Oslo", "."),
)
DAWN = Entity((Mention("Dawn", 0, 0, 1),), "MISC")
# Listed out of order: the name is the one that stands first in the text.
ANN = Entity((Mention("Lee", 4, 5, 6), Mention("Lee", 2, 2, 3), Mention("Ann Lee", 0, 4, 6)), "PER")
OSLO = Entity((Mention("Oslo", 2, 1, 2), Mention("Oslo", 4, 0, 1), Mention("Oslo", 4, 7, 8)), "LOC")
NORWAY = Entity((Mention("Norway", 4, 3, 4),), "LOC")
WRITTEN = Triple("Dawn", "author", "Ann Lee")
BORN = Triple("Ann Lee", "place of birth", "Oslo")
LIES = Triple("Oslo", "country", "Norway")
NATIVE = Triple("Ann Lee", "country", "Norway")


def triples(*facts: Fact, entities: tuple[Entity, ...] = (DAWN, ANN, OSLO, NORWAY)) -> list[list[Triple]]:
    return sentence_triples(Document("Dawn", SENTENCES, entities, facts), LABELS)


def test_a_fact_belongs_to_each_sentence_that_names_one_end_when_both_are_known() -> None:
    assert triples(Fact(0, "P50", 1)) == [[WRITTEN], [], [WRITTEN], [], [WRITTEN]]
    assert triples(Fact(1, "P19", 2)) == [[], [], [BORN], [], [BORN]]
    assert triples(Fact(2, "P17", 3)) == [[], [], [], [], [LIES]]


def test_evidence_chooses_among_the_sentences() -> None:
    assert triples(Fact(0, "P50", 1, (2,))) == [[], [], [WRITTEN], [], []]
    assert triples(Fact(0, "P50", 1, (4, 0))) == [[WRITTEN], [], [], [], [WRITTEN]]
    # Of the evidence, a sentence before both are named, and one that names neither, do not count.
    assert triples(Fact(1, "P19", 2, (0, 3))) == [[], [], [], [], []]
    assert triples(Fact(1, "P19", 2, (0, 3, 4))) == [[], [], [], [], [BORN]]


def test_triples_stand_in_the_order_in_which_the_sentence_completes_them() -> None:
    # In the last sentence Oslo stands at 0 (and 7), Norway at 3, Lee at 5, Dawn nowhere.
    facts = [Fact(1, "P19", 2), Fact(1, "P17", 3), Fact(2, "P17", 3), Fact(0, "P50", 1)]
    expected = [LIES, BORN, NATIVE, WRITTEN]  # at 3; the others at 5, as annotated
    assert triples(*facts)[4] == expected
    assert triples(*facts)[2] == [BORN, WRITTEN]
    assert triples(*reversed(facts))[4] == [LIES, WRITTEN, NATIVE, BORN]


def test_a_triple_stands_once_where_it_is_first_completed() -> None:
    other_ann = Entity((Mention("Ann Lee", 2, 2, 3), Mention("Oslo", 4, 1, 2)), "PER")
    entities = (DAWN, ANN, OSLO, NORWAY, other_ann)
    # Two persons of one name: one is named at 5 of the last sentence, the other at 1.
    facts = Fact(1, "P19", 2), Fact(2, "P17", 3), Fact(4, "P19", 2)
    for order in (facts, facts[::-1]):
        assert triples(*order, entities=entities)[4] == [BORN, LIES]
    assert triples(Fact(0, "P50", 1), Fact(0, "P50", 1))[0] == [WRITTEN]


def test_a_document_without_facts_has_nothing_to_store() -> None:
    assert triples() == [[], [], [], [], []]
    assert sentence_triples(Document("", ()), {}) == []


def test_real_documents_against_a_literal_computation(samples: Path) -> None:
    labels = read_relations(samples / "wikidata_properties_en.json")
    path = samples / "redocred_dev_revised.json"
    documents, records = read_documents(path, labels), json.loads(path.read_text(encoding="utf-8"))
    found = [sentence_triples(document, labels) for document in documents]
    assert found == [
        [literal_triples(record, number, labels) for number in range(len(record["sents"]))] for record in records
    ]
    flat = [triple for sentences in found for triples in sentences for triple in triples]
    assert (len(documents), len(flat)) == (500, 25625)


def literal_triples(record: dict[str, Any], sentence: int, labels: dict[str, str]) -> list[Triple]:
    """Straight from the file: each fact by itself, sorted by the later of its ends, repetitions struck out."""
    rows = []
    for label in record["labels"]:
        ends = [record["vertexSet"][label["h"]], record["vertexSet"][label["t"]]]
        firsts = [min(end, key=lambda m: (m["sent_id"], m["pos"][0], -m["pos"][1])) for end in ends]
        if any(first["sent_id"] > sentence for first in firsts):
            continue
        here = [[m["pos"][0] for m in end if m["sent_id"] == sentence] for end in ends]
        if not (here[0] or here[1]) or (label["evidence"] and sentence not in label["evidence"]):
            continue
        place = max(min(places) for places in here if places)
        rows.append((place, Triple(firsts[0]["name"], labels[label["r"]], firsts[1]["name"])))
    rows.sort(key=lambda row: row[0])
    return list(dict.fromkeys(triple for _, triple in rows))
