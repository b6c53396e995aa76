"""A vector index that follows a table of named vectors."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from palimpsest.memory.index import IndexFileError, VectorIndex

READ_AT_ONCE = 131_072  # vectors
CRC_BYTES = 4


class Mirror:
    """The vectors of one table (``entities`` or ``relations``) as an index, brought up to date from the table.

    Other processes write to the table too. What they added has larger ids than any seen before, and what they
    removed is listed in ``removed``; so catching up reads only what is new.
    """

    def __init__(self, table: str, dimension: int) -> None:
        self.table = table
        self.index = VectorIndex(dimension)
        self.last_id = 0
        """The largest id seen; ids are never used twice."""
        self.last_removal = 0
        """The last entry of ``removed`` seen."""
        self.changed = False
        """Whether there is something that an index file does not have."""

    def catch_up(self, db: sqlite3.Connection) -> None:
        """Follow the table to the state that ``db``'s transaction sees."""
        removals = db.execute(
            "SELECT number, id FROM removed WHERE number > ? AND kind = ? ORDER BY number",
            (self.last_removal, self.table),
        ).fetchall()
        if removals:
            self.index.remove([identifier for _, identifier in removals])
            self.last_removal = removals[-1][0]
        (newest,) = db.execute(f"SELECT max(id) FROM {self.table}").fetchone()
        rows = db.execute(f"SELECT id, vector FROM {self.table} WHERE id > ? ORDER BY id", (self.last_id,))
        added = False
        while batch := rows.fetchmany(READ_AT_ONCE):
            ids, vectors = zip(*batch, strict=True)
            self.index.add(np.array(ids), from_bytes(vectors), coming=newest - ids[-1])
            self.last_id, added = ids[-1], True
        self.changed = self.changed or added or bool(removals)

    def nearest(self, vectors: NDArray[np.float32], distance: float, limit: int) -> list[dict[int, float]]:
        """For each row of ``vectors`` (B, C) the ids nearer than ``distance``, nearest first, with their distances."""
        found = self.index.search(vectors, distance, limit)
        return [dict(zip(ids.tolist(), distances.tolist(), strict=True)) for ids, distances in found]

    def problems(self, db: sqlite3.Connection) -> list[str]:
        """In what the index differs from the table; it has been brought up to date."""
        rows = db.execute(f"SELECT id, vector FROM {self.table}").fetchall()
        stored = dict(rows)
        indexed = dict(zip(*self.index.contents(), strict=True))
        if stored.keys() != indexed.keys():
            return [f"{self.table}: {len(stored)} in the table, {len(indexed)} in the index, or others"]
        wrong = [i for i, vector in stored.items() if vector != to_bytes(indexed[i])]
        return [f"{self.table}: the index has other vectors of {len(wrong)}"] if wrong else []

    def save(self, path: Path, mark: str) -> None:
        """Write the index to a file that says how far it follows the table. ``mark`` is that of this saving."""
        stamp: dict[str, str | int] = {"mark": mark, "last_id": self.last_id, "last_removal": self.last_removal}
        self.index.save(path, stamp)
        self.changed = False

    def load(self, path: Path, mark: str) -> None:
        """Start from such a file, if it is there, whole, and bears the mark."""
        try:
            index, stamp = VectorIndex.load(path)
        except IndexFileError:
            return
        if stamp.get("mark") == mark and index.dimension == self.index.dimension:
            self.index = index
            self.last_id, self.last_removal = int(stamp["last_id"]), int(stamp["last_removal"])


def to_bytes(vector: NDArray[np.floating]) -> bytes:
    """A vector (C,) as it is stored: little-endian half precision, then its CRC-32."""
    content = vector.astype("<f2").tobytes()
    return content + crc32(content).to_bytes(CRC_BYTES, "little")


def from_bytes(stored: Sequence[bytes]) -> NDArray[np.float16]:
    """Stored vectors as (N, C). Raises ValueError for one that is not as it was written."""
    contents = [vector[:-CRC_BYTES] for vector in stored]
    for content, vector in zip(contents, stored, strict=True):
        if crc32(content).to_bytes(CRC_BYTES, "little") != vector[-CRC_BYTES:]:
            raise ValueError("a vector is damaged")
    return np.frombuffer(b"".join(contents), "<f2").reshape(len(stored), -1)
