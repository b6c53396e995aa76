"""What a document gives to look up, and what it gives to store (MemLLM, section 3.2).

Reading on from the start of a document, a relation becomes *askable* at the mention that completes it, when both its
entities have been named. That mention is a *target*: a query about the entity named before would return it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from palimpsest.facts import Document, Mention, Query, Triple


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


def sentence_triples(document: Document, labels: Mapping[str, str]) -> list[list[Triple]]:
    """The triples that each sentence of a document gives to store, in the order in which the sentence completes them.

    A fact belongs to a sentence if both its entities have been named by its end, at least one of them in it, and if the
    sentence is among the fact's evidence, where the document gives evidence. Entities go by the name by which the
    document first mentions them, so that one entity has one name in the memory.
    """
    names: dict[int, str] = {}
    seen_at: dict[tuple[int, int], int] = {}  # where an entity is first named in a sentence
    sentence_of: dict[int, int] = {}  # in which sentence an entity is first named
    for entity, mention in document.mentions():
        names.setdefault(entity, mention.name)
        sentence_of.setdefault(entity, mention.sentence)
        seen_at.setdefault((mention.sentence, entity), mention.start)
    triples: list[list[Triple]] = []
    for sentence in range(len(document.sentences)):
        found: dict[Triple, int] = {}
        for fact in document.facts:
            named = all(sentence_of.get(entity, len(document.sentences)) <= sentence for entity in fact.ends)
            places = [seen_at[sentence, entity] for entity in fact.ends if (sentence, entity) in seen_at]
            if named and places and (sentence in fact.evidence or not fact.evidence):
                triple = Triple(names[fact.head], labels[fact.relation], names[fact.tail])
                found[triple] = min(max(places), found.get(triple, max(places)))
        triples.append(sorted(found, key=lambda triple: found[triple]))
    return triples


class AnswerCounts:
    """What a memory that holds all triples of some documents answers to queries, by exact names.

    Every name under which a document mentions an entity counts as one of its names.
    """

    def __init__(self, documents: Iterable[Document], labels: Mapping[str, str]) -> None:
        names: dict[Query, set[str]] = defaultdict(set)
        firsts: dict[Query, dict[str, None]] = defaultdict(dict)
        for document in documents:
            first: dict[int, str] = {}
            for entity, mention in document.mentions():
                first.setdefault(entity, mention.name)
            for fact in document.facts:
                label = labels[fact.relation]
                heads, tails = ({mention.name for mention in document.entities[end].mentions} for end in fact.ends)
                asked = {Query(label, subject=name): (tails, fact.tail) for name in heads}
                asked |= {Query(label, object=name): (heads, fact.head) for name in tails}
                for query, (found, entity) in asked.items():
                    names[query] |= found
                    firsts[query][first[entity]] = None
        self._counts = {query: len(found) for query, found in names.items()}
        self._firsts = {query: list(found) for query, found in firsts.items()}

    def __call__(self, query: Query) -> int:
        """How many names answer a query."""
        return self._counts.get(query, 0)

    def answers(self, queries: Iterable[Query]) -> list[str]:
        """The entities that answer any of some queries, each by the name by which a document first mentions it."""
        return list(dict.fromkeys(name for query in queries for name in self._firsts.get(query, ())))
