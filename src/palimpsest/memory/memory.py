"""MemLLM's explicit memory: relation triples that can be asked for in other words than they were written in.

>>> memory = TripleMemory.open("memory.db", SentenceEncoder.load())             # doctest: +SKIP
>>> memory.add([Triple("Dancing on Coral", "author", "Glenda Adams")])          # doctest: +SKIP
>>> memory.query(Query("author", subject="Dancing On Coral")).names             # doctest: +SKIP
['Glenda Adams']
>>> memory.query(Query("written by", subject="Dancing on Coral"), EDITING).names  # doctest: +SKIP
['Glenda Adams']
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType

from palimpsest.facts import Query, Triple
from palimpsest.memory.embedding import CachedEmbedder, Embedder
from palimpsest.memory.query import LANGUAGE_MODELLING, Answer, Thresholds
from palimpsest.memory.sqlite import SqliteStore
from palimpsest.memory.store import (
    NO_SOURCE,
    Counts,
    Pattern,
    Source,
    Store,
    StoredTriple,
    UnknownNames,
    VectorQuery,
    Vectors,
)

MAX_NAME_BYTES = 2000  # PostgreSQL indexes no more; no name of anything is longer
POSTGRES = ("postgresql://", "postgres://")


class TripleMemory:
    """Triples of names with their sources; open one with :meth:`open`.

    Names are kept exactly as they are given, any Unicode and any punctuation. A name that is blank, longer than 2,000
    bytes of UTF-8, or has a character that UTF-8 or PostgreSQL cannot hold (lone surrogates, NUL) is a ValueError, as
    is a vector that is not a unit vector of the embedder's length; nothing is then written.

    Each call that writes is one transaction: when it has returned, all of it is on disk; if the process dies before,
    nothing of it is there. Failures of files and servers are a :class:`~palimpsest.memory.store.TripleMemoryError`.
    An object may be used by several threads, and a memory by several processes.
    """

    def __init__(
        self, store: Store, embedder: Embedder, relation_embedder: Embedder, thresholds: Thresholds = LANGUAGE_MODELLING
    ) -> None:
        self.store = store
        self.thresholds = thresholds
        """How near is near enough for queries that do not say."""
        self._embed = CachedEmbedder(embedder)
        self._embed_relations = self._embed if relation_embedder is embedder else CachedEmbedder(relation_embedder)

    @classmethod
    def open(
        cls,
        where: str | Path,
        embedder: Embedder,
        *,
        relation_embedder: Embedder | None = None,
        thresholds: Thresholds = LANGUAGE_MODELLING,
        read_only: bool = False,
    ) -> TripleMemory:
        """Open a memory, or make it if there is none.

        Args:
            where: a file; ``:memory:`` for one that lives as long as this object; or ``postgresql://…``, a database
                with the extension pgvector, where ``?schema=NAME`` chooses one of several memories.
            embedder: makes the vectors of entities: a ``SentenceEncoder``, or a ``FunctionEmbedder`` around any
                function. The memory remembers its identity.
            relation_embedder: makes those of relation types, of the same length; the same if not given.
            thresholds: how near is near enough for queries that do not say.
            read_only: refuse to write; the memory has to be there.

        Raises:
            TripleMemoryError: there is something else, it is damaged, or it was made with another embedder.
        """
        relation_embedder = relation_embedder or embedder
        if relation_embedder.dimension != embedder.dimension:
            raise ValueError(
                f"vectors of length {embedder.dimension} for entities, but {relation_embedder.dimension} for relations"
            )
        identities = {"entity embedder": embedder.identity, "relation embedder": relation_embedder.identity}
        if str(where).startswith(POSTGRES):
            from palimpsest.memory.postgres import PostgresStore  # its driver is only needed here

            store: Store = PostgresStore(str(where), embedder.dimension, identities, read_only)
        else:
            store = SqliteStore(where, embedder.dimension, identities, read_only)
        return cls(store, embedder, relation_embedder, thresholds)

    def close(self) -> None:
        """Let go of files and connections; further use is an error, closing again is not."""
        self.store.close()

    def __enter__(self) -> TripleMemory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- writing ---------------------------------------------------------------------------------------------------

    def add(self, triples: Iterable[Triple], source: Source | Sequence[Source] = NO_SOURCE) -> int:
        """Store triples and return how many were not there before.

        A triple that is there already gets a further source, unless it has that one too; so adding twice changes
        nothing. A replaced triple that is added again is current again.

        Args:
            source: where all of them come from, or one source for each.
        """
        triples = list(triples)
        sources = [source] * len(triples) if isinstance(source, Source) else list(source)
        if len(sources) != len(triples):
            raise ValueError(f"{len(triples)} triples but {len(sources)} sources")
        _check(triples, sources)
        if not triples:
            return 0
        while True:
            try:
                return self.store.add(triples, sources, self._vectors(triples))
            except UnknownNames:  # another client removed names after we asked for what is new
                continue

    def update(self, triple: Triple, source: Source = NO_SOURCE) -> list[Triple]:
        """Make ``triple`` the only one of its subject and relation, and return those that it replaced.

        For functional relations: the object changes. What is replaced is no longer found by queries, but stays in
        :meth:`history`.
        """
        _check([triple], [source])
        while True:
            try:
                return self.store.replace(triple, source, self._vectors([triple]))
            except UnknownNames:
                continue

    def delete(self, triples: Iterable[Triple], *, erase: bool = True) -> int:
        """Remove triples for good, also from history; return how many there were. Others are passed over.

        After this and the other deletions nothing of what was removed can be asked for, iterated or found in the vector
        index. A file still holds copies of its bytes until it is rewritten, which takes about a second for a hundred
        thousand triples.

        Args:
            erase: rewrite the file at once. Who deletes many times in a row can leave that to the last time, or to
                :meth:`erase`.
        """
        named = [t for t in triples if storable(t.subject, t.relation, t.object)]
        return self._erased(self.store.delete(named), erase)

    def delete_entity(self, name: str, *, erase: bool = True) -> int:
        """Remove an entity and all triples that mention it for good; return how many there were."""
        return self._erased(self.store.delete_entity(name) if storable(name) else 0, erase)

    def delete_document(self, document: str, *, erase: bool = True) -> int:
        """Remove all that comes from one document alone for good; return how many triples there were."""
        return self._erased(self.store.delete_document(document) if storable(document) else 0, erase)

    def erase(self) -> None:
        """Rewrite the memory's file, so that no copy of what was deleted is left in it."""
        self.store.erase()

    def _erased(self, deleted: int, erase: bool) -> int:
        if erase:
            self.store.erase()
        return deleted

    # -- asking ----------------------------------------------------------------------------------------------------

    def query(self, query: Query, thresholds: Thresholds | None = None) -> Answer:
        """Answer one query; see :mod:`palimpsest.memory.query` for what counts as an answer."""
        return self.query_batch([query], thresholds)[0]

    def query_batch(self, queries: Sequence[Query], thresholds: Thresholds | None = None) -> list[Answer]:
        """Answer queries from one state of the memory, with one call of the embedder for all names that are new."""
        for query in queries:
            _check_name(query.entity, str(query.known))
            _check_name(query.relation, "relation")
        if not queries:
            return []
        entities = self._embed(query.entity for query in queries)
        relations = self._embed_relations(query.relation for query in queries)
        asked = [VectorQuery(query.known, entities[query.entity], relations[query.relation]) for query in queries]
        return self.store.search(asked, thresholds or self.thresholds)

    def select(
        self,
        *,
        subject: str | None = None,
        relation: str | None = None,
        object: str | None = None,
        document: str | None = None,
    ) -> Iterator[StoredTriple]:
        """The current triples with exactly these names, or from this document, oldest first."""
        fits = storable(subject, relation, object, document)
        return self.store.select(Pattern(subject, relation, object, document)) if fits else iter(())

    def history(
        self, *, subject: str | None = None, relation: str | None = None, object: str | None = None
    ) -> Iterator[StoredTriple]:
        """The replaced triples with exactly these names, in the order in which they were replaced."""
        fits = storable(subject, relation, object)
        return self.store.history(Pattern(subject, relation, object)) if fits else iter(())

    def __contains__(self, triple: Triple) -> bool:
        """Whether exactly this triple is stored, and was not replaced since."""
        return storable(triple.subject, triple.relation, triple.object) and self.store.contains(triple)

    def __iter__(self) -> Iterator[StoredTriple]:
        return self.select()

    def __len__(self) -> int:
        return self.counts().triples

    def counts(self) -> Counts:
        """How many triples, entities, relation types and replaced triples there are."""
        return self.store.counts()

    # -- the whole -------------------------------------------------------------------------------------------------

    def snapshot(self, path: str | Path) -> None:
        """Write one state of the memory, with its history, as a new SQLite file, which can be opened like any other.

        Raises TripleMemoryError if the file is there already.
        """
        self.store.snapshot(Path(path))

    def check(self) -> None:
        """Read everything, and raise a TripleMemoryError if tables and vector index do not agree."""
        self.store.check()

    def _vectors(self, triples: Sequence[Triple]) -> Vectors:
        """Vectors of those names that the store does not have yet."""
        entities = dict.fromkeys(name for triple in triples for name in (triple.subject, triple.object))
        relations = dict.fromkeys(triple.relation for triple in triples)
        new_entities, new_relations = self.store.unknown(list(entities), list(relations))
        return Vectors(self._embed(new_entities), self._embed_relations(new_relations))


def _check(triples: Sequence[Triple], sources: Sequence[Source]) -> None:
    for triple in triples:
        for role in ("subject", "relation", "object"):
            _check_name(getattr(triple, role), role)
    for source in sources:
        for role in ("document", "writer"):
            if (name := getattr(source, role)) is not None:
                _check_name(name, role)


def _check_name(name: str, role: str) -> None:
    if problem := _problem(name):
        raise ValueError(f"{role} {reprlib.repr(name)}: {problem}")


def storable(*names: str | None) -> bool:
    """Whether a memory may have these names; of others it has nothing to show or to delete."""
    return all(name is None or _problem(name) is None for name in names)


def _problem(name: str) -> str | None:
    """Why a name cannot be stored, if it cannot."""
    if not isinstance(name, str):
        return f"expected text, got {type(name).__name__}"
    if not name.strip():
        return "expected a name, got blank text"
    if "\0" in name:
        return "has a NUL character"
    try:
        return f"longer than {MAX_NAME_BYTES} bytes" if len(name.encode()) > MAX_NAME_BYTES else None
    except UnicodeEncodeError:
        return "has a character that UTF-8 cannot encode"
