"""Write quality: how many of the facts that documents state were extracted, and how many of the triples are right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from palimpsest.evaluation.statistics import Interval, ratio
from palimpsest.facts import Document, Triple
from palimpsest.memllm.writing import SentenceWrite, confident

METRICS = {"precision": ("found", "written"), "recall": ("found", "facts"), "f1": ("both", "either")}


def extraction_counts(
    documents: Sequence[Document], labels: Mapping[str, str], writes: Sequence[SentenceWrite]
) -> pd.DataFrame:
    """One row a document: ``facts`` it states, triples ``written``, facts ``found`` and parts of calls ``rejected``.

    A triple is right if it names head and tail of an annotated fact as the document does, by any of their names, and
    its relation by its label. Triples that name one fact in several ways count once, and so do equal wrong ones.
    """
    rows = []
    for index, document in enumerate(documents):
        own = [write for write in writes if write.document == index]
        facts = _facts_by_name(document, labels)
        written = {facts.get(triple, triple) for write in own for triple in write.triples}
        stated = set(facts.values())
        rejected = sum(len(write.rejected) for write in own)
        rows.append((document.title, len(stated), len(written), len(written & stated), rejected))
    return pd.DataFrame(rows, columns=["document", "facts", "written", "found", "rejected"])


def extraction_quality(counts: pd.DataFrame) -> dict[str, Interval]:
    """Precision, recall and F1 (micro-averaged); documents are resampled for the intervals."""
    sums = counts.assign(both=2 * counts["found"], either=counts["written"] + counts["facts"])
    return {
        metric: ratio(sums[part], sums[whole]) if sums[whole].sum() else Interval(0.0, 0.0, 0.0, 0)
        for metric, (part, whole) in METRICS.items()
    }


def mistakes(documents: Sequence[Document], labels: Mapping[str, str], writes: Sequence[SentenceWrite]) -> pd.DataFrame:
    """The wrong triples.

    Returns:
        Columns ``document`` (title), ``sentence`` (its text), ``triple``, and ``wrong``: which of its parts differ from
        the fact of the document that is nearest to it.
    """
    rows = []
    for write in writes:
        document = documents[write.document]
        facts = _facts_by_name(document, labels)
        start, end = document.sentence_spans()[write.sentence]
        wrong = [triple for triple in write.triples if triple not in facts]
        rows += [(document.title, document.text[start:end], triple, _wrong(triple, list(facts))) for triple in wrong]
    return pd.DataFrame(rows, columns=["document", "sentence", "triple", "wrong"])


def _facts_by_name(document: Document, labels: Mapping[str, str]) -> dict[Triple, object]:
    """Every way in which a document's facts can be named, and which fact it is."""
    return {
        Triple(head.name, labels[fact.relation], tail.name): (fact.head, fact.relation, fact.tail)
        for fact in document.facts
        for head in document.entities[fact.head].mentions
        for tail in document.entities[fact.tail].mentions
    }


def _wrong(triple: Triple, right: Sequence[Triple]) -> str:
    parts = ("subject", "relation", "object")
    differing = [[part for part in parts if getattr(triple, part) != getattr(fact, part)] for fact in right]
    fewest = min(differing, key=len, default=list(parts))
    return " and ".join(fewest) if len(fewest) < len(parts) else "all"


def by_confidence(
    documents: Sequence[Document],
    labels: Mapping[str, str],
    writes: Sequence[SentenceWrite],
    least: Sequence[float],
) -> pd.DataFrame:
    """Quality if only calls of some confidence are stored: columns ``least``, ``metric`` and as in :func:`by_delay`."""
    counts = {value: extraction_counts(documents, labels, confident(writes, value)) for value in least}
    return by_delay(counts).rename(columns={"delay": "least"})


def loosest(by_least: pd.DataFrame, wrong: float) -> float:
    """The least confidence to ask for, so that at most a share ``wrong`` of what is stored is wrong, at 95 %.

    Args:
        by_least: of :func:`by_confidence`, on development data.

    Returns:
        The lowest of its levels at which precision, by the lower bound of its interval, is high enough; if it nowhere
        is, the highest level.
    """
    precise = by_least[(by_least["metric"] == "precision") & (by_least["low"] >= 1 - wrong)]
    return float(precise["least"].min() if len(precise) else by_least["least"].max())


def by_delay(counts: Mapping[float, pd.DataFrame]) -> pd.DataFrame:
    """Quality at each stopping delay: columns ``delay``, ``metric``, ``value``, ``low``, ``high``, ``n``."""
    rows = [
        {"delay": delay, "metric": metric, **{name: getattr(figure, name) for name in ("value", "low", "high", "n")}}
        for delay, table in counts.items()
        for metric, figure in extraction_quality(table).items()
    ]
    return pd.DataFrame(rows)
