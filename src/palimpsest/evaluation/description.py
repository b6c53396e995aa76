"""What a prepared data set contains: counts for tables and figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import pandas as pd

from palimpsest.data.prepared import PreparedData
from palimpsest.facts import Document, Edit

MEASURES = {
    "sentences": lambda page: len(page.sentences),
    "words": lambda page: sum(map(len, page.sentences)),
    "entities": lambda page: len(page.entities),
    "mentions": lambda page: sum(len(entity.mentions) for entity in page.entities),
    "facts": lambda page: len(page.facts),
}


def relation_counts(documents: Mapping[str, Sequence[Document]], labels: Mapping[str, str]) -> pd.DataFrame:
    """How many facts of each relation a split states: columns ``split``, ``relation``, ``label``, ``count``."""
    rows = []
    for split, pages in documents.items():
        counts = Counter(fact.relation for page in pages for fact in page.facts)
        rows += [
            {"split": split, "relation": pid, "label": labels[pid], "count": count}
            for pid, count in counts.most_common()
        ]
    return pd.DataFrame(rows)


def document_sizes(documents: Mapping[str, Sequence[Document]]) -> pd.DataFrame:
    """Histograms of document sizes: columns ``split``, ``measure``, ``value``, ``count`` (documents)."""
    rows = []
    for split, pages in documents.items():
        for measure, of in MEASURES.items():
            counts = Counter(of(page) for page in pages)
            rows += [
                {"split": split, "measure": measure, "value": value, "count": count}
                for value, count in sorted(counts.items())
            ]
    return pd.DataFrame(rows)


def edit_counts(data: PreparedData) -> pd.DataFrame:
    """How many edits, questions and recall facts there are: columns ``kind``, ``split``, ``what``, ``count``."""
    readers = {"edits": data.edits, "questions": data.questions, "recall": data.recall}
    rows = []
    for kind, read in readers.items():
        for split in data.splits(kind):
            rows += [
                {"kind": kind, "split": split, "what": what, "count": n} for what, n in _parts(read(split)).items()
            ]
    return pd.DataFrame(rows)


def _parts(edits: Sequence[Edit]) -> dict[str, int]:
    return {
        "records": len(edits),
        "subjects": len({edit.subject for edit in edits}),
        "paraphrases": sum(len(edit.paraphrases) for edit in edits),
        "neighbours": sum(len(edit.neighbors) for edit in edits),
        "two-hop questions": sum(len(edit.portability) for edit in edits),
    }


def names(documents: Sequence[Document]) -> set[str]:
    """The names of people, places, organisations and works that documents mention (no dates, no quantities)."""
    return {
        mention.name
        for page in documents
        for entity in page.entities
        if entity.type not in ("TIME", "NUM")
        for mention in entity.mentions
    }


def headline(data: PreparedData, documents: Mapping[str, Sequence[Document]]) -> dict[str, object]:
    """The figures of the data set: how many documents, facts and names, and how many names train and test share."""
    known = {split: names(pages) for split, pages in documents.items()}
    return {
        "documents": {split: len(pages) for split, pages in documents.items()},
        "facts": {split: sum(len(page.facts) for page in pages) for split, pages in documents.items()},
        "names": {split: len(found) for split, found in known.items()},
        "names_shared_by_train_and_test": len(known["train"] & known["test"]),
        "text_chunks": {split: sum(1 for _ in data.text(split)) for split in data.splits("text")},
        "edits": {split: len(data.edits(split)) for split in data.splits("edits")},
        "questions": {split: len(data.questions(split)) for split in data.splits("questions")},
    }
