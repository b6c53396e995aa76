"""Which vector index suits a memory? Ours against those that others use, on the same names."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import faiss
import hnswlib  # type: ignore[import-untyped]
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from usearch.index import Index as Usearch

from benchmarks.memory.cases import NEAR
from benchmarks.memory.graph import nearest
from benchmarks.memory.timing import BATCH, TOGETHER, Report, shortened, timed
from benchmarks.memory.vectors import Space, Vectors, perturbed
from palimpsest.memory.index import VectorIndex

DISTANCE, LIMIT = 0.15, 300  # what a memory asks an index for
ANY_DISTANCE = 2.0
FURTHER = 4 / 3  # noise of vectors that are made to have more: a cosine of 0.6 to those that they are made from

Ids = NDArray[np.int64]


class Peer(ABC):
    """An index of unit vectors by id that grows."""

    label: str

    @abstractmethod
    def __init__(self, dimension: int, capacity: int) -> None:
        """An empty index for up to ``capacity`` vectors of length ``dimension``."""

    @abstractmethod
    def add(self, ids: Ids, vectors: Vectors) -> None: ...

    @abstractmethod
    def search(self, vectors: Vectors, distance: float, limit: int) -> list[Ids]:
        """For each row the ids nearer than ``distance``, at most ``limit``, nearest first."""

    @abstractmethod
    def size(self) -> int:
        """Bytes of the index as a file."""


class Ours(Peer):
    label = "palimpsest: cells, half precision"

    def __init__(self, dimension: int, capacity: int) -> None:
        self.index = VectorIndex(dimension)

    def add(self, ids: Ids, vectors: Vectors) -> None:
        self.index.add(ids, vectors)

    def search(self, vectors: Vectors, distance: float, limit: int) -> list[Ids]:
        return [ids for ids, _ in self.index.search(vectors, distance, limit)]

    def size(self) -> int:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "index")
            self.index.save(path, {})
            return path.stat().st_size


class Hnswlib(Peer):
    label = "hnswlib: graph, float32"

    def __init__(self, dimension: int, capacity: int) -> None:
        self.index = hnswlib.Index(space="cosine", dim=dimension)
        self.index.init_index(max_elements=capacity, M=20, ef_construction=200)
        self.index.set_ef(300)

    def add(self, ids: Ids, vectors: Vectors) -> None:
        self.index.add_items(vectors, ids)

    def search(self, vectors: Vectors, distance: float, limit: int) -> list[Ids]:
        ids, distances = nearest(self.index, vectors, min(limit, self.index.get_current_count()))
        return [row[far < distance].astype(np.int64) for row, far in zip(ids, distances, strict=True)]

    def size(self) -> int:
        return self.index.index_file_size()


class UsearchHalf(Peer):
    label = "usearch: graph, half precision"

    dtype = "f16"

    def __init__(self, dimension: int, capacity: int) -> None:
        self.index = Usearch(
            ndim=dimension, metric="cos", dtype=self.dtype, connectivity=16, expansion_add=128, expansion_search=64
        )

    def add(self, ids: Ids, vectors: Vectors) -> None:
        self.index.add(ids, vectors)

    def search(self, vectors: Vectors, distance: float, limit: int) -> list[Ids]:
        matches: Any = self.index.search(vectors, min(limit, len(self.index)))
        keys, distances = np.atleast_2d(matches.keys), np.atleast_2d(matches.distances)
        return [row[far < distance].astype(np.int64) for row, far in zip(keys, distances, strict=True)]

    def size(self) -> int:
        return self.index.serialized_length


class UsearchBytes(UsearchHalf):
    label = "usearch: graph, bytes"

    dtype = "i8"


class Flat(Peer):
    label = "faiss: no structure, half precision"

    def __init__(self, dimension: int, capacity: int) -> None:
        self.index = faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)

    def add(self, ids: Ids, vectors: Vectors) -> None:
        assert ids[0] == self.index.ntotal  # its ids are positions
        self.index.add(vectors)

    def search(self, vectors: Vectors, distance: float, limit: int) -> list[Ids]:
        similarities, ids = self.index.search(vectors, min(limit, self.index.ntotal))
        return [row[near > 1 - distance] for row, near in zip(ids, similarities, strict=True)]

    def size(self) -> int:
        return faiss.serialize_index(self.index).nbytes


PEERS: tuple[type[Peer], ...] = (Ours, Hnswlib, UsearchHalf, UsearchBytes, Flat)


def compare_indexes(space: Space, queries: int, report: Report) -> pd.DataFrame:
    """A row for each index: how long it takes to build, how large it is, what it finds and how fast."""
    rows = []
    asked = near_variants(space.vectors, queries)
    truth = nearest_of_all(space.vectors, asked)
    for kind in PEERS:
        index = kind(space.dimension, len(space.vectors))
        seconds = build(index, space.vectors)
        measured = {
            "build_seconds": seconds,
            "bytes_per_vector": index.size() / len(space.vectors),
            **recalls(index, asked, truth),
            **latencies(index, asked),
        }
        report.say(f"index {kind.label}, {space.dimension} numbers a vector, built in {seconds:.1f} s")
        labels = {"index": kind.label, "dimension": space.dimension, "vectors": len(space.vectors)}
        rows.append(labels | {name: shortened(value) for name, value in measured.items()} | {"queries": len(asked)})
    return pd.DataFrame(rows)


def compare_sizes(space: Space, count: int, queries: int, report: Report) -> None:
    """The size of our index as a file over that of hnswlib's, for ``count`` vectors, and what ours finds of them.

    If the space has fewer, more are made from those that there are.
    """
    vectors = topped_up(space.vectors, count)
    ours, theirs = Ours(space.dimension, count), Hnswlib(space.dimension, count)
    for index in (ours, theirs):
        build(index, vectors)
    report.figures["bench.memory.index_bytes_ratio"] = ours.size() / theirs.size()
    asked = near_variants(vectors, queries)
    found = recalls(ours, asked, nearest_of_all(vectors, asked))
    report.figures["bench.memory.index_recall_at_10"] = found["recall_at_10"]
    report.say(f"sizes of indexes of {count:,} vectors")


def near_variants(vectors: Vectors, count: int) -> Vectors:
    rng = np.random.default_rng(0)
    return perturbed(vectors[rng.choice(len(vectors), min(count, len(vectors)), replace=False)], NEAR, rng)


def topped_up(vectors: Vectors, count: int) -> Vectors:
    rng = np.random.default_rng(1)
    origins = vectors[np.arange(max(0, count - len(vectors))) % len(vectors)]
    return np.concatenate([vectors[:count], perturbed(origins, FURTHER, rng)])


def build(index: Peer, vectors: Vectors) -> float:
    """Seconds to add all vectors, in batches as a memory adds them."""
    seconds = 0.0
    for ids in np.split(np.arange(len(vectors)), range(BATCH, len(vectors), BATCH)):
        seconds += timed(index.add, ids, vectors[ids])[0]
    return seconds


def nearest_of_all(vectors: Vectors, asked: Vectors) -> tuple[Ids, Vectors]:
    """For each row of ``asked`` the ids (N, up to 300) of the nearest vectors, nearest first, and their cosines."""
    ids, cosines = [], []
    for query in asked:
        cosine = vectors @ query
        near = np.argpartition(-cosine, min(LIMIT, len(vectors) - 1))[:LIMIT]
        near = near[np.argsort(-cosine[near])]
        ids.append(near)
        cosines.append(cosine[near])
    return np.stack(ids), np.stack(cosines)


def recalls(index: Peer, asked: Vectors, truth: tuple[Ids, Vectors]) -> dict[str, float]:
    """Shares found of the ten nearest vectors, and of all within 0.15 (at most 300, the nearest)."""
    ten, within, all_within = 0, 0, 0
    for query, ids, cosines in zip(asked, *truth, strict=True):
        (nearest,) = index.search(query[None], ANY_DISTANCE, 10)
        (near,) = index.search(query[None], DISTANCE, LIMIT)
        true = ids[cosines > 1 - DISTANCE]
        ten += len(np.intersect1d(nearest, ids[:10]))
        within += len(np.intersect1d(near, true))
        all_within += len(true)
    return {"recall_at_10": ten / (10 * len(asked)), "recall_within_0.15": within / max(all_within, 1)}


def latencies(index: Peer, asked: Vectors) -> dict[str, float]:
    """Milliseconds a query: singly, the median and the slowest of a hundred; and in batches of 64."""
    alone = [timed(index.search, vector[None], DISTANCE, LIMIT)[0] for vector in asked]
    batches = np.split(asked, range(TOGETHER, len(asked), TOGETHER))
    together = sum(timed(index.search, batch, DISTANCE, LIMIT)[0] for batch in batches)
    return {
        "p50_ms": float(np.percentile(alone, 50)) * 1e3,
        "p99_ms": float(np.percentile(alone, 99)) * 1e3,
        "batch_ms": together / len(asked) * 1e3,
    }
