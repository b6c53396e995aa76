"""Target mentions: by hand on a small document, and against a slow literal computation on real documents."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from palimpsest.data.docred import read_documents, read_relations
from palimpsest.facts import Document, Entity, Fact, Mention, Query
from palimpsest.memllm.targets import AnswerCounts, read_targets

LABELS = {"P50": "author", "P17": "country", "P19": "place of birth"}
RULES = {"skip": ["(?, country, X)"], "max_results": 30, "max_queries": 3}


def page() -> Document:
    sentences = (
        ("Dawn", "was", "written", "by", "Ann", "Lee", "."),
        ("Lee", "was", "born", "in", "Oslo", "."),
        ("Oslo", "lies", "in", "Norway", "."),
        ("Ann", "Lee", "wrote", "Dusk", "."),
    )
    entities = (
        Entity((Mention("Dawn", 0, 0, 1),), "MISC"),
        Entity((Mention("Ann Lee", 0, 4, 6), Mention("Lee", 1, 0, 1), Mention("Ann Lee", 3, 0, 2)), "PER"),
        Entity((Mention("Oslo", 1, 4, 5), Mention("Oslo", 2, 0, 1)), "LOC"),
        Entity((Mention("Norway", 2, 3, 4),), "LOC"),
        Entity((Mention("Dusk", 3, 3, 4),), "MISC"),
    )
    facts = (Fact(0, "P50", 1), Fact(1, "P19", 2), Fact(2, "P17", 3), Fact(4, "P50", 1))
    return Document("Dawn", sentences, entities, facts)


def found(document: Document, **changes) -> list[tuple[str, list[Query]]]:
    rules = {**RULES, "results": lambda query: 1, **changes}
    return [(target.mention.name, list(target.queries)) for target in read_targets(document, LABELS, **rules)]


def test_by_hand() -> None:
    assert found(page()) == [
        ("Ann Lee", [Query("author", subject="Dawn")]),
        ("Oslo", [Query("place of birth", subject="Ann Lee"), Query("place of birth", subject="Lee")]),
        ("Norway", [Query("country", subject="Oslo")]),
        ("Dusk", [Query("author", object="Ann Lee"), Query("author", object="Lee")]),
    ]


def test_skipped_patterns_are_not_asked() -> None:
    names = [name for name, _ in found(page(), skip=["(X, country, ?)", "(?, author, X)"])]
    assert names == ["Ann Lee", "Oslo"]


def test_broad_queries_are_not_asked_and_narrow_ones_come_first() -> None:
    sizes = {Query("place of birth", subject="Ann Lee"): 5, Query("country", subject="Oslo"): 31}
    targets = dict(found(page(), results=lambda query: sizes.get(query, 1), max_queries=1))
    assert targets["Oslo"] == [Query("place of birth", subject="Lee")]
    assert "Norway" not in targets


def test_a_text_that_stands_above_is_no_target() -> None:
    document = page()
    again = Document("", (("Oslo", "is", "mentioned", "."), *document.sentences), *_moved(document))
    assert "Oslo" not in [name for name, _ in found(again)]


def _moved(document: Document) -> tuple[tuple[Entity, ...], tuple[Fact, ...]]:
    entities = tuple(
        Entity(tuple(Mention(m.name, m.sentence + 1, m.start, m.end) for m in entity.mentions), entity.type)
        for entity in document.entities
    )
    return entities, document.facts


def test_answers_are_counted_over_documents() -> None:
    counts = AnswerCounts([page()], LABELS)
    assert counts(Query("author", object="Lee")) == 2
    assert counts(Query("author", subject="Dawn")) == 2  # Ann Lee, Lee
    assert counts(Query("author", subject="Oslo")) == 0


def test_real_documents_against_a_literal_computation(samples: Path) -> None:
    labels = read_relations(samples / "wikidata_properties_en.json")
    documents = read_documents(samples / "redocred_dev_revised.json", labels)
    total = 0
    for document in documents:
        quick = [
            (target.entity, target.mention)
            for target in read_targets(
                document, labels, skip=[], results=lambda query: 1, max_results=30, max_queries=10**6
            )
        ]
        assert quick == literal_targets(document)
        total += len(quick)
    assert total > 2000


def literal_targets(document: Document) -> list[tuple[int, Mention]]:
    """Each relation is completed by the earlier-read of its entities' later first mentions; quadratic and plain."""
    order = list(document.mentions())
    first: dict[int, int] = {}
    for place, (entity, _) in enumerate(order):
        first.setdefault(entity, place)
    completed = defaultdict(list)
    for fact in document.facts:
        if fact.head != fact.tail:
            completed[max(first[fact.head], first[fact.tail])].append(fact)
    targets = []
    for place in sorted(completed):
        entity, mention = order[place]
        start, end = document.span(mention)
        if document.text.find(document.text[start:end]) + (end - start) > start:
            targets.append((entity, mention))
    return targets
