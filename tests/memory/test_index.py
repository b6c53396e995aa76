"""The vector index: exact while it is small, nearly so when it has grown, and nothing is left of what was removed."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palimpsest.memory.index import EXACT_UP_TO, IndexFileError, VectorIndex

DIMENSION = 32
HALF = 3e-4  # what half precision may do to a distance
STAMP: dict[str, str | int] = {"memory": "of these tests", "last_id": 12}


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def directions(count: int, seed: int = 0) -> np.ndarray:
    """Random ones (count, C)."""
    return unit(np.random.default_rng(seed).standard_normal((count, DIMENSION), np.float32))


def scattered(count: int, seed: int = 0) -> np.ndarray:
    """Random directions as a memory stores them, in half precision (count, C)."""
    return directions(count, seed).astype(np.float16)


def clustered(count: int, seed: int = 0) -> np.ndarray:
    """The same in families of eight, whose members are at 0.1 to 0.2 of one another (count, C)."""
    stems = np.repeat(directions(-(-count // 8), seed), 8, axis=0)[:count]
    return unit(stems + np.float32(0.4) * directions(count, seed + 1)).astype(np.float16)


def near(vectors: np.ndarray, seed: int = 0) -> np.ndarray:
    """Each vector turned a little at random: by a cosine distance of up to about 0.15."""
    weights = np.random.default_rng(seed).uniform(0.01, 0.6, (len(vectors), 1))
    return unit(vectors + weights * directions(len(vectors), seed + 1))


def filled(vectors: np.ndarray, first: int = 1, batch: int | None = None) -> VectorIndex:
    """An index of vectors under the ids ``first``, ``first`` + 1, …, added in batches."""
    index = VectorIndex(vectors.shape[1])
    for start in range(0, len(vectors), batch or len(vectors)):
        part = vectors[start : start + (batch or len(vectors))]
        index.add(np.arange(first + start, first + start + len(part)), part)
    return index


def distances(queries: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """All of them, exactly (B, N)."""
    return np.maximum(1 - queries.astype(np.float64) @ vectors.astype(np.float64).T, 0)


def recall(index: VectorIndex, vectors: np.ndarray, queries: np.ndarray, distance: float, first: int = 1) -> float:
    """Which part of all that is nearer than ``distance`` to the queries is found."""
    wanted = found = 0
    for row, (ids, _) in zip(distances(queries, vectors), index.search(queries, distance, 10**6), strict=True):
        truth = set((np.flatnonzero(row < distance - HALF) + first).tolist())
        wanted += len(truth)
        found += len(truth & set(ids.tolist()))
        assert set(ids.tolist()) <= set((np.flatnonzero(row < distance + HALF) + first).tolist())
    assert wanted >= len(queries) / 2
    return found / wanted


def stored(index: VectorIndex) -> dict[int, bytes]:
    return {int(identifier): vector.tobytes() for identifier, vector in zip(*index.contents(), strict=True)}


def half(vectors: np.ndarray, first: int = 1) -> dict[int, bytes]:
    return {first + n: vector.tobytes() for n, vector in enumerate(vectors)}


# -- small: exact --------------------------------------------------------------------------------------------------


def test_an_empty_index_finds_nothing() -> None:
    index = VectorIndex(DIMENSION)
    assert len(index) == 0
    for ids, found in index.search(directions(3), 2.0, 10):
        assert len(ids) == len(found) == 0
    assert stored(index) == {}
    index.remove([1, 2])
    index.remove([])


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 300),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.05, 0.15, 0.5, 0.8, 1.0, 1.5]),
    st.integers(1, 400),
    st.sampled_from([1, 7, 100]),
)
def test_small_means_exact(count: int, seed: int, distance: float, limit: int, batch: int) -> None:
    vectors = clustered(count, seed)
    index = filled(vectors, first=5, batch=batch)
    queries = np.concatenate([near(vectors[:6], seed), directions(2, seed + 9)])
    for row, (ids, found) in zip(distances(queries, vectors), index.search(queries, distance, limit), strict=True):
        assert (np.diff(found) >= 0).all()
        assert (found < distance).all()
        assert (found >= 0).all()
        assert found == pytest.approx(row[ids - 5], abs=HALF)
        least, most = (row < distance - HALF).sum(), (row < distance + HALF).sum()
        assert min(least, limit) <= len(ids) <= min(most, limit)
        if 0 < len(ids) == limit:  # nothing nearer was left out
            assert (np.delete(row, ids - 5) > found[-1] - HALF).all()


def test_exact_up_to_the_last_of_a_few_thousand() -> None:
    vectors = clustered(EXACT_UP_TO)
    index = filled(vectors, batch=1000)
    assert recall(index, vectors, near(vectors[::40]), 0.15) == 1
    assert recall(index, vectors, near(vectors[::40]), 0.8) == 1


def test_near_is_strict() -> None:
    index = filled(np.array([[1, 0, 0, 0], [0.5, 0.5, 0.5, 0.5], [0, 1, 0, 0], [-1, 0, 0, 0]], np.float32))
    east = np.array([[1, 0, 0, 0]], np.float32)  # at 0, 0.5, 1 and 2 of them, exactly
    assert [index.search(east, distance, 9)[0][0].tolist() for distance in (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 2.0)] == [
        [],
        [1],
        [1],
        [1, 2],
        [1, 2],
        [1, 2, 3],
        [1, 2, 3],
    ]


def test_the_same_distance_comes_in_ascending_order() -> None:
    east, north = np.eye(2, DIMENSION, dtype=np.float16)
    index = VectorIndex(DIMENSION)
    for identifier, vector in ((9, east), (2, north), (7, east), (4, north), (3, east), (8, north)):
        index.add(np.array([identifier]), vector[None])
    ((ids, found),) = index.search(unit(2 * east + north)[None], 1.0, 5)
    assert ids.tolist() == [3, 7, 9, 2, 4]
    assert found == pytest.approx([1 - 2 / 5**0.5] * 3 + [1 - 1 / 5**0.5] * 2, abs=HALF)
    ((ids, _),) = index.search(east[None], 0.5, 2)
    assert ids.tolist() == [3, 7]


def test_each_row_is_answered_for_itself() -> None:
    vectors = clustered(500)
    index = filled(vectors)
    together = index.search(near(vectors[:50]), 0.15, 5)
    for query, (ids, found) in zip(near(vectors[:50]), together, strict=True):
        ((alone, at),) = index.search(query[None], 0.15, 5)
        assert alone.tolist() == ids.tolist()
        assert at == pytest.approx(found, abs=1e-6)


# -- large: nearly so ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [scattered, clustered])
@pytest.mark.parametrize("batch", [None, 1500])
def test_what_is_near_is_found_in_a_large_index(make: type(scattered), batch: int | None) -> None:
    vectors = make(20_000)
    index = filled(vectors, batch=batch)
    assert recall(index, vectors, near(vectors[::50]), 0.15) >= 0.99
    assert len(index) == len(vectors)


def test_nothing_is_lost_while_an_index_grows() -> None:
    vectors = clustered(17_000)
    index = VectorIndex(DIMENSION)
    ends = [0, 1, 4000, 4095, 4096, 4097, 4098, 8190, 8193, 8200, 16_380, 16_400, 17_000]  # around each new learning
    learnt = set()
    for start, end in pairwise(ends):
        index.add(np.arange(start + 1, end + 1), vectors[start:end])
        learnt.add(index._learnt_from)
        assert len(index) == end
        newest = index.search(vectors[end - 1 : end], 0.01, 3)[0][0]
        assert end in newest
    assert learnt == {0, 4097, 8200, 16_400 + 600}  # the cells are learnt three times
    assert stored(index) == half(vectors)
    assert recall(index, vectors, near(vectors[::40]), 0.15) >= 0.99


def test_what_is_near_is_found_though_all_has_changed_since_the_cells_were_learnt() -> None:
    old, new = clustered(10_000, seed=1), clustered(9_000, seed=2)
    index = filled(old)
    index.remove(range(1, 9_951))
    index.add(np.arange(20_001, 29_001), new)
    assert len(index) == 9_050
    assert recall(index, new, near(new[::40]), 0.15, first=20_001) >= 0.99
    assert recall(index, old[9_950:], near(old[9_950:]), 0.15, first=9_951) >= 0.99


def test_identical_vectors_by_the_thousand_are_all_found() -> None:
    vectors = np.repeat(scattered(4), 2_500, axis=0)
    index = filled(vectors)
    for number, (ids, _) in enumerate(index.search(directions(4), 0.01, 10**6)):
        assert ids.tolist() == list(range(2_500 * number + 1, 2_500 * (number + 1) + 1))


# -- removing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1_000, 9_000])
def test_nothing_is_left_of_what_was_removed(count: int) -> None:
    vectors = clustered(count)
    index = filled(vectors)
    gone = np.random.default_rng(1).permutation(count)[: count // 2] + 1
    index.remove([*gone.tolist(), 0, count + 1, 10**12])
    left = {identifier: vector for identifier, vector in half(vectors).items() if identifier not in set(gone.tolist())}
    assert stored(index) == left
    assert len(index) == len(left)
    for ids, _ in index.search(vectors[gone[:200] - 1], 0.15, 100):
        assert not set(ids.tolist()) & set(gone.tolist())
    index.remove(gone.tolist())  # again
    assert stored(index) == left
    index.remove(list(left))
    assert stored(index) == {}
    index.add(np.arange(1, 51), vectors[:50])
    assert stored(index) == half(vectors[:50])
    assert recall(index, vectors[:50], near(vectors[:50]), 0.15) == 1


def test_the_bytes_of_what_was_removed_are_not_saved(tmp_path: Path) -> None:
    vectors = clustered(6_000)
    index = filled(vectors)
    index.remove(range(1, 3_001))
    index.save(tmp_path / "index", STAMP)
    content = (tmp_path / "index").read_bytes()
    assert not any(vector in content for vector in half(vectors[:3_000]).values())
    assert all(vector in content for vector in half(vectors[3_000:]).values())


# -- files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 300, 9_000])
def test_a_saved_index_is_the_same(tmp_path: Path, count: int) -> None:
    vectors = clustered(count + 100)
    index = filled(vectors[:count]) if count else VectorIndex(DIMENSION)
    index.save(tmp_path / "new folder" / "index", STAMP)
    again, stamp = VectorIndex.load(tmp_path / "new folder" / "index")
    assert stamp == STAMP
    assert again.dimension == DIMENSION
    assert stored(again) == half(vectors[:count])
    assert [file.name for file in (tmp_path / "new folder").iterdir()] == ["index"]
    for one in (index, again):  # and goes on in the same way
        one.add(np.arange(count + 1, count + 101), vectors[count:])
        one.remove([1, 2, count + 1])
    queries = near(vectors[:100])
    for (ids, found), (same, at) in zip(index.search(queries, 0.2, 50), again.search(queries, 0.2, 50), strict=True):
        assert ids.tolist() == same.tolist()
        assert found.tolist() == at.tolist()


def test_a_loaded_index_grows_through_its_next_learning(tmp_path: Path) -> None:
    vectors = clustered(13_000)
    filled(vectors[:6_000]).save(tmp_path / "index", STAMP)
    index, _ = VectorIndex.load(tmp_path / "index")
    for start in range(6_000, 13_000, 500):
        index.add(np.arange(start + 1, start + 501), vectors[start : start + 500])
    assert stored(index) == half(vectors)
    assert recall(index, vectors, near(vectors[::40]), 0.15) >= 0.99


def test_saving_again_replaces_the_file(tmp_path: Path) -> None:
    path = tmp_path / "index"
    filled(scattered(10)).save(path, STAMP)
    filled(scattered(5, seed=3)).save(path, {"memory": "another"})
    index, stamp = VectorIndex.load(path)
    assert stored(index) == half(scattered(5, seed=3))
    assert stamp == {"memory": "another"}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "index"
    filled(scattered(20)).save(path, STAMP)
    return path


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(IndexFileError, match="none"):
        VectorIndex.load(tmp_path / "none")
    with pytest.raises(IndexFileError):
        VectorIndex.load(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"{}\n", b"[]\n", b"null\n", b"1\n", b'"format"\n', b"palimpsest", b"\xff\xfe\n", b"\0" * 5000,
     b'{"format": "palimpsest vectors 1"}\n', b"SQLite format 3\0" + b"\0" * 4080],
)  # fmt: skip
def test_another_file_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "index").write_bytes(content)
    with pytest.raises(IndexFileError):
        VectorIndex.load(tmp_path / "index")


def test_a_file_of_another_format_is_told(saved: Path) -> None:
    content = saved.read_bytes()
    assert b"palimpsest vectors 1" in content
    saved.write_bytes(content.replace(b"palimpsest vectors 1", b"palimpsest vectors 0"))
    with pytest.raises(IndexFileError):
        VectorIndex.load(saved)


def test_a_file_that_was_cut_is_told(saved: Path) -> None:
    content = saved.read_bytes()
    for length in {*range(0, len(content), 37), len(content) - 1}:
        saved.write_bytes(content[:length])
        with pytest.raises(IndexFileError):
            VectorIndex.load(saved)
    saved.write_bytes(content + b"\0")
    with pytest.raises(IndexFileError):
        VectorIndex.load(saved)


def test_a_single_wrong_bit_anywhere_is_told(saved: Path) -> None:
    content = saved.read_bytes()
    unnoticed = []
    for place in {*range(content.index(b"\n") + 50), *range(0, len(content), 29)}:
        for bit in (0, 4):
            saved.write_bytes(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])
            try:
                VectorIndex.load(saved)
                unnoticed.append(content[max(0, place - 10) : place + 1])
            except IndexFileError:
                pass
    assert unnoticed == []
