"""Does a memory of triples find a fact that is asked for in other words, and does it keep silent where it has none?

Nothing here needs a language model: it measures what the thresholds of a memory do.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import pandas as pd
from tqdm import tqdm

from palimpsest.evaluation.statistics import Interval, share
from palimpsest.facts import Document, Query, Triple
from palimpsest.memory import Thresholds, TripleMemory

AS_STORED, OTHER_RELATION, OTHER_ENTITY = "as stored", "other relation name", "other entity name"
UNKNOWN_FACT, UNKNOWN_ENTITY = "unknown fact", "unknown entity"
ADDED_AT_ONCE = 1000  # triples
FINDABLE = (AS_STORED, OTHER_RELATION, OTHER_ENTITY)
NOT_STORED = (UNKNOWN_FACT, UNKNOWN_ENTITY)


@dataclass(frozen=True, slots=True)
class Case:
    """A query, in which wording it is, and all answers that are right; none are if nothing of it is stored."""

    wording: str
    query: Query
    answers: frozenset[str]


def cases(
    documents: Iterable[Document],
    labels: Mapping[str, str],
    aliases: Mapping[str, Sequence[str]],
    unknown: Iterable[Document],
) -> Iterator[Case]:
    """Ask for the object of every fact of the documents, in each wording; and for facts that the memory does not have.

    Of every subject that is stored, one relation is asked that it has no object of, but others of its type do.

    Args:
        documents: whose triples the memory holds.
        labels: relation names by P-id.
        aliases: other names of relations, by label.
        unknown: documents about other entities, none of which the memory holds.
    """
    pages, labels = list(documents), dict(labels)
    answers: dict[tuple[str, str], set[str]] = defaultdict(set)
    others: dict[tuple[str, str], set[str]] = defaultdict(set)
    types: dict[str, str] = {}
    for page in pages:
        for fact, triple in zip(page.facts, page.triples(labels), strict=True):
            answers[triple.subject, triple.relation].add(triple.object)
            names = {mention.name for mention in page.entities[fact.head].mentions}
            others[triple.subject, triple.relation] |= names - {triple.subject}
            types[triple.subject] = page.entities[fact.head].type
    stored = {entity.name for page in pages for entity in page.entities}
    for (subject, relation), right in answers.items():
        found = frozenset(right)
        yield Case(AS_STORED, Query(relation, subject=subject), found)
        for alias in aliases.get(relation, ()):
            yield Case(OTHER_RELATION, Query(alias, subject=subject), found)
        for name in sorted(others[subject, relation] - stored):
            yield Case(OTHER_ENTITY, Query(relation, subject=name), found)
    usual: dict[str, dict[str, None]] = defaultdict(dict)
    for subject, relation in answers:
        usual[types[subject]][relation] = None
    for number, subject in enumerate(types):
        if missing := [relation for relation in usual[types[subject]] if (subject, relation) not in answers]:
            yield Case(UNKNOWN_FACT, Query(missing[number % len(missing)], subject=subject), frozenset())
    foreign = {(triple.subject, triple.relation) for page in unknown for triple in page.triples(labels)}
    for subject, relation in sorted(pair for pair in foreign if pair[0] not in stored):
        yield Case(UNKNOWN_ENTITY, Query(relation, subject=subject), frozenset())


def ask(memory: TripleMemory, asked: Sequence[Case], thresholds: Thresholds) -> pd.DataFrame:
    """Ask all cases.

    Returns:
        Columns ``wording``, ``relation``, ``entity``, ``first`` (the closest result is right), ``among`` (a result is),
        ``answered`` (there is any result) and ``results`` (how many in all).
    """
    answers = memory.query_batch([case.query for case in asked], thresholds)
    return pd.DataFrame(
        {
            "wording": case.wording,
            "relation": case.query.relation,
            "entity": case.query.entity,
            "first": bool(answer.names) and answer.names[0] in case.answers,
            "among": not case.answers.isdisjoint(answer.names),
            "answered": bool(answer.names),
            "results": answer.total,
        }
        for case, answer in zip(asked, answers, strict=True)
    )


def summarize(rows: pd.DataFrame) -> pd.DataFrame:
    """Shares by wording, with intervals over entities: columns ``wording``, ``metric``, ``value``, ``low``, ``high``,
    ``n``. Metrics: ``first``, ``among`` and ``answered``; of what is not stored only the last makes sense."""
    summary = []
    for wording in (*FINDABLE, *NOT_STORED):
        group = rows[rows["wording"] == wording]
        metrics = ("answered",) if wording in NOT_STORED else ("first", "among", "answered")
        for metric in metrics if len(group) else ():
            interval = share(group[metric], group["entity"])
            summary.append({"wording": wording, "metric": metric, **asdict(interval)})
    return pd.DataFrame(summary)


def growth(
    memory: TripleMemory,
    asked: Sequence[Case],
    distractors: Sequence[Triple],
    sizes: Sequence[int],
    thresholds: Thresholds,
) -> pd.DataFrame:
    """The same summaries while ever more triples about other things are stored along, ``sizes`` in ascending order.

    Returns:
        What :func:`summarize` does, with a column ``triples``: how many the memory held.
    """
    tables, stored = [], 0
    reached = sorted(size for size in sizes if size <= len(distractors))
    with tqdm(total=max(reached), desc="storing", unit=" triples", mininterval=1) as bar:
        for size in reached:
            while stored < size:
                part = distractors[stored : min(size, stored + ADDED_AT_ONCE)]
                memory.add(part)
                stored += len(part)
                bar.update(len(part))
            tables.append(summarize(ask(memory, asked, thresholds)).assign(triples=len(memory)))
    return pd.concat(tables, ignore_index=True)


def headline(table: pd.DataFrame) -> dict[str, dict[str, Interval]]:
    """The shares found first, and for what is not stored the share answered, by setting and wording."""
    shown = table[(table["metric"] == "first") | table["wording"].isin(NOT_STORED)]
    figures: dict[str, dict[str, Interval]] = defaultdict(dict)
    for row in shown.to_dict("records"):
        setting, wording = (str(row[column]).replace(" ", "_") for column in ("setting", "wording"))
        figures[setting][wording] = Interval(row["value"], row["low"], row["high"], int(row["n"]))
    return dict(figures)
