"""How fast the two memories are on the same case."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import numpy as np

from benchmarks.memory.answers import Exhaustive, agree, check_closest
from benchmarks.memory.cases import Case
from benchmarks.memory.official import OfficialMemory
from benchmarks.memory.timing import (
    Report,
    Seconds,
    alternate,
    fill,
    percentile_ratios,
    time_each,
    time_groups,
    timed,
)
from benchmarks.memory.vectors import Encoder, Lookup
from palimpsest.facts import Query
from palimpsest.memory import EDITING, LANGUAGE_MODELLING, Thresholds, TripleMemory

OURS, OFFICIAL = "ours", "official"
SETTINGS = {"language modelling": (LANGUAGE_MODELLING, "query"), "editing": (EDITING, "editing")}
SHOWN = 3  # differing answers that are printed


@contextmanager
def our_memory(embedder: Lookup) -> Iterator[TripleMemory]:
    """A new memory on disk."""
    with (
        tempfile.TemporaryDirectory() as folder,
        TripleMemory.open(Path(folder, "memory.db"), embedder) as memory,
    ):
        yield memory


def official_memory(case: Case) -> closing[OfficialMemory]:
    return closing(OfficialMemory(case.lookup, capacity=len(case.vectors)))


def measure_hub(case: Case, repetitions: int, report: Report) -> None:
    """Queries with all candidates that there can be; before, it is checked that ours answers them rightly."""
    with our_memory(case.lookup) as ours, official_memory(case) as official:
        fill(case.triples, official.add, ours.add)
        truth = Exhaustive(case)
        for query in case.queries:
            check_closest(truth, query, ours.query(query, EDITING), EDITING)
        slow, fast = time_queries(official, ours, case.queries, EDITING, repetitions)
    report.spread("bench.memory.hub_speedup", percentile_ratios(slow, fast, 50))
    report.latencies(OFFICIAL, case, "hub query", "editing", slow)
    report.latencies(OURS, case, "hub query", "editing", fast)


def measure_both(case: Case, repetitions: int, report: Report, suffix: str | None) -> None:
    """Filling both memories and asking them; rows of the table, and figures whose names end in ``suffix`` if given."""
    with our_memory(case.lookup) as ours, official_memory(case) as official:
        first = case.queries[0]
        filled = fill(case.triples, official.add, ours.add)
        # Our index follows when it is needed: that is part of the price.
        slow = filled[0] + timed(official.query, first, LANGUAGE_MODELLING)[0]
        fast = filled[1] + timed(ours.query, first, LANGUAGE_MODELLING)[0]
        rates = {OFFICIAL: len(case.triples) / slow, OURS: len(case.triples) / fast}
        for method, rate in rates.items():
            report.row(method, case, "insert", "", "per_second", rate, len(case.triples))
        if suffix is not None:
            report.spread(f"bench.memory.insert_speedup{suffix}", [rates[OURS] / rates[OFFICIAL]])
            report.figures[f"bench.memory.insert_per_second{suffix}"] = rates[OURS]
            report.figures[f"bench.memory.official_insert_per_second{suffix}"] = rates[OFFICIAL]
        truth = Exhaustive(case)
        for setting, (thresholds, name) in SETTINGS.items():
            alike = shares_alike(official, ours, truth, case.queries, thresholds, report)
            times = time_queries(official, ours, case.queries, thresholds, repetitions)
            for method, seconds in zip((OFFICIAL, OURS), times, strict=True):
                report.latencies(method, case, "query", setting, seconds)
            if suffix is not None:
                for percent in (50, 99):
                    figure = f"bench.memory.{name}_p{percent}_speedup{suffix}"
                    report.spread(figure, percentile_ratios(*times, percent))
                prefix = "" if thresholds is LANGUAGE_MODELLING else f"{name}_"
                report.figures |= {f"bench.memory.{prefix}{what}{suffix}": share for what, share in alike.items()}
        report.say(f"both memories with {len(case.triples):,} triples, {case.dimension} numbers a vector")


def shares_alike(
    official: OfficialMemory,
    ours: TripleMemory,
    truth: Exhaustive,
    queries: Sequence[Query],
    thresholds: Thresholds,
    report: Report,
) -> dict[str, float]:
    """The shares of queries that both answer alike, and that each answers rightly; some of our errors are printed."""
    counts = {"same_answers": 0, "right_answers": 0, "official_right_answers": 0}
    wrong = []
    for query in queries:
        theirs = official.query(query, thresholds)
        own = [(result.name, result.distance) for result in ours.query(query, thresholds).results]
        right = agree(truth, query, own, thresholds)
        counts["same_answers"] += agree(official, query, own, thresholds)
        counts["right_answers"] += right
        counts["official_right_answers"] += agree(truth, query, theirs, thresholds)
        if not right:
            wrong.append((query, own))
    for query, own in wrong[:SHOWN]:
        expected = sorted(truth.query(query, thresholds), key=lambda item: item[1])
        report.say(f"wrong: {query}\n    expected {len(expected)}: {expected[:5]}\n    ours {len(own)}: {own[:5]}")
    return {name: count / len(queries) for name, count in counts.items()}


def time_queries(
    official: OfficialMemory, ours: TripleMemory, queries: Sequence[Query], thresholds: Thresholds, repetitions: int
) -> tuple[Seconds, Seconds]:
    """Seconds of the official memory and of ours, (repetitions, queries), one query at a time."""
    slow, fast = alternate(
        repetitions,
        lambda: time_each(lambda query: official.query(query, thresholds), queries),
        lambda: time_each(lambda query: ours.query(query, thresholds), queries),
    )
    return slow, fast


def measure_batches(case: Case, repetitions: int, report: Report) -> None:
    """Ours alone: the same queries one by one and in batches of 64."""
    with our_memory(case.lookup) as memory:
        fill(case.triples, memory.add)
        memory.query(case.queries[0])
        alone, together = alternate(
            repetitions,
            lambda: time_each(memory.query, case.queries),
            lambda: time_groups(memory.query_batch, case.queries),
        )
    seconds = {"query one by one": alone.mean(axis=1), "query batch": together.sum(axis=1) / len(case.queries)}
    report.spread("bench.memory.batch_speedup_lookup", (seconds["query one by one"] / seconds["query batch"]).tolist())
    for operation, each in seconds.items():
        report.row(OURS, case, operation, "language modelling", "per_second", 1 / float(np.median(each)), alone.size)


def measure_embedding(case: Case, encoder: Encoder, unseen: Sequence[str], repetitions: int, report: Report) -> None:
    """Ours alone, asked about ``unseen`` names, which have to be embedded: one by one, and others in batches of 64."""
    with our_memory(replace(case.lookup, otherwise=encoder.encode)) as memory:
        fill(case.triples, memory.add)
        memory.query(case.queries[0])
        queries = [
            Query(asked.relation, subject=name) for asked, name in zip(cycle(case.queries), unseen, strict=False)
        ]
        part = len(unseen) // (2 * repetitions)
        parts = [queries[start : start + part] for start in range(0, 2 * repetitions * part, part)]
        ratios = [
            float(time_each(memory.query, alone).sum() / time_groups(memory.query_batch, together).sum())
            for alone, together in zip(parts[::2], parts[1::2], strict=True)
        ]
    report.spread("bench.memory.batch_speedup", ratios)


def measure_growth(small: Case, large: Case, repetitions: int, report: Report) -> None:
    """Ours alone: queries of a memory that is ten times larger, against queries of the smaller one, in turn."""
    with our_memory(small.lookup) as few, our_memory(large.lookup) as many:
        fill(small.triples, few.add)
        few.query(small.queries[0])
        (seconds,) = fill(large.triples, many.add)
        report.say(f"{len(large.triples):,} triples added")
        seconds += timed(many.query, large.queries[0])[0]
        report.say("and the first query answered")
        fast, slow = alternate(
            repetitions,
            lambda: time_each(few.query, small.queries),
            lambda: time_each(many.query, large.queries),
        )
    rate = len(large.triples) / seconds
    report.spread("bench.memory.p99_growth_1e6", percentile_ratios(slow, fast, 99))
    report.figures["bench.memory.insert_per_second_1e6"] = rate
    report.row(OURS, large, "insert", "", "per_second", rate, len(large.triples))
    report.latencies(OURS, large, "query", "language modelling", slow)
