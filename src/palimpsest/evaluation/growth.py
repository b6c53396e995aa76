"""What happens to reading when the memory fills with triples about other things, by orders of magnitude."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import islice
from random import Random

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from palimpsest.evaluation.statistics import Interval, ratio
from palimpsest.facts import Document, Query, Triple
from palimpsest.memllm.lookup import Lookup
from palimpsest.memory import TripleMemory

ADDED_AT_ONCE = 10_000  # triples
REPETITIONS = 5  # of each timed read
PERPLEXITY, LATENCY, EMPTY = "target perplexity", "milliseconds a read", "milliseconds a read without distractors"
PERPLEXITY_RATIO, LATENCY_RATIO = "target perplexity ratio", "latency ratio"

Call = tuple[Query, ...]
Answers = dict[Call, list[str]]
"""What a memory returned to calls."""


def distractors(
    documents: Sequence[Document], labels: Mapping[str, str], unlike: Sequence[Document], seed: int
) -> Iterator[Triple]:
    """Random triples, each once: the relations of some documents between entities of the types they have there.

    All that there can be, if asked for so many. An entity has the type by which it is first met.

    Args:
        documents: whose entities and relations are taken.
        labels: relation names by P-id.
        unlike: documents whose entities are left out.
    """
    known = {mention.name for page in unlike for entity in page.entities for mention in entity.mentions}
    types: dict[str, str] = {}
    shapes: dict[tuple[str, str, str], None] = {}
    for page in documents:
        for entity in page.entities:
            if entity.name not in known:
                types.setdefault(entity.name, entity.type)
        for fact in page.facts:
            head, tail = (page.entities[end].type for end in fact.ends)
            shapes[head, labels[fact.relation], tail] = None
    pools: dict[str, list[str]] = defaultdict(list)
    for name, kind in types.items():
        pools[kind].append(name)
    left = {shape: len(pools[shape[0]]) * len(pools[shape[2]]) for shape in shapes}
    possible = [shape for shape, count in left.items() if count]
    rng, seen = Random(seed), set()
    while possible:
        shape = head, relation, tail = rng.choice(possible)
        triple = Triple(rng.choice(pools[head]), relation, rng.choice(pools[tail]))
        if triple not in seen:
            seen.add(triple)
            left[shape] -= 1
            if not left[shape]:
                possible.remove(shape)
            yield triple


def fill(memory: TripleMemory, triples: Iterator[Triple], count: int) -> None:
    """Store ``count`` of some triples."""
    stored = 0
    with tqdm(total=count, desc="storing", unit=" triples", mininterval=1) as bar:
        while stored < count:
            part = list(islice(triples, min(ADDED_AT_ONCE, count - stored)))
            if not part:
                raise ValueError(f"there are only {stored} distractors, expected {count}")
            memory.add(part)
            stored += len(part)
            bar.update(len(part))


def grow(
    memory: TripleMemory,
    triples: Iterator[Triple],
    sizes: Sequence[int],
    grown: Lookup,
    empty: Lookup,
    asked: Sequence[Call],
    timed: Sequence[Call],
) -> tuple[dict[int, Answers], pd.DataFrame]:
    """What a memory returns at each of its sizes, and how long a read takes it.

    Args:
        memory: holds what is asked for; ``triples`` are added to it.
        sizes: how many distractors; they are measured in ascending order, from 0 on.
        grown: asks this memory; ``empty`` another one, without distractors, which is timed beside it.
        asked: what the first is asked; ``timed`` what both are asked against the clock.

    Returns:
        The answers by size, and a table with columns ``distractors``, ``metric`` (:data:`LATENCY`, :data:`EMPTY`, and
        their ratio, :data:`LATENCY_RATIO`), ``value``, ``low``, ``high`` and ``n`` (calls).
    """
    answers, rows, stored = dict[int, Answers](), list[dict](), 0
    for size in sorted({0, *sizes}):
        fill(memory, triples, size - stored)
        stored = size
        answers[size] = dict(zip(asked, grown.names(asked), strict=True))
        times, others = latencies([grown, empty], timed, REPETITIONS)
        each = np.ones(len(timed))
        figures = {LATENCY: ratio(times, each), EMPTY: ratio(others, each), LATENCY_RATIO: ratio(times, others)}
        rows += [
            {"distractors": size, "metric": metric, **asdict(replace(figure, n=len(timed)))}
            for metric, figure in figures.items()
        ]
    return answers, pd.DataFrame(rows)


def answered(answers: Answers, calls: Sequence[Sequence[Query]]) -> list[list[str]]:
    """What a memory returned to some calls: with its answers given, something to ask in its place."""
    return [answers[tuple(call)] for call in calls]


def latencies(lookups: Sequence[Lookup], calls: Sequence[Call], repetitions: int) -> NDArray:
    """Milliseconds (L, N) that each of L memories takes for each of N calls, one at a time, after all were asked once.

    The least of several repetitions, as whatever else the machine does only makes a read longer; in each the memories
    are asked in turn, call by call, so that it slows them alike.
    """
    times = np.empty((repetitions, len(lookups), len(calls)))
    for lookup in lookups:
        lookup(calls)
    for turn in range(repetitions):
        for number, call in enumerate(calls):
            for place in np.roll(np.arange(len(lookups)), turn).tolist():  # each is first in its turn
                started = time.perf_counter()
                lookups[place]([call])
                times[turn, place, number] = 1000 * (time.perf_counter() - started)
    return times.min(axis=0)


def perplexities(losses: pd.DataFrame) -> pd.DataFrame:
    """Target perplexity at each size of the memory, and as a ratio to that without distractors, in a table as of
    :func:`grow`. The same documents are compared, so the ratio's interval is of their differences.

    Args:
        losses: rows of :func:`palimpsest.evaluation.perplexity.document_losses`, where ``split`` is the size.
    """
    targets = {size: rows.set_index("document") for size, rows in losses.query("tokens == 'target'").groupby("split")}
    rows = []
    for size, own in targets.items():
        figures = {
            PERPLEXITY: ratio(own["loss"], own["n"], np.exp),
            PERPLEXITY_RATIO: ratio(own["loss"] - targets[0]["loss"], own["n"], np.exp),
        }
        rows += [{"distractors": size, "metric": metric, **asdict(figure)} for metric, figure in figures.items()]
    return pd.DataFrame(rows)


def growth_ratios(table: pd.DataFrame) -> dict[str, Interval]:
    """How both metrics at each size compare with the same without distractors: ``target_ppl_ratio_1e6`` and so on."""
    names = {PERPLEXITY_RATIO: "target_ppl_ratio", LATENCY_RATIO: "latency_ratio"}
    rows = table[table["metric"].isin(names) & (table["distractors"] > 0)].to_dict("records")
    return {
        f"{names[row['metric']]}_{_power(row['distractors'])}": Interval(
            row["value"], row["low"], row["high"], row["n"]
        )
        for row in rows
    }


def _power(number: int) -> str:
    """``1e6`` for a million."""
    return f"{number:.0e}".replace("e+0", "e")
