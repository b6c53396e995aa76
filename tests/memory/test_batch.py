"""Many queries at once are answered like single ones, in as many statements."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from by_hand import ts

from palimpsest.facts import Query, Triple
from palimpsest.memory import FunctionEmbedder, TripleMemory


def test_a_batch_answers_like_single_queries(memory: TripleMemory) -> None:
    memory.add(ts("a r b", "a~0.1 r c", "b r a", "c r~0.2 a", "a r~0.2 d", "d q a", "d q~0.1 b"))
    entities = ["a", "b", "c", "d", "a~0.1", "a~0.2", "d~0.3", "unknown"]
    queries = [
        Query(relation, **{known: entity})
        for entity in entities
        for relation in ("r", "r~0.1", "q", "unknown")
        for known in ("subject", "object")
    ]
    singly = [memory.query(query) for query in queries]
    assert sum(answer.total for answer in singly) > 20
    for query, alone, together in zip(queries, singly, memory.query_batch(queries), strict=True):
        assert together.names == alone.names, query
        assert together.total == alone.total
        assert [r.triple for r in together.results] == [r.triple for r in alone.results]
        assert [r.distance for r in together.results] == pytest.approx([r.distance for r in alone.results], abs=1e-5)
    assert [answer.names for answer in memory.query_batch(queries[::-1])] == [answer.names for answer in singly][::-1]


def test_the_same_query_twice_is_answered_twice(memory: TripleMemory) -> None:
    memory.add(ts("a r b"))
    query, back = Query("r", subject="a"), Query("r", object="b")
    assert [answer.names for answer in memory.query_batch([query, back, query, back])] == [["b"], ["a"]] * 2


def counted(memory: TripleMemory, action: Callable[[], object]) -> list[str]:
    """The SQL statements of an action on a SQLite memory."""
    statements: list[str] = []
    memory.store._connection.set_trace_callback(statements.append)
    action()
    memory.store._connection.set_trace_callback(None)
    return statements


def test_a_query_is_as_many_statements_with_one_pair_as_with_hundreds(embedder: FunctionEmbedder) -> None:
    with TripleMemory.open(":memory:", embedder) as memory:
        memory.add(ts("lonely r a"))
        for n in range(12):
            memory.add([Triple(f"s~{0.2 + m / 1000:.3f}", f"r~{0.2 + n / 1000:.3f}", f"o {m} {n}") for m in range(25)])
        one, many = Query("r", subject="lonely"), Query("r", subject="s")
        memory.query_batch([one, many])
        assert memory.query(one).total == 1
        assert memory.query(many).total == 300
        few = counted(memory, lambda: memory.query(one))
        assert len(few) == len(counted(memory, lambda: memory.query(many)))
        assert sum("SELECT" in statement for statement in few) < 10


def test_a_query_is_at_most_one_statement_more_where_many_pairs_say_the_same(embedder: FunctionEmbedder) -> None:
    with TripleMemory.open(":memory:", embedder) as memory:
        memory.add(ts("lonely r a"))
        for stem, count in (("s", 100), ("z", 290)):
            near = [f"{stem}~{0.1 + n / 10_000:.4f}" for n in range(count)]
            memory.add([Triple(name, "r", f"the same {n % 2}") for n, name in enumerate(near)])
        one, many, most = (Query("r", subject=name) for name in ("lonely", "s", "z"))
        assert [answer.total for answer in memory.query_batch([one, many, most])] == [1, 2, 2]
        counts = [len(counted(memory, lambda query=query: memory.query(query))) for query in (one, many, most)]
        assert counts[1] == counts[2] <= counts[0] + 1
        assert len(counted(memory, lambda: memory.query_batch([one, many, most]))) == counts[2]


def test_a_batch_is_as_many_statements_as_two_queries(embedder: FunctionEmbedder) -> None:
    with TripleMemory.open(":memory:", embedder) as memory:
        memory.add([Triple(f"s {n}", "r", f"o {n}") for n in range(32)])
        queries = [q for n in range(32) for q in (Query("r", subject=f"s {n}"), Query("r", object=f"o {n}"))]
        few, many = (
            counted(memory, lambda chosen=chosen: memory.query_batch(chosen)) for chosen in (queries[:2], queries)
        )
        assert len(queries) == 64
        assert len(few) == len(many)
        same = counted(memory, lambda: memory.query_batch(queries[::2]))
        assert len(counted(memory, lambda: memory.query(queries[0]))) == len(same) < len(few)
