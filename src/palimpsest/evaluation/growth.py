"""What happens to reading when the memory fills with triples about other things, by orders of magnitude."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from random import Random

import numpy as np
import pandas as pd
from tqdm import tqdm

from palimpsest.evaluation.statistics import ratio
from palimpsest.facts import Document, Query, Triple
from palimpsest.memllm.lookup import Lookup
from palimpsest.memory import TripleMemory

ADDED_AT_ONCE = 10_000  # triples
PERPLEXITY, LATENCY = "target perplexity", "milliseconds a read"


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


def latencies(lookup: Lookup, calls: Sequence[Sequence[Query]]) -> np.ndarray:
    """Milliseconds that the memory takes for each of some calls, one at a time, after all were asked once (N,)."""
    lookup(calls)
    times = []
    for call in calls:
        started = time.perf_counter()
        lookup([call])
        times.append(1000 * (time.perf_counter() - started))
    return np.array(times)


def grow(
    memory: TripleMemory,
    triples: Iterator[Triple],
    sizes: Sequence[int],
    losses: Callable[[], pd.DataFrame],
    lookup: Lookup,
    calls: Sequence[Sequence[Query]],
) -> pd.DataFrame:
    """Measure at each size of the memory.

    Args:
        memory: holds what is asked for; ``triples`` are added to it.
        sizes: how many distractors; they are measured in ascending order, from 0 on.
        losses: rows of :func:`palimpsest.evaluation.perplexity.document_losses` with the memory as it is.
        lookup: asks the memory; ``calls`` are what it is asked to measure its latency.

    Returns:
        Columns ``distractors``, ``metric`` (:data:`PERPLEXITY`, or :data:`LATENCY`, a mean), ``value``, ``low``,
        ``high`` and ``n``.
    """
    rows, stored = [], 0
    for size in sorted({0, *sizes}):
        fill(memory, triples, size - stored)
        stored = size
        targets = losses().query("tokens == 'target'")
        figures = {PERPLEXITY: ratio(targets["loss"], targets["n"], np.exp)}
        times = latencies(lookup, calls)
        figures[LATENCY] = ratio(times, np.ones(len(times)))
        rows += [{"distractors": size, "metric": metric, **asdict(figure)} for metric, figure in figures.items()]
    return pd.DataFrame(rows)


def growth_ratios(table: pd.DataFrame) -> dict[str, float]:
    """How both metrics at each size compare with the same without distractors: ``target_ppl_ratio_1e6`` and so on."""
    ratios = {}
    for metric, name in {PERPLEXITY: "target_ppl_ratio", LATENCY: "latency_ratio"}.items():
        values = table[table["metric"] == metric].set_index("distractors")["value"]
        for size in [size for size in values.index if size]:
            ratios[f"{name}_{f'{size:.0e}'.replace('e+0', 'e')}"] = float(values[size] / values[0])
    return ratios
