"""An approximate index of unit vectors by id: which are within a cosine distance of a query?

An inverted file (faiss IVF) over half-precision vectors. It is built an order of magnitude faster than a graph, takes
half the memory, forgets a vector for good, and finds near neighbours, which is all that a memory asks for, as surely
(``results/bench/memory_index.csv``). Up to a few thousand vectors it has one cell and is exact.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from palimpsest.files import atomic_path

EXACT_UP_TO = 4096  # vectors; a scan of so many is as fast as anything
SAMPLE = 40  # vectors a cell from which the cells are learnt
ROUNDS = 5  # of k-means; more do not find more
NEAR = 0.2  # a cosine distance
ADDED_AT_ONCE = 65_536  # bounds the float32 copy of half-precision vectors
FORMAT = "palimpsest vectors 1"

Vectors = NDArray[np.float32]
Ids = NDArray[np.int64]


class IndexFileError(Exception):
    """An index file is missing, damaged, or of another kind: the index has to be built anew."""


class VectorIndex:
    """Ids and unit vectors of length ``dimension``."""

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self._ivf = _inverted_file(dimension, cells=1)
        self._learnt_from = 0  # how many vectors there were when the cells were learnt
        self._changed = 0  # how many have been added or removed since

    def __len__(self) -> int:
        return self._ivf.ntotal

    def add(self, ids: Ids, vectors: NDArray[np.floating], coming: int = 0) -> None:
        """Add vectors (N, C) under new ids (N,); ``coming`` more will follow at once, for which cells are made too."""
        count = len(self) + len(ids) + coming
        if count > EXACT_UP_TO and self._changed + len(ids) + coming > self._learnt_from:
            self._learn_cells(np.asarray(vectors), count)
        else:
            self._changed += len(ids)
        self._insert(ids, vectors)

    def _insert(self, ids: Ids, vectors: NDArray[np.floating]) -> None:
        for start in range(0, len(ids), ADDED_AT_ONCE):
            part = slice(start, start + ADDED_AT_ONCE)
            self._ivf.add_with_ids(np.ascontiguousarray(vectors[part], np.float32), np.asarray(ids[part], np.int64))

    def remove(self, ids: Sequence[int]) -> None:
        """Remove the vectors of ``ids``, and their bytes with them; unknown ids are passed over."""
        if len(ids):
            self._changed += self._ivf.remove_ids(np.asarray(ids, np.int64))

    def contents(self) -> tuple[Ids, NDArray[np.float16]]:
        """All ids (N,) and their vectors (N, C)."""
        return _contents(self._ivf)

    def search(self, vectors: Vectors, distance: float, limit: int) -> list[tuple[Ids, NDArray[np.float64]]]:
        """For each row of ``vectors`` (B, C) the ids nearer than ``distance``, nearest first, at most ``limit``.

        Ids at the same distance come in ascending order. Distances are exact to about 1e-4 (half precision).
        """
        self._ivf.nprobe = _probes(self._ivf.nlist, distance)
        self._ivf.parallel_mode = 1 if len(vectors) == 1 and self._ivf.nlist > 1 else 0  # over cells, or over queries
        vectors = np.ascontiguousarray(vectors, np.float32)
        starts, similarities, ids = self._ivf.range_search(vectors, 1.0 - distance)
        found = []
        for start, end in pairwise(starts):
            distances = np.maximum(1.0 - similarities[start:end].astype(np.float64), 0.0)
            order = np.lexsort((ids[start:end], distances))[:limit]
            order = order[distances[order] < distance]  # rounding may have let some in
            found.append((ids[start:end][order], distances[order]))
        return found

    def save(self, path: Path, stamp: dict[str, str | int]) -> None:
        """Write the index, with a ``stamp`` that says what it is an index of, atomically."""
        header = {"format": FORMAT, "stamp": stamp, "learnt_from": self._learnt_from, "changed": self._changed}
        content = json.dumps(header).encode() + b"\n" + faiss.serialize_index(self._ivf).tobytes()
        with atomic_path(path) as temporary:
            temporary.write_bytes(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)

    @classmethod
    def load(cls, path: Path) -> tuple[VectorIndex, dict[str, str | int]]:
        """Read what :meth:`save` wrote: the index and its stamp. Nothing is parsed before its digest is checked.

        Raises:
            IndexFileError: there is no such file, or it is not what was written.
        """
        try:
            digest, _, content = path.read_bytes().partition(b"\n")
            if digest != hashlib.sha256(content).hexdigest().encode():
                raise ValueError("its digest does not fit")
            head, _, payload = content.partition(b"\n")
            header = json.loads(head)
            if header["format"] != FORMAT:
                raise ValueError(f"expected the format {FORMAT!r}, found {header['format']!r}")
            ivf = faiss.deserialize_index(np.frombuffer(payload, np.uint8))
            index = cls(ivf.d)
            index._ivf, index._learnt_from, index._changed = ivf, header["learnt_from"], header["changed"]
            return index, header["stamp"]
        except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
            raise IndexFileError(f"{path}: {error}") from error

    def _learn_cells(self, fresh: NDArray[np.floating], count: int) -> None:
        """Sort what there is into new cells for ``count`` vectors, learnt from it and from ``fresh`` ones."""
        ids, old = _contents(self._ivf)
        there = len(old) + len(fresh)
        cells = min(_cells(count), max(1, there // 4))
        chosen = np.random.default_rng(0).permutation(there)[: SAMPLE * cells]
        sample = np.concatenate([old[chosen[chosen < len(old)]], fresh[chosen[chosen >= len(old)] - len(old)]])
        self._ivf, self._learnt_from, self._changed = _inverted_file(self.dimension, cells), count, 0
        self._ivf.train(np.ascontiguousarray(sample, np.float32))
        self._insert(ids, old)


def _cells(count: int) -> int:
    """How many cells suit ``count`` vectors and their growth to twice as many: a power of two."""
    return 1 << round(math.log2(5 * count**0.5))


def _probes(cells: int, distance: float) -> int:
    """How many cells a search looks into.

    What is near lies in few cells: of what is nearer than ``NEAR`` these find over 99 of 100. A wider search takes
    more, until at least 95 of 100 among the ten nearest are found.
    """
    return max(1, min(cells, round(8 * cells**0.25 if distance <= NEAR else 3 * cells**0.5)))


def _inverted_file(dimension: int, cells: int) -> Any:  # faiss's types do not say what its arrays may be
    """An empty one; with one cell it is ready, with more it has to be trained."""
    ivf = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(dimension), dimension, cells, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    )
    ivf.cp.niter, ivf.cp.max_points_per_centroid, ivf.cp.min_points_per_centroid = ROUNDS, SAMPLE, 1
    ivf.cp.spherical = True
    ivf.by_residual = False  # vectors as they are, so that they can be sorted into other cells later
    if cells == 1:
        ivf.train(np.eye(1, dimension, dtype=np.float32))
    return ivf


def _contents(ivf: Any) -> tuple[Ids, NDArray[np.float16]]:
    """All ids (N,) and half-precision vectors (N, C)."""
    ids, vectors = [np.empty(0, np.int64)], [np.empty((0, ivf.d), np.float16)]
    for cell in range(ivf.nlist):
        if size := ivf.invlists.list_size(cell):
            ids.append(faiss.rev_swig_ptr(ivf.invlists.get_ids(cell), size).copy())
            codes = faiss.rev_swig_ptr(ivf.invlists.get_codes(cell), size * ivf.code_size).copy()
            vectors.append(codes.view(np.float16).reshape(size, ivf.d))
    return np.concatenate(ids), np.concatenate(vectors)
