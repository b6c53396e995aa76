"""Which mentions of a document a memory could supply, and what would have to be asked (MemLLM, section 3.2).

Reading on from the start of a document, a relation becomes *askable* at the mention that completes it, when both its
entities have been named. That mention is a *target*: a query about the entity named before would return it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from palimpsest.facts import Document, Mention, Query


@dataclass(frozen=True, slots=True)
class ReadTarget:
    """A mention that a read could supply, its entity's position, and the queries that ask for it, best first."""

    entity: int
    mention: Mention
    queries: tuple[Query, ...]


def pattern(query: Query) -> str:
    """A query without its entity's name, as the skip list writes it: ``(X, relation, ?)`` or ``(?, relation, X)``."""
    return f"(X, {query.relation}, ?)" if query.known == "subject" else f"(?, {query.relation}, X)"


def read_targets(
    document: Document,
    labels: Mapping[str, str],
    *,
    skip: Iterable[str],
    results: Callable[[Query], int],
    max_results: int,
    max_queries: int,
) -> Iterator[ReadTarget]:
    """The targets of a document in text order.

    Args:
        document: the annotated document.
        labels: relation names by P-id.
        skip: patterns of queries that are too broad to ask, such as ``(?, country, X)``.
        results: how many answers a query has in the memory at hand.
        max_results: a query with more answers is not asked.
        max_queries: how many queries a call has at the most; those with fewest answers are kept.
    """
    skipped = frozenset(skip)
    open_facts = list(dict.fromkeys((fact.head, fact.relation, fact.tail) for fact in document.facts))
    names: dict[int, dict[str, None]] = {}  # entities named so far, and how
    for entity, mention in document.mentions():
        names.setdefault(entity, {})[mention.name] = None
        completed = [(h, r, t) for h, r, t in open_facts if entity in (h, t) and h in names and t in names]
        open_facts = [fact for fact in open_facts if fact not in completed]
        start, end = document.span(mention)
        if document.text[start:end] in document.text[:start]:
            continue  # the text can be copied from above: nothing to look up
        queries = {
            query: results(query)
            for head, relation, tail in completed
            if head != tail
            for query in _queries(names, entity, head, labels[relation], tail)
            if pattern(query) not in skipped
        }
        best = sorted(
            (count, order, query) for order, (query, count) in enumerate(queries.items()) if count <= max_results
        )
        if best:
            yield ReadTarget(entity, mention, tuple(query for _, _, query in best[:max_queries]))


def _queries(names: Mapping[int, Iterable[str]], entity: int, head: int, relation: str, tail: int) -> list[Query]:
    if entity == tail:
        return [Query(relation, subject=name) for name in names[head]]
    return [Query(relation, object=name) for name in names[tail]]


class AnswerCounts:
    """How many answers each query has in a memory that holds all triples of some documents, by exact names.

    Every name under which a document mentions an entity counts as one of its names.
    """

    def __init__(self, documents: Iterable[Document], labels: Mapping[str, str]) -> None:
        answers: dict[Query, set[str]] = defaultdict(set)
        for document in documents:
            names = [{mention.name for mention in entity.mentions} for entity in document.entities]
            for fact in document.facts:
                label = labels[fact.relation]
                for head in names[fact.head]:
                    answers[Query(label, subject=head)] |= names[fact.tail]
                for tail in names[fact.tail]:
                    answers[Query(label, object=tail)] |= names[fact.head]
        self._counts = {query: len(found) for query, found in answers.items()}

    def __call__(self, query: Query) -> int:
        return self._counts.get(query, 0)
