"""A memory in a schema of a PostgreSQL database with the extension pgvector, for many clients that write at once.

The tables are those of SQLite; the vector index is the server's and takes part in its transactions, so that there is
nothing to follow and nothing to keep beside. A batch of queries is answered in one statement, ``postgres_search.sql``.
"""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

import psycopg
from psycopg import errors, sql
from psycopg.conninfo import conninfo_to_dict

from palimpsest.facts import Triple
from palimpsest.files import atomic_path
from palimpsest.memory import postgres_tables as tables
from palimpsest.memory.postgres_tables import Connection
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
from palimpsest.memory.tables import FORMAT

Done = TypeVar("Done")

SCHEMA = "palimpsest"  # unless the address says another
SCHEMA_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")
CONNECT_SECONDS = 10  # unless the address says how long
ATTEMPTS = 5  # at a transaction that the server undid for the sake of another client's
SHARED, EXCLUSIVE = "pg_advisory_xact_lock_shared", "pg_advisory_xact_lock"


class PostgresStore(Store):
    """Triples in a PostgreSQL schema.

    Deleting ends with ``VACUUM``, which takes what was deleted out of the tables and their indexes; while a transaction
    still sees the state before, it stays for the next one. When its bytes are overwritten in the server's files, and
    leave its write-ahead log, its replicas and its backups, is the server's affair.

    Args:
        url: ``postgresql://user:password@host/database?schema=NAME``; the schema is made if it is missing.
        dimension: length C of the vectors.
        embedders: the identity of what makes the vectors, by what they are of; the schema keeps it.
        read_only: only read; the memory has to be there.

    Raises:
        TripleMemoryError: the server cannot be reached or has no pgvector, the schema holds something else, or the
            memory was made with other vectors.
    """

    def __init__(self, url: str, dimension: int, embedders: dict[str, str], read_only: bool = False) -> None:
        self.read_only = read_only
        self._address, self.schema, self.place = _parse(url)
        self._lock = threading.RLock()
        self._closed = False
        with self._errors():
            self._db = self._connect()
            try:
                self._prepare({"format": FORMAT, "dimension": dimension} | embedders)
            except BaseException:
                self._db.close()
                raise

    # -- opening and closing ---------------------------------------------------------------------------------------

    def _connect(self) -> Connection:
        """A connection of our own manners: its statements find our tables, then the extension, wherever that is."""
        db = psycopg.connect(**self._address, autocommit=True)
        try:
            db.isolation_level = psycopg.IsolationLevel.READ_COMMITTED  # each statement sees what others have committed
            db.read_only = self.read_only or None
            db.execute(
                "SELECT set_config('search_path', concat_ws(', ', quote_ident(%s), 'public',"
                " (SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'vector')), false),"
                " set_config('timezone', 'UTC', false),"
                " set_config('jit', 'off', false),"  # compiling a search takes longer than running it
                " set_config('cursor_tuple_fraction', '1', false)",  # what is selected is read to its end
                (self.schema,),
            )
        except BaseException:
            db.close()
            raise
        return db

    def _prepare(self, wanted: dict[str, Any]) -> None:
        """Check that the schema holds a memory with these vectors; make one if it does not."""
        if not self._is_there():
            if self.read_only:
                raise TripleMemoryError(f"{self.place}: there is no such memory to read")
            self._create(wanted)
        meta = dict(self._db.execute("SELECT key, value FROM meta").fetchall())
        for key, value in wanted.items():
            if (found := meta.get(key)) != value:
                raise TripleMemoryError(f"{self.place}: {key}: made with {found!r}, but opened with {value!r}")

    def _is_there(self) -> bool:
        name = "quote_ident(%s) || '.meta'"
        return tables.one(self._db, f"SELECT to_regclass({name}) IS NOT NULL", (self.schema,))

    def _create(self, wanted: dict[str, Any]) -> None:
        """Make the tables; clients that want to at the same time, in whichever schema, take turns."""
        with self._db.transaction():
            self._db.execute("SELECT pg_advisory_xact_lock(hashtextextended('palimpsest', 0))")
            self._db.execute("CREATE EXTENSION IF NOT EXISTS vector SCHEMA public")
            if self._is_there():  # somebody else was faster
                return
            self._db.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(self.schema)))
            tables.create(self._db, wanted)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._db.close()

    # -- transactions ----------------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._closed:
            raise TripleMemoryError(f"{self.place}: this memory was closed")

    def _check_writable(self) -> None:
        self._check_open()
        if self.read_only:
            raise TripleMemoryError(f"{self.place}: opened to read only")

    @property
    def _connection(self) -> Connection:
        """The connection, made anew if the server has closed it."""
        self._check_open()
        if self._db.closed:
            self._db = self._connect()
        return self._db

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Errors of the server, the way there and of files, as errors of this memory."""
        try:
            yield
        except (psycopg.Error, sqlite3.Error, OSError) as error:
            message = error.diag.message_primary if isinstance(error, psycopg.Error) else None
            raise TripleMemoryError(f"{self.place}: {message or ' '.join(str(error).split())}") from error

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._lock, self._errors(), self._connection.transaction():
            yield self._db

    def _writing(self, lock: str, work: Callable[[Connection], Done]) -> Done:
        """Do ``work`` in a transaction that holds this memory's lock, ``SHARED`` or ``EXCLUSIVE``.

        Adding is shared: clients add at once, and take rows in one order, so that they never wait for each other in a
        circle. Removing and replacing are exclusive, because they decide by what is not there (no triple that uses a
        name, no other object), and what is not there cannot be locked as a row can. So foreign keys never fail here;
        they are for others who write to these tables.
        """
        self._check_writable()
        attempts = ATTEMPTS
        with self._lock, self._errors():
            while True:
                attempts -= 1
                try:
                    with self._connection.transaction():
                        self._db.execute(f"SELECT {lock}(hashtextextended(%s, 0))", (f"palimpsest.{self.schema}",))
                        return work(self._db)
                except (errors.SerializationFailure, errors.DeadlockDetected):
                    if not attempts:
                        raise

    @contextmanager
    def _still(self) -> Iterator[Connection]:
        """A connection of its own that sees one state, for as long as it takes."""
        self._check_open()
        with self._errors(), closing(self._connect()) as db:
            db.isolation_level, db.read_only = psycopg.IsolationLevel.REPEATABLE_READ, True
            with db.transaction():
                yield db

    # -- writing ---------------------------------------------------------------------------------------------------

    def unknown(self, entities: Sequence[str], relations: Sequence[str]) -> tuple[list[str], list[str]]:
        with self._reading() as db:
            known = tables.ids_of(db, "entities", entities), tables.ids_of(db, "relations", relations)
        return [name for name in entities if name not in known[0]], [name for name in relations if name not in known[1]]

    def add(self, triples: Sequence[Triple], sources: Sequence[Source], vectors: Vectors) -> int:
        return self._writing(SHARED, lambda db: tables.store_triples(db, triples, sources, vectors)[1])

    def replace(self, triple: Triple, source: Source, vectors: Vectors) -> list[Triple]:
        def work(db: Connection) -> list[Triple]:
            (ids,), _ = tables.store_triples(db, [triple], [source], vectors)
            return tables.retire_rivals(db, ids)

        return self._writing(EXCLUSIVE, work)

    def delete(self, triples: Sequence[Triple]) -> int:
        return self._delete(lambda db: tables.triples_named(db, triples))

    def delete_document(self, document: str) -> int:
        return self._delete(lambda db: tables.remove_sources(db, document))

    def delete_entity(self, name: str) -> int:
        return self._delete(lambda db: tables.triples_mentioning(db, name))

    def _delete(self, choose: Callable[[Connection], list[int]]) -> int:
        def work(db: Connection) -> int:
            chosen = choose(db)
            tables.remove_triples(db, chosen)
            return len(chosen)

        return self._writing(EXCLUSIVE, work)

    def erase(self) -> None:
        self._check_writable()
        with self._lock, self._errors():  # the server sweeps out dead rows at its leisure, and a few of them not at all
            self._connection.execute("VACUUM (INDEX_CLEANUP ON) triples, replaced, sources, entities, relations")

    # -- asking ----------------------------------------------------------------------------------------------------

    def search(self, queries: Sequence[VectorQuery], thresholds: Thresholds) -> list[Answer]:
        with self._reading() as db:
            return tables.search(db, queries, thresholds)

    def contains(self, triple: Triple) -> bool:
        with self._lock, self._errors():  # one statement needs no transaction around it
            return tables.contains(self._connection, triple)

    def select(self, pattern: Pattern) -> Iterator[StoredTriple]:
        return self._records(pattern, replaced=False)

    def history(self, pattern: Pattern) -> Iterator[StoredTriple]:
        return self._records(pattern, replaced=True)

    def _records(self, pattern: Pattern, replaced: bool) -> Iterator[StoredTriple]:
        with self._still() as db:
            yield from tables.select(db, pattern, replaced)

    def counts(self) -> Counts:
        numbers = (f"(SELECT count(*) FROM {table})" for table in ("triples", "entities", "relations", "replaced"))
        with self._reading() as db:
            return Counts(*db.execute(f"SELECT {', '.join(numbers)}").fetchall()[0])

    # -- the whole -------------------------------------------------------------------------------------------------

    def check(self) -> None:
        with self._reading() as db:
            problems = tables.problems(db)
        if problems:
            raise TripleMemoryError(f"{self.place}: {'; '.join(problems)}")

    def snapshot(self, path: Path) -> None:
        if path.exists():
            raise TripleMemoryError(f"{path}: is there already")
        with (
            self._still() as db,
            atomic_path(path) as temporary,
            closing(sqlite3.connect(temporary, isolation_level=None)) as file,
        ):
            tables.copy(db, file)


# -- addresses -----------------------------------------------------------------------------------------------------


def _parse(url: str) -> tuple[dict[str, Any], str, str]:
    """What to connect with, the schema, and a name for the place that can be shown: it has no password."""
    address, mark, query = url.rpartition("?")
    options = query.split("&") if mark else []
    schemas = [unquote(option.removeprefix("schema=")) for option in options if option.startswith("schema=")]
    if schemas:
        others = [option for option in options if not option.startswith("schema=")]
        url = f"{address}?{'&'.join(others)}" if others else address
    schema = schemas[-1] if schemas else SCHEMA
    try:
        parameters: dict[str, Any] = {"connect_timeout": CONNECT_SECONDS} | conninfo_to_dict(
            url, client_encoding="UTF8"
        )
        if not all(port.isdecimal() for port in str(parameters.get("port") or 0).split(",")):
            raise ValueError
    except (psycopg.Error, ValueError):  # whose message may quote a part of the password
        raise TripleMemoryError(
            "postgresql://…: not an address that PostgreSQL understands; are special characters written as %XX?"
        ) from None
    signs = {"user": "{}@", "host": "{}", "port": ":{}", "dbname": "/{}"}
    shown = "".join(sign.format(parameters[key]) for key, sign in signs.items() if parameters.get(key))
    if not SCHEMA_NAME.fullmatch(schema):
        raise TripleMemoryError(f"postgresql://{shown}: schema {schema!r}: expected lower-case letters, digits and _")
    return parameters, schema, f"postgresql://{shown}?schema={schema}"
