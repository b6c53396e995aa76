"""A memory in one SQLite file (or in RAM), with a vector index beside it that can always be made again.

The tables are the truth. They are written in WAL mode, so that one process writes while others read, and synced to disk
at every commit. The index lives in each process and follows the tables; ``FILE.index`` only saves making it anew.
"""

from __future__ import annotations

import glob
import sqlite3
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from palimpsest.facts import Triple
from palimpsest.files import atomic_path
from palimpsest.memory import asking, tables
from palimpsest.memory.matching import make_answer, matching_pairs, pairs_to_read
from palimpsest.memory.mirror import Mirror
from palimpsest.memory.query import Answer, Thresholds
from palimpsest.memory.store import (
    Counts,
    Pattern,
    Source,
    Store,
    StoredTriple,
    TripleMemoryError,
    VectorQuery,
    Vectors,
)

BUSY_SECONDS = 30.0  # how long one writer waits for another
READERS_MILLISECONDS = 300  # how long a deletion waits for readers to end, so that it can empty the log
IN_RAM = ":memory:"
WORTH_SAVING = 4096  # vectors; fewer are indexed in no time


class SqliteStore(Store):
    """Triples in a SQLite file.

    Args:
        path: the file, made if it is missing; or ``:memory:``.
        dimension: length C of the vectors.
        embedders: the identity of what makes the vectors, by what they are of; the file keeps it.
        read_only: only read; the file has to be there.

    Raises:
        TripleMemoryError: the file cannot be opened, is damaged, is no memory, or was made with other vectors.
    """

    def __init__(self, path: str | Path, dimension: int, embedders: dict[str, str], read_only: bool = False) -> None:
        self.path = path if path == IN_RAM else Path(path).absolute()
        self.read_only = read_only
        self._lock = threading.RLock()
        self._log_is_full = False  # of what was deleted
        self._db: sqlite3.Connection | None = self._connect(read_only)
        try:
            with self._errors():
                self._prepare({"format": tables.FORMAT, "dimension": dimension} | embedders)
        except BaseException:
            self._db.close()
            raise
        self._entities, self._relations = Mirror("entities", dimension), Mirror("relations", dimension)
        if self.index_path:
            self._entities.load(self.index_path, self._index_mark)

    @property
    def index_path(self) -> Path | None:
        """Where the vector index is kept between runs; None for a memory in RAM."""
        return self.path.with_name(f"{self.path.name}.index") if isinstance(self.path, Path) else None

    # -- opening and closing ---------------------------------------------------------------------------------------

    def _connect(self, read_only: bool) -> sqlite3.Connection:
        if not isinstance(self.path, Path):
            return sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        if read_only and not self.path.is_file():
            raise TripleMemoryError(f"{self.path}: there is no such file to read")
        address = f"{self.path.as_uri()}?mode={'ro' if read_only else 'rwc'}"
        with self._errors():
            return sqlite3.connect(
                address, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )

    def _prepare(self, wanted: dict[str, Any]) -> None:
        """Check that the file is a memory with these vectors; make an empty file one."""
        db = self._connection
        empty = self._is_empty()
        if not empty and db.execute("PRAGMA application_id").fetchone()[0] != tables.APPLICATION:
            raise TripleMemoryError(f"{self.path}: a SQLite file, but not a memory of triples")
        self._check_length()
        db.execute("PRAGMA cache_size = -65536")  # KiB
        if not self.read_only:
            db.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten
            db.execute("PRAGMA synchronous = FULL")
            self._use_log()
        if empty and not self.read_only:
            with self._writing():
                if self._is_empty():  # nobody else was faster
                    tables.create(db, wanted)
        elif empty:
            raise TripleMemoryError(f"{self.path}: an empty file, not a memory of triples")
        for key, value in wanted.items():
            if (found := self._meta(key)) != value:
                raise TripleMemoryError(f"{self.path}: {key}: made with {found!r}, but opened with {value!r}")

    def _use_log(self) -> None:
        """Switch a new file to WAL mode. SQLite does not wait for others here, who may be making the same memory."""
        give_up = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                    raise
                time.sleep(0.01)

    def _is_empty(self) -> bool:
        return self._connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0

    def _check_length(self) -> None:
        """A file that was cut off is told before half of it is used; with a log beside it, SQLite knows better."""
        if not isinstance(self.path, Path):
            return
        log = self.path.with_name(f"{self.path.name}-wal")
        with self._reading() as db:  # meanwhile nobody can move pages between log and file
            db.execute("SELECT count(*) FROM sqlite_schema")
            expected = db.execute("PRAGMA page_count").fetchone()[0] * db.execute("PRAGMA page_size").fetchone()[0]
            in_log = log.is_file() and log.stat().st_size
            if not in_log and (size := self.path.stat().st_size) < expected:
                raise TripleMemoryError(f"{self.path}: cut off: {size} bytes of {expected}")

    def close(self) -> None:
        with self._lock:
            if self._db is None:
                return
            try:
                if self._log_is_full:
                    self._empty_log()
                self._save_index()
            finally:
                self._db.close()
                self._db = None

    def _save_index(self) -> None:
        """Keep the vector index for the next opening. Nobody deletes meanwhile: it must not hold what is deleted."""
        mirror = self._entities
        if self.read_only or not self.index_path or not mirror.changed or len(mirror.index) < WORTH_SAVING:
            return
        with self._writing() as db:
            mirror.catch_up(db)
            # Tables that are put back from a copy bear an earlier mark: then they do not believe an index of later.
            db.execute("UPDATE meta SET value = ? WHERE key = 'index mark'", (uuid.uuid4().hex,))
            mirror.save(self.index_path, self._index_mark)

    def _remove_index(self) -> None:
        """Index files hold vectors of what is deleted, also one that somebody died in writing. Nobody writes now."""
        if not self.index_path:
            return
        self.index_path.unlink(missing_ok=True)
        for unfinished in self.index_path.parent.glob(f".{glob.escape(self.index_path.stem)}.????????.index"):
            unfinished.unlink(missing_ok=True)
        self._entities.changed = True

    # -- transactions ----------------------------------------------------------------------------------------------

    @property
    def _connection(self) -> sqlite3.Connection:
        if self._db is None:
            raise TripleMemoryError(f"{self.path}: this memory was closed")
        return self._db

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Errors of SQLite and of files, as errors of this memory."""
        try:
            yield
        except (sqlite3.Error, OSError, ValueError) as error:  # values that cannot be read are damage too
            raise TripleMemoryError(f"{self.path}: {error}") from error

    @contextmanager
    def _transaction(self, kind: str) -> Iterator[sqlite3.Connection]:
        with self._lock, self._errors():
            db = self._connection
            db.execute(f"BEGIN {kind}")
            try:
                yield db
                db.execute("COMMIT")
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")

    def _reading(self) -> Any:
        """A transaction that sees one state of the tables."""
        return self._transaction("DEFERRED")

    def _writing(self) -> Any:
        """A transaction beside which nobody else writes."""
        self._check_writable()
        return self._transaction("IMMEDIATE")

    def _check_writable(self) -> None:
        self._connection  # noqa: B018 - tells a closed memory
        if self.read_only:
            raise TripleMemoryError(f"{self.path}: opened to read only")

    @property
    def _index_mark(self) -> str:
        return str(self._meta("index mark"))

    def _meta(self, key: str) -> Any:
        row = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return row and row[0]

    # -- writing ---------------------------------------------------------------------------------------------------

    def unknown(self, entities: Sequence[str], relations: Sequence[str]) -> tuple[list[str], list[str]]:
        with self._reading() as db:
            known = tables.ids_of(db, "entities", entities), tables.ids_of(db, "relations", relations)
        return [name for name in entities if name not in known[0]], [name for name in relations if name not in known[1]]

    def add(self, triples: Sequence[Triple], sources: Sequence[Source], vectors: Vectors) -> int:
        with self._writing() as db:
            _, stored = tables.store_triples(db, triples, sources, vectors)
        return stored

    def replace(self, triple: Triple, source: Source, vectors: Vectors) -> list[Triple]:
        with self._writing() as db:
            (ids,), _ = tables.store_triples(db, [triple], [source], vectors)
            return tables.retire_rivals(db, ids)

    def delete(self, triples: Sequence[Triple]) -> int:
        return self._delete(lambda db: tables.triples_named(db, triples))

    def delete_document(self, document: str) -> int:
        return self._delete(lambda db: tables.remove_sources(db, document))

    def delete_entity(self, name: str) -> int:
        return self._delete(lambda db: tables.triples_mentioning(db, name))

    def _delete(self, choose: Callable[[sqlite3.Connection], list[int]]) -> int:
        with self._writing() as db:
            chosen = choose(db)
            tables.remove_triples(db, chosen)
            self._remove_index()
        with self._reading() as db:
            self._follow(db)
        return len(chosen)

    def erase(self) -> None:
        """Rewrite the file, as moving rows from page to page leaves copies behind; and empty its log.

        SQLite overwrites a row that is deleted, but not what it left elsewhere when pages were split or merged.
        """
        self._check_writable()
        if not isinstance(self.path, Path):
            return
        with self._lock, self._errors():
            self._connection.execute("VACUUM")
            self._empty_log()
        if self._log_is_full:
            warnings.warn(
                f"{self.path}: deleted, but a reader holds on to the state before: the bytes leave the file's log with"
                " the next deletion, or when a writer closes the memory after it",
                stacklevel=4,
            )

    def _empty_log(self) -> None:
        """Move what is current from the write-ahead log into the file and cut the log, unless readers need it."""
        db = self._connection
        db.execute(f"PRAGMA busy_timeout = {READERS_MILLISECONDS}")
        self._log_is_full = bool(db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0])
        db.execute(f"PRAGMA busy_timeout = {round(1000 * BUSY_SECONDS)}")

    # -- asking ----------------------------------------------------------------------------------------------------

    def _follow(self, db: sqlite3.Connection) -> None:
        self._entities.catch_up(db)
        self._relations.catch_up(db)

    def search(self, queries: Sequence[VectorQuery], thresholds: Thresholds) -> list[Answer]:
        answers = [Answer()] * len(queries)
        with self._reading() as db:
            self._follow(db)
            for known in ("subject", "object"):
                places = [place for place, query in enumerate(queries) if query.known == known]
                if places:
                    found = self._search(db, known, [queries[place] for place in places], thresholds)
                    for place, answer in zip(places, found, strict=True):
                        answers[place] = answer
        return answers

    def _search(
        self, db: sqlite3.Connection, known: Any, queries: Sequence[VectorQuery], thresholds: Thresholds
    ) -> list[Answer]:
        """Answer queries that all give their subject, or all their object, in at most four statements."""
        entities = self._entities.nearest(
            np.stack([query.entity for query in queries]), thresholds.entity, thresholds.max_entities
        )
        relations = self._relations.nearest(
            np.stack([query.relation for query in queries]), thresholds.relation, thresholds.max_relations
        )
        counts = asking.pair_counts(db, known, set().union(*entities), set().union(*relations))
        matching = [matching_pairs(*near, counts, thresholds) for near in zip(entities, relations, strict=True)]
        limit = thresholds.max_results
        chosen = [pairs_to_read(pairs, limit) for pairs in matching]
        rows = asking.read_closest(db, known, chosen, limit)
        totals = asking.count_distinct(db, known, {n: pairs for n, pairs in enumerate(matching) if pairs})
        return [
            make_answer(pairs, read, totals.get(number, 0), known, limit)
            for number, (pairs, read) in enumerate(zip(chosen, rows, strict=True))
        ]

    def contains(self, triple: Triple) -> bool:
        with self._reading() as db:
            return tables.contains(db, triple)

    def select(self, pattern: Pattern) -> Iterator[StoredTriple]:
        return self._records(pattern, replaced=False)

    def history(self, pattern: Pattern) -> Iterator[StoredTriple]:
        return self._records(pattern, replaced=True)

    def _records(self, pattern: Pattern, replaced: bool) -> Iterator[StoredTriple]:
        if not isinstance(self.path, Path):
            with self._reading() as db:
                records = list(tables.select(db, pattern, replaced))
            yield from records
            return
        self._connection  # noqa: B018 - tells a closed memory
        with self._errors(), closing(self._connect(read_only=True)) as db:  # its own state, for as long as it takes
            yield from tables.select(db, pattern, replaced)

    def counts(self) -> Counts:
        with self._reading() as db:
            numbers = (
                db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
                for table in ("triples", "entities", "relations", "replaced")
            )
            return Counts(*numbers)

    # -- the whole -------------------------------------------------------------------------------------------------

    def check(self) -> None:
        with self._reading() as db:
            self._follow(db)
            problems = tables.problems(db)
            for mirror in (self._entities, self._relations):
                problems += mirror.problems(db)
        if problems:
            raise TripleMemoryError(f"{self.path}: {'; '.join(problems)}")

    def snapshot(self, path: Path) -> None:
        if path.exists():
            raise TripleMemoryError(f"{path}: is there already")
        with self._lock, self._errors(), atomic_path(path) as temporary:
            self._connection.execute("VACUUM INTO ?", (str(temporary),))
