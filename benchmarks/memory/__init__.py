"""Our memory of triples against the one that the MemLLM authors published, on the same triples, vectors and queries.

Both look their vectors up (:mod:`benchmarks.memory.vectors`), so that embedding costs nothing. Ours is on disk, with
every batch synced; the official one is in memory and would be lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from benchmarks.memory.cases import make_case, make_hub
from benchmarks.memory.indexes import compare_indexes, compare_sizes
from benchmarks.memory.speed import measure_batches, measure_both, measure_embedding, measure_growth, measure_hub
from benchmarks.memory.timing import TOGETHER, Report
from benchmarks.memory.vectors import Encoder, make_spaces, minilm, world_names
from palimpsest.figures.memory import index_choice, speed_by_size
from palimpsest.pipeline.results import save_figure, write_table

ENCODED, HEADLINE = 384, 768  # lengths of vectors; figures about the first have it as a suffix


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much is measured."""

    triples: tuple[int, ...] = (1_000, 10_000, 100_000)
    """Sizes for both memories; figures are about the last."""
    large: int = 1_000_000
    """Triples of ours alone."""
    names: int = 60_000
    """Real names; a memory that needs more entities gets copies."""
    relations: int = 100
    queries: int = 600
    """In each setting."""
    repetitions: int = 3
    hub: int = 20_000
    """Triples of the hub."""
    twins: int = 330
    """Entities that are candidates wherever the hub is one: more than a query looks at."""
    hub_relations: int = 40
    hub_queries: int = 20
    index_vectors: int = 100_000
    """Vectors for the comparison of sizes; speeds are measured with those of the real names."""
    index_queries: int = 500


def run(
    scale: Scale = Scale(),
    encoder: Encoder | None = None,
    folder: Path = Path("results/bench"),
    cache: Path | None = Path("data/bench"),
) -> dict[str, float]:
    """Measure, and write the tables ``memory_index.csv`` and ``memory_speed.csv``, with figures of the same names.

    Speed-ups are times of the official memory over ours, so more than 1 means that ours is faster. With ``.low`` and
    ``.high`` they are medians of repetitions in which the two take turns. Vectors have 768 numbers; figures that end in
    ``_384`` are for 384.

    - ``bench.memory.insert_speedup``: batches of 1,000 triples, until a first query has been answered.
      ``insert_per_second`` and ``official_insert_per_second``: the triples in a second.
    - ``bench.memory.query_p50_speedup``, ``query_p99_speedup``: single queries, with the thresholds of language
      modelling; ``editing_p50_speedup``, ``editing_p99_speedup`` with those of editing.
    - ``bench.memory.same_answers``, ``editing_same_answers``: the share of queries that both answer alike; and
      ``right_answers`` and ``official_right_answers`` that each answers as a search through everything does.
    - ``bench.memory.hub_speedup``: 300 candidate entities times 25 relation types around a subject with 20,000 triples.
      That ours finds the closest results is checked against a search through everything.
    - ``bench.memory.batch_speedup``: ours, 64 queries one by one over as many as one batch, with names that were not
      seen before and have to be embedded; ``batch_speedup_lookup``, with their vectors at hand.
    - ``bench.memory.index_bytes_ratio``: our vector index over hnswlib's, at ``index_recall_at_10``.
    - ``bench.memory.p99_growth_1e6``: ours, the slowest of a hundred queries with a million triples, over that with
      100,000; and ``insert_per_second_1e6``.

    Args:
        folder: where tables and figures go.
        encoder: makes the vectors; all-MiniLM-L6-v2 if not given.
        cache: a folder that keeps them for the next time.
    """
    report = Report()
    encoder = encoder or minilm()
    report.say(f"making vectors of {scale.names:,} names, or reading them from {cache}")
    spaces = make_spaces(encoder, scale.names, scale.relations, cache)
    space = spaces[HEADLINE]
    report.say("vectors are there")
    measure_hub(
        make_hub(space, scale.hub, scale.twins, scale.hub_relations, scale.hub_queries), scale.repetitions, report
    )
    report.say("the hub")
    indexes = [compare_indexes(spaces[length], scale.index_queries, report) for length in (ENCODED, HEADLINE)]
    write_table(folder / "memory_index.csv", table := pd.concat(indexes, ignore_index=True))
    save_figure(index_choice(table), folder, "memory_index")
    compare_sizes(space, scale.index_vectors, scale.index_queries, report)
    *smaller, largest = scale.triples
    for triples in smaller:
        measure_both(make_case(space, triples, scale.queries), scale.repetitions, report, suffix=None)
    short, case = (make_case(spaces[length], largest, scale.queries) for length in (ENCODED, HEADLINE))
    measure_both(short, scale.repetitions, report, suffix=f"_{ENCODED}")
    measure_both(case, scale.repetitions, report, suffix="")
    measure_batches(case, scale.repetitions, report)
    unseen = world_names(2 * scale.repetitions * TOGETHER, skipped=2 * scale.names)
    measure_embedding(short, encoder, unseen, scale.repetitions, report)
    report.say("batches")
    measure_growth(case, make_case(space, scale.large, scale.queries), scale.repetitions, report)
    write_table(folder / "memory_speed.csv", report.table())
    save_figure(speed_by_size(report.table()), folder, "memory_speed")
    return report.figures
