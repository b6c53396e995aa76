"""What a place that keeps triples has to do; the two there are differ in nothing that their users can see.

A store knows names and unit vectors, not how vectors are made: :class:`~palimpsest.memory.memory.TripleMemory` embeds
names and checks everything that comes from outside before a store sees it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from palimpsest.facts import Known, Triple
from palimpsest.memory.query import Answer, Thresholds

Vector = NDArray[np.float32]


class TripleMemoryError(Exception):
    """A memory cannot be opened, read or written. What was acknowledged before is as it was."""


class UnknownNames(Exception):
    """Names without a vector are about to be stored: another client removed them meanwhile. Nothing was written."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = sorted(names)
        super().__init__(f"no vectors for {self.names}")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a triple comes from."""

    document: str | None = None
    """Title or id of the document that says so."""
    sentence: int | None = None
    """Which of its sentences, from 0."""
    writer: str | None = None
    """Who read it there: a model, an annotator."""
    time: datetime | None = None
    """When it was first stored; now, if not given. Kept to the microsecond, in UTC."""

    def __post_init__(self) -> None:
        if self.time is not None and self.time.tzinfo is None:
            raise ValueError(f"{self}: the time needs a time zone")
        if self.sentence is not None and self.sentence < 0:
            raise ValueError(f"{self}: sentences are counted from 0")

    def at(self, now: datetime) -> Source:
        """The same source with its time in UTC, or ``now`` if it has none."""
        return Source(self.document, self.sentence, self.writer, (self.time or now).astimezone(UTC))


NO_SOURCE = Source()


@dataclass(frozen=True, slots=True)
class StoredTriple:
    """A stored triple with all its sources, the oldest first.

    A triple that was replaced says when, and by which object (None if that was deleted since).
    """

    triple: Triple
    sources: tuple[Source, ...] = ()
    replaced_at: datetime | None = None
    replaced_by: str | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """How much a memory holds."""

    triples: int
    entities: int
    relations: int
    replaced: int
    """Triples that were replaced and are kept as history."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """Exact names to select triples by; None stands for any."""

    subject: str | None = None
    relation: str | None = None
    object: str | None = None
    document: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class VectorQuery:
    """A query whose names have become unit vectors (C,)."""

    known: Known
    entity: Vector
    relation: Vector


@dataclass(frozen=True, slots=True, eq=False)
class Vectors:
    """Unit vectors (C,) by name, of those names that a store does not have yet."""

    entities: Mapping[str, Vector] = field(default_factory=dict)
    relations: Mapping[str, Vector] = field(default_factory=dict)


class Store(ABC):
    """Keeps triples, finds them by vectors. Every writing method is one transaction: all of it or none of it."""

    read_only: bool

    @abstractmethod
    def unknown(self, entities: Sequence[str], relations: Sequence[str]) -> tuple[list[str], list[str]]:
        """Those of the names (all distinct) that the store has no vectors of."""

    @abstractmethod
    def add(self, triples: Sequence[Triple], sources: Sequence[Source], vectors: Vectors) -> int:
        """Store triples, each with its source, and return how many were not there before.

        Raises:
            UnknownNames: a name is neither stored nor among ``vectors``.
        """

    @abstractmethod
    def replace(self, triple: Triple, source: Source, vectors: Vectors) -> list[Triple]:
        """Make ``triple`` the only one of its subject and relation; return those that have become history.

        Raises:
            UnknownNames: a name is neither stored nor among ``vectors``.
        """

    @abstractmethod
    def delete(self, triples: Sequence[Triple]) -> int:
        """Remove triples with their sources, also from history, and return how many there were.

        Names that nothing mentions any more go too.
        """

    @abstractmethod
    def delete_document(self, document: str) -> int:
        """Remove the sources in a document and the triples that have no other; return how many triples that were."""

    @abstractmethod
    def delete_entity(self, name: str) -> int:
        """Remove an entity with all triples that mention it; return how many there were."""

    @abstractmethod
    def erase(self) -> None:
        """Rewrite the store's files, so that no copy of what was removed is left in them."""

    @abstractmethod
    def search(self, queries: Sequence[VectorQuery], thresholds: Thresholds) -> list[Answer]:
        """Answer queries, all from one state of the store; see :mod:`palimpsest.memory.query`."""

    @abstractmethod
    def contains(self, triple: Triple) -> bool:
        """Whether the triple is stored and current."""

    @abstractmethod
    def select(self, pattern: Pattern) -> Iterator[StoredTriple]:
        """The triples that fit, oldest first, all from one state of the store."""

    @abstractmethod
    def history(self, pattern: Pattern) -> Iterator[StoredTriple]:
        """The replaced triples that fit, in the order in which they were replaced."""

    @abstractmethod
    def counts(self) -> Counts:
        """How much there is."""

    @abstractmethod
    def check(self) -> None:
        """Look at everything; raise :class:`TripleMemoryError` if the store does not agree with itself."""

    @abstractmethod
    def snapshot(self, path: Path) -> None:
        """Write one state of the store as a single SQLite file, which must not exist."""

    @abstractmethod
    def close(self) -> None:
        """Let go of files and connections. Closing twice does nothing."""
