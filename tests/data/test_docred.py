from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palimpsest.data.docred import read_documents, read_relations, write_documents, write_relations
from palimpsest.facts import DataError, Document, Entity, Fact, Mention, Triple, detokenize


def raw() -> dict[str, Any]:
    return {
        "title": "Rome",
        "sents": [["Rome", "is", "in", "Italy", "."], []],
        "vertexSet": [
            [{"name": "Rome", "pos": [0, 1], "sent_id": 0, "type": "LOC", "global_pos": [0, 0], "index": "0_0"}],
            [{"name": "Italy", "pos": [3, 4], "sent_id": 0, "type": "LOC"}],
        ],
        "labels": [{"h": 0, "t": 1, "r": "P17", "evidence": [0]}],
    }


def read_one(folder: Path, record: object, labels: dict[str, str] | None = None) -> Document:
    path = folder / "docs.json"
    path.write_text(json.dumps([record]), encoding="utf-8")
    (document,) = read_documents(path, labels)
    return document


def test_a_document_by_hand(tmp_path: Path) -> None:
    document = read_one(tmp_path, raw(), {"P17": "country"})
    assert document == Document(
        title="Rome",
        sentences=(("Rome", "is", "in", "Italy", "."), ()),
        entities=(Entity((Mention("Rome", 0, 0, 1),), "LOC"), Entity((Mention("Italy", 0, 3, 4),), "LOC")),
        facts=(Fact(0, "P17", 1, (0,)),),
    )
    assert document.triples({"P17": "country"}) == [Triple("Rome", "country", "Italy")]


def test_labels_and_evidence_may_be_absent(tmp_path: Path) -> None:
    record = raw()
    del record["labels"][0]["evidence"]
    assert read_one(tmp_path, record).facts == (Fact(0, "P17", 1),)
    del record["labels"]
    assert read_one(tmp_path, record).facts == ()


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        (("vertexSet", 1, 0, "sent_id"), 2, "vertexSet[1][0].sent_id: expected a sentence number below 2, found 2"),
        (("vertexSet", 1, 0, "sent_id"), -1, "vertexSet[1][0].sent_id: expected a sentence number below 2, found -1"),
        (("vertexSet", 1, 0, "sent_id"), 1, "vertexSet[1][0].pos: expected 0 <= start < end <= 0, found [3, 4]"),
        (("vertexSet", 0, 0, "pos"), [3, 3], "vertexSet[0][0].pos: expected 0 <= start < end <= 5, found [3, 3]"),
        (("vertexSet", 0, 0, "pos"), [-1, 3], "vertexSet[0][0].pos: expected 0 <= start"),
        (("vertexSet", 0, 0, "pos"), [4, 6], "vertexSet[0][0].pos: expected 0 <= start < end <= 5, found [4, 6]"),
        (("vertexSet", 0, 0, "pos"), [4], "vertexSet[0][0].pos: List should have at least 2 items"),
        (("vertexSet", 0), [], "vertexSet[0]: List should have at least 1 item"),
        (("labels", 0, "h"), 2, "labels[0].h: expected an entity number below 2, found 2"),
        (("labels", 0, "t"), -1, "labels[0].t: expected an entity number below 2, found -1"),
        (("labels", 0, "t"), "1", "labels[0].t: expected a valid integer, found '1'"),
        (("labels", 0, "r"), "P18", "labels[0].r: expected a relation that has a name, found 'P18'"),
        (("labels", 0, "evidence"), [0, 2], "labels[0].evidence: expected a sentence number below 2, found 2"),
        (("sents", 0, 1), None, "sents[0][1]: expected a valid string, found None"),
    ],
)
def test_errors_name_file_record_and_field(tmp_path: Path, path: tuple[Any, ...], value: object, problem: str) -> None:
    record: Any = raw()
    inner = record
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(DataError) as caught:
        read_one(tmp_path, record, {"P17": "country"})
    assert str(caught.value).startswith(f"{tmp_path / 'docs.json'}: record 0 (title 'Rome'): {problem}")


TOKENS = st.lists(st.text(max_size=6), min_size=1, max_size=5)
WORDS = st.text(st.characters(categories=("L", "N", "P", "S", "Zs")), min_size=1, max_size=6).filter(str.strip)


@st.composite
def documents(draw: st.DrawFn) -> Document:
    sentences = draw(st.lists(TOKENS, min_size=1, max_size=4))

    def mention() -> Mention:
        number = draw(st.integers(0, len(sentences) - 1))
        start = draw(st.integers(0, len(sentences[number]) - 1))
        return Mention(draw(WORDS), number, start, draw(st.integers(start + 1, len(sentences[number]))))

    entities = [
        Entity(tuple(mention() for _ in range(draw(st.integers(1, 3)))), draw(st.sampled_from(["PER", "LOC"])))
        for _ in range(draw(st.integers(1, 4)))
    ]
    numbers = st.integers(0, len(entities) - 1)
    evidence = st.lists(st.integers(0, len(sentences) - 1), max_size=2).map(tuple)
    facts = draw(st.lists(st.builds(Fact, numbers, st.just("P17"), numbers, evidence), max_size=4))
    return Document(draw(st.text()), tuple(map(tuple, sentences)), tuple(entities), tuple(facts))


@settings(deadline=None, max_examples=50)
@given(st.lists(documents(), max_size=3))
def test_documents_survive_the_round_trip(tmp_path_factory: pytest.TempPathFactory, values: list[Document]) -> None:
    path = tmp_path_factory.mktemp("docred") / "docs.json"
    assert write_documents(path, iter(values)) == len(values)
    assert read_documents(path) == values


def test_what_cannot_be_read_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "docs.json"
    good = Document("good", (("a",),))

    def values() -> Iterator[Document]:
        yield good
        yield Document("bad", (("a",),), (Entity((Mention("a", 0, 0, 2),), "LOC"),))

    write_documents(path, [good])
    with pytest.raises(DataError, match=r"record 1 \(title 'bad'\): vertexSet\[0\]\[0\]\.pos: expected"):
        write_documents(path, values())
    assert read_documents(path) == [good]
    assert list(tmp_path.iterdir()) == [path]


def test_relations_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "relations.json"
    write_relations(path, {"P17": "country", "P50": "author"})
    assert read_relations(path) == {"P17": "country", "P50": "author"}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"P17": ""}, "P17: expected a label that is not blank, found ''"),
        ({"P17": 5}, "P17: expected a label that is not blank, found 5"),
        ({"country": "P17"}, "key: expected a P-id such as \"P17\", found 'country'"),
        (["P17"], "expected an object at the top level"),
    ],
)
def test_relations_that_cannot_be_used(tmp_path: Path, content: object, problem: str) -> None:
    path = tmp_path / "relations.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_relations(path)
    assert str(caught.value).startswith(f"{path}: {problem}")


def test_real_documents_in_full(samples: Path, tmp_path: Path) -> None:
    """The published development split against a computation on the plain JSON."""
    path = samples / "redocred_dev_revised.json"
    relations = read_relations(samples / "wikidata_properties_en.json")
    plain = json.loads(path.read_text(encoding="utf-8"))
    real = read_documents(path, relations)

    assert len(real) == 500
    assert len(relations) == 2407
    assert sum(len(document.entities) for document in real) == sum(len(d["vertexSet"]) for d in plain) == 9_684
    assert sum(len(e) for d in plain for e in d["vertexSet"]) == 13_189
    assert sum(len(document.facts) for document in real) == sum(len(d["labels"]) for d in plain) == 17_284
    for document, record in zip(real, plain, strict=True):
        names = [entity[0]["name"] for entity in record["vertexSet"]]
        expected = {(names[fact["h"]], relations[fact["r"]], names[fact["t"]]) for fact in record["labels"]}
        assert {(t.subject, t.relation, t.object) for t in document.triples(relations)} == expected
        found = sorted(document.text[slice(*document.span(mention))] for _, mention in document.mentions())
        joined = [
            "".join(record["sents"][m["sent_id"]][slice(*m["pos"])]) for entity in record["vertexSet"] for m in entity
        ]
        assert sorted(text.replace(" ", "") for text in found) == sorted(text.replace(" ", "") for text in joined)
        assert document.text == " ".join(detokenize(tokens)[0] for tokens in record["sents"])

    assert write_documents(tmp_path / "again.json", real) == 500
    assert read_documents(tmp_path / "again.json", relations) == real
