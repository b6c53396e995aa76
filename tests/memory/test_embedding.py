"""A memory embeds a name once, checks what comes, and keeps what was used last."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from by_hand import ONE_YEAR, Opened, objects, t, ts
from in_files import DIMENSION, EMBEDDER, embed

from palimpsest.facts import Query
from palimpsest.memory import Counts, FunctionEmbedder, Source, TripleMemory, TripleMemoryError
from palimpsest.memory.embedding import CachedEmbedder

# -- no more often than needed -------------------------------------------------------------------------------------


def test_new_names_are_embedded_once_and_in_one_batch(where: str, embedder: FunctionEmbedder) -> None:
    calls: list[list[str]] = []

    def embed(names: Sequence[str]) -> np.ndarray:
        calls.append(sorted(names))
        return np.asarray(embedder.encode(names))

    with TripleMemory.open(where, FunctionEmbedder(embed, embedder.identity, embedder.dimension)) as memory:
        triples = ts("a r b", "b r c", "a r c", "c q a")
        memory.add(triples)
        assert sorted(calls) == [["a", "b", "c"], ["q", "r"]]
        memory.add(triples)
        memory.update(t("a r c"))
        memory.query_batch([Query("r", subject="a"), Query("q", object="b")])
        assert len(calls) == 2
        memory.query_batch([Query(f"r{n % 3}", subject=f"x{n % 7}") for n in range(64)])
        assert [len(names) for names in calls[2:]] == [7, 3]


def test_stored_names_are_not_embedded_again_by_writing(
    opened: Opened, lasting: str, embedder: FunctionEmbedder
) -> None:
    def refuse(names: Sequence[str]) -> np.ndarray:
        raise AssertionError(f"{names} embedded again")

    opened().add(ts("a r b", "b r c"))
    with TripleMemory.open(lasting, FunctionEmbedder(refuse, embedder.identity, embedder.dimension)) as memory:
        assert memory.add(ts("a r c", "c r b")) == 2
        assert memory.update(t("a r a")) == ts("a r b", "a r c")


def test_the_cache_forgets_what_was_used_longest_ago(embedder: FunctionEmbedder) -> None:
    calls: list[list[str]] = []

    def embed(names: Sequence[str]) -> np.ndarray:
        calls.append(list(names))
        return np.asarray(embedder.encode(names))

    cached = CachedEmbedder(FunctionEmbedder(embed, "counting", embedder.dimension), capacity=2)
    cached(["a", "b"])
    cached(["a", "c"])  # b was used longest ago
    assert list(cached(["c", "a"])) == ["c", "a"]
    assert calls == [["a", "b"], ["c"]]
    cached(["b"])
    cached(["c", "b", "c"])
    assert calls[2:] == [["b"], ["c"]]
    assert list(cached(["1", "2", "3"])) == ["1", "2", "3"]  # more than it can keep


@pytest.mark.usefixtures("hasty")
def test_threads_that_ask_for_the_same_names_are_all_answered() -> None:
    cached, errors, barrier = CachedEmbedder(EMBEDDER, capacity=30), [], threading.Barrier(4)

    def use(seed: int) -> None:
        chance = random.Random(seed)
        try:
            barrier.wait(60)
            for _ in range(1500):
                names = [f"name {chance.randrange(40)}" for _ in range(8)]
                found = cached(names)
                assert found.keys() == set(names)
                assert found[names[0]] == pytest.approx(embed(names[:1])[0], abs=1e-6)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=use, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    if errors:
        raise errors[0]


def test_a_name_may_leave_the_cache_while_others_are_embedded_beside_it() -> None:
    embedding, go_on, found = threading.Event(), threading.Event(), {}

    def slowly(names: Sequence[str]) -> np.ndarray:
        if "slow" in names:
            embedding.set()
            go_on.wait(10)
        return embed(names)

    cached = CachedEmbedder(FunctionEmbedder(slowly, "slow", DIMENSION), capacity=1)
    cached(["known"])
    first = threading.Thread(target=lambda: found.update(cached(["known", "slow"])))
    first.start()
    assert embedding.wait(10)
    second = threading.Thread(target=cached, args=(["another"],))  # there is room for one: known has to go
    second.start()
    second.join(0.3)  # or it waits its turn
    go_on.set()
    first.join(10)
    second.join(10)
    assert found.keys() == {"known", "slow"}


# -- an embedder of their own for relations ------------------------------------------------------------------------


def test_relations_may_have_an_embedder_of_their_own(where: str, embedder: FunctionEmbedder) -> None:
    def opposite(names: Sequence[str]) -> np.ndarray:
        """All relations are one, but those that say "not"."""
        return np.eye(embedder.dimension)[[int("not" in name) for name in names]]

    relations = FunctionEmbedder(opposite, "opposites", embedder.dimension)
    with TripleMemory.open(where, embedder, relation_embedder=relations) as memory:
        memory.add(ts("a likes b", "a not-likes c"))
        assert objects(memory, "a", "loves") == ["b"]
        assert objects(memory, "a", "does-not-love") == ["c"]
    if where != ":memory:":
        with pytest.raises(TripleMemoryError, match=r"relation embedder.*opposites.*turned directions"):
            TripleMemory.open(where, embedder)
        with pytest.raises(TripleMemoryError, match="entity embedder"):
            TripleMemory.open(where, relations)
        with TripleMemory.open(where, embedder, relation_embedder=relations) as memory:
            assert objects(memory, "a", "loves") == ["b"]


def test_all_vectors_are_of_one_length(where: str, embedder: FunctionEmbedder) -> None:
    other = FunctionEmbedder(lambda names: np.eye(len(names), 12), "twelve", 12)
    with pytest.raises(ValueError, match="vectors of length 48 for entities, but 12 for relations"):
        TripleMemory.open(where, embedder, relation_embedder=other)


# -- embedders that go wrong ---------------------------------------------------------------------------------------


def spoilt(vectors: np.ndarray, value: object) -> np.ndarray:
    vectors[-1, 0] = value
    return vectors


BAD: dict[str, Callable[[np.ndarray], object]] = {
    "too long": lambda vectors: np.hstack([vectors, 0 * vectors[:, :1]]),
    "too short": lambda vectors: vectors[:, 1:],
    "too few": lambda vectors: vectors[1:],
    "too many": lambda vectors: np.vstack([vectors, vectors[:1]]),
    "one vector": lambda vectors: vectors[0],
    "none": lambda vectors: [],
    "NaN": lambda vectors: spoilt(vectors, np.nan),
    "infinite": lambda vectors: spoilt(vectors, np.inf),
    "huge": lambda vectors: spoilt(vectors, 1e300),
    "zero": lambda vectors: 0 * vectors,
    "not of length 1": lambda vectors: 1.01 * vectors,
    "uneven": lambda vectors: [*vectors[1:].tolist(), [1.0]],
    "text": lambda vectors: [["x"] * vectors.shape[1]] * len(vectors),
}


@pytest.mark.filterwarnings("ignore:overflow encountered")
@pytest.mark.parametrize("bad", BAD)
def test_bad_vectors_are_refused_and_nothing_is_written(where: str, embedder: FunctionEmbedder, bad: str) -> None:
    broken = False

    def embed(names: Sequence[str]) -> object:
        vectors = np.asarray(embedder.encode(names))
        return BAD[bad](vectors) if broken else vectors

    with TripleMemory.open(where, FunctionEmbedder(embed, "breaks", embedder.dimension)) as memory:
        memory.add(ts("a r b"), Source(time=ONE_YEAR))
        before = list(memory), memory.counts()
        broken = True
        with pytest.raises(ValueError):  # noqa: PT011 - numpy's words or ours
            memory.add(ts("a r b", "a r c", "d r e"), Source("new"))
        with pytest.raises(ValueError):  # noqa: PT011
            memory.update(t("a r f"))
        with pytest.raises(ValueError):  # noqa: PT011
            memory.query_batch([Query("r", subject="a"), Query("r", subject="g")])
        assert (list(memory), memory.counts()) == before
        assert objects(memory, "a", "r") == ["b"]  # known vectors are not asked for again
        broken = False
        assert memory.add(ts("a r c", "d r e")) == 2
        memory.check()


def test_an_embedder_that_fails_fails_aloud(where: str, embedder: FunctionEmbedder) -> None:
    def fail(names: Sequence[str]) -> object:
        raise RuntimeError("no memory left on the device")

    with TripleMemory.open(where, FunctionEmbedder(fail, "fails", embedder.dimension)) as memory:
        with pytest.raises(RuntimeError, match="on the device"):
            memory.add(ts("a r b"))
        assert memory.counts() == Counts(0, 0, 0, 0)
