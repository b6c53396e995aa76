"""The memory that people use: labels, errors that change nothing, merging, files, texts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from palimpsest.larimar import (
    Addressing,
    Entry,
    FeatureAddressing,
    MatrixMemory,
    MemoryFileError,
    MemoryFullError,
    NearestAddressing,
    SpanAddressing,
    TextMemory,
)

SIZE = 12


def make(name: str, seed: int = 0) -> Addressing[Any]:
    if name == "span":
        return SpanAddressing(torch.eye(10, SIZE) + 0.01 * seed)
    if name == "nearest":
        return NearestAddressing(16, SIZE, inverse_temperature=40.0 + seed)
    return FeatureAddressing(40, SIZE, seed=seed)


@pytest.fixture(params=["span", "features", "nearest"])
def addressing(request: pytest.FixtureRequest) -> Addressing[Any]:
    return make(request.param)


@pytest.fixture
def memory(addressing: Addressing[Any]) -> MatrixMemory:
    """Holds the facts a, b (written first) and c."""
    memory = MatrixMemory(addressing, SIZE)
    write(memory, "ab")
    write(memory, "c")
    return memory


def rows(labels: str) -> Tensor:
    generators = [torch.Generator().manual_seed(ord(label)) for label in labels]
    return torch.stack([torch.randn(SIZE, generator=generator) for generator in generators])


def write(memory: MatrixMemory, labels: str) -> None:
    """Facts named by letters, whose keys (and with features, values) are random."""
    memory.write(rows(labels), rows(labels.upper() if memory.addressing.apart else labels), list(labels))


def values(memory: MatrixMemory, labels: str) -> Tensor:
    return rows(labels.upper() if memory.addressing.apart else labels)


def alike(one: MatrixMemory, other: MatrixMemory, tolerance: float = 1e-5) -> bool:
    queries = rows("abcdefghijklm")
    difference = (one.read(queries) - other.read(queries)).norm() / queries.norm()
    return float(difference) < tolerance and {e.label for e in one.history} == {e.label for e in other.history}


def test_facts_are_written_read_and_listed(memory: MatrixMemory) -> None:
    assert float((memory.read(rows("abc")) - values(memory, "abc")).norm()) < 0.3
    assert memory.history == [Entry("a", 1), Entry("b", 1), Entry("c", 2)]
    assert len(memory) == 3
    assert "a" in memory
    assert "d" not in memory
    assert (
        memory.capacity
        == {"SpanAddressing": 10, "FeatureAddressing": 40, "NearestAddressing": 16}[type(memory.addressing).__name__]
    )
    assert memory.used == pytest.approx(3, abs=0.1)
    assert 1 <= memory.conditioning < 1e5
    assert memory.read(rows("ab").double()).dtype == torch.float64
    memory.write(torch.zeros(0, SIZE), torch.zeros(0, SIZE), [])
    memory.forget([])
    assert memory.steps == 2


def test_forgetting_equals_never_writing(memory: MatrixMemory, addressing: Addressing[Any]) -> None:
    write(memory, "de")
    memory.forget(["b", "d"])
    never = MatrixMemory(addressing, SIZE)
    write(never, "ace")
    assert alike(memory, never)
    assert memory.history == [Entry("a", 1), Entry("c", 2), Entry("e", 3)]
    write(memory, "b")  # and written again
    assert memory.history[-1] == Entry("b", 4)


def test_merging_equals_writing_all_into_one(memory: MatrixMemory, addressing: Addressing[Any]) -> None:
    other, whole = MatrixMemory(addressing, SIZE), MatrixMemory(addressing, SIZE)
    memory.merge(other)
    assert len(memory) == 3
    write(other, "xde")
    other.forget(["x"])
    memory.merge(other)
    write(whole, "abcde")
    assert alike(memory, whole)
    assert memory.history[3:] == [Entry("d", 3), Entry("e", 3)]
    memory.forget(["d", "e"])
    write(other, "abc")
    other.forget(["d", "e"])
    assert alike(memory, other)


def test_familiarity_of_what_is_written(memory: MatrixMemory, addressing: Addressing[Any]) -> None:
    queries = rows("abcxyz").double()
    found = memory.familiarity(queries)
    assert found.shape == (6,)
    assert found[:3].min() > 0.99 > found[3:].max()
    memory.forget(["a", "c"])
    alone = MatrixMemory(addressing, SIZE)
    write(alone, "b")
    torch.testing.assert_close(memory.familiarity(queries), alone.familiarity(queries), rtol=0, atol=1e-5)
    memory.forget(["b"])
    assert memory.familiarity(queries).tolist() == [0] * 6
    with pytest.raises(ValueError, match=r"queries: expected numbers \(N, 12\)"):
        memory.familiarity(queries[:, 1:])


def test_a_copy_goes_its_own_way(memory: MatrixMemory, addressing: Addressing[Any]) -> None:
    copy = memory.copy()
    copy.forget(["a"])
    write(copy, "d")
    unchanged(memory, addressing)
    assert copy.history == [Entry("b", 1), Entry("c", 2), Entry("d", 3)]
    memory.forget(["b"])
    assert "b" in copy


def test_noise_is_the_generators(memory: MatrixMemory) -> None:
    clean, queries = memory.read(rows("ab")), rows("ab")
    noisy = [memory.read(queries, noise=0.1, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(noisy[0], noisy[1])
    assert not torch.equal(noisy[0], noisy[2])
    assert not torch.equal(noisy[0], clean)
    with pytest.raises(ValueError, match="needs a generator"):
        memory.read(queries, noise=0.1)


def test_the_memory_keeps_its_own_copy(memory: MatrixMemory) -> None:
    keys = rows("d")
    memory.write(keys, keys, ["d"])
    keys.zero_()
    memory.forget(["d"])
    assert memory.used == pytest.approx(3, abs=0.1)


# -- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("keys", "stored", "labels", "message"), [
    (rows("d")[:, :5], rows("d"), "d", r"keys: expected numbers \(N, 12\), got \(1, 5\)"),
    (rows("d")[0], rows("d"), "d", r"keys: expected numbers \(N, 12\), got \(12,\)"),
    (rows("d"), rows("d")[:, :5], "d", r"values: expected numbers \(N, 12\), got \(1, 5\)"),
    (rows("d").long(), rows("d"), "d", "keys: expected numbers .* of torch.int64"),
    (rows("d") * torch.nan, rows("d"), "d", "keys: some are not finite"),
    (rows("d"), rows("d") * torch.inf, "d", "values: some are not finite"),
    (rows("de"), rows("de"), "d", "2 keys, 2 values and 1 labels"),
    (rows("de"), rows("de"), "dd", "'d' is written already"),
    (rows("da"), rows("da"), "da", "'a' is written already; to write it anew, forget it first"),
])  # fmt: skip
def test_what_cannot_be_written_changes_nothing(
    memory: MatrixMemory, addressing: Addressing[Any], keys: Tensor, stored: Tensor, labels: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        memory.write(keys, stored, list(labels))
    unchanged(memory, addressing)


def test_what_is_not_written_is_not_forgotten(memory: MatrixMemory, addressing: Addressing[Any]) -> None:
    for labels in (["a", "d"], ["a", "a"]):
        with pytest.raises(KeyError, match="is not written, so it cannot be forgotten"):
            memory.forget(labels)
    unchanged(memory, addressing)


def test_bad_queries(memory: MatrixMemory) -> None:
    for queries, message in ((rows("a")[:, 1:], "queries: expected numbers"), (rows("a") / 0, "queries: some are not")):
        with pytest.raises(ValueError, match=message):
            memory.read(queries)


def test_a_full_memory_stays_as_it_is() -> None:
    memory = MatrixMemory(NearestAddressing(3, SIZE), SIZE)
    write(memory, "ab")
    with pytest.raises(MemoryFullError, match="2 facts to write, but of 3 slots 1 are free"):
        write(memory, "cd")
    other = MatrixMemory(NearestAddressing(3, SIZE), SIZE)
    write(other, "cd")
    with pytest.raises(MemoryFullError):
        memory.merge(other)
    assert memory.history == [Entry("a", 1), Entry("b", 1)]
    write(memory, "c")


def test_what_does_not_merge(memory: MatrixMemory, addressing: Addressing[Any]) -> None:
    name = {"SpanAddressing": "span", "NearestAddressing": "nearest"}.get(type(addressing).__name__, "features")
    overlapping = MatrixMemory(addressing, SIZE)
    write(overlapping, "dc")
    for other, message in (
        (MatrixMemory(make(name, seed=1), SIZE), "different addressing do not merge"),
        (MatrixMemory(addressing, SIZE, encoder="another"), "different encoder do not merge:  and another"),
        (overlapping, "'c' is written already"),
    ):
        with pytest.raises(ValueError, match=message):
            memory.merge(other)
    unchanged(memory, addressing)


def unchanged(memory: MatrixMemory, addressing: Addressing[Any]) -> None:
    expected = MatrixMemory(addressing, SIZE)
    write(expected, "ab")
    write(expected, "c")
    assert memory.history == expected.history
    assert memory.steps == expected.steps
    assert torch.equal(memory.read(rows("abcd")), expected.read(rows("abcd")))


# -- files -------------------------------------------------------------------------------------------------------------


def test_saved_and_loaded(memory: MatrixMemory, addressing: Addressing[Any], tmp_path: Path) -> None:
    memory.write(rows("d").double(), values(memory, "d").double(), ["Ærø \n\"'"])
    memory.save(tmp_path / "new" / "memory.safetensors")
    loaded = MatrixMemory.load(tmp_path / "new" / "memory.safetensors", addressing)
    assert torch.equal(loaded.read(rows("abcdef")), memory.read(rows("abcdef")))
    assert loaded.history == memory.history
    assert loaded.steps == memory.steps
    for each in (memory, loaded):
        each.forget(["b", "Ærø \n\"'"])
        write(each, "f")
    assert alike(loaded, memory, 1e-6)
    loaded.save(tmp_path / "new" / "memory.safetensors")
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["memory.safetensors"]


def test_an_empty_memory_is_saved_too(addressing: Addressing[Any], tmp_path: Path) -> None:
    MatrixMemory(addressing, SIZE).save(tmp_path / "empty")
    loaded = MatrixMemory.load(tmp_path / "empty", addressing)
    assert not len(loaded)
    write(loaded, "ab")


def test_nothing_of_what_was_forgotten_is_in_the_file(
    memory: MatrixMemory, addressing: Addressing[Any], tmp_path: Path
) -> None:
    memory.write(rows("d"), values(memory, "d"), ["the secret"])
    memory.forget(["the secret"])
    memory.save(tmp_path / "memory")
    assert b"secret" not in (tmp_path / "memory").read_bytes()
    tensors = load_file(tmp_path / "memory")
    assert tensors["keys"].shape == (3, SIZE)
    never = MatrixMemory(addressing, SIZE)
    write(never, "abc")
    never.save(tmp_path / "never")
    for name, tensor in load_file(tmp_path / "never").items():
        torch.testing.assert_close(tensors[name], tensor, rtol=1e-5, atol=1e-5 * float(tensor.double().abs().max()))


def test_files_that_do_not_belong(memory: MatrixMemory, tmp_path: Path) -> None:
    path = tmp_path / "memory"
    memory.save(path)
    name = {"SpanAddressing": "span", "NearestAddressing": "nearest"}.get(type(memory.addressing).__name__, "features")
    with pytest.raises(MemoryFileError, match="written with addressing"):
        MatrixMemory.load(path, make(name, seed=1))
    with pytest.raises(MemoryFileError, match="written with encoder '', not 'minilm'"):
        MatrixMemory.load(path, memory.addressing, encoder="minilm")
    save_file({"keys": rows("a")}, tmp_path / "other")
    with pytest.raises(MemoryFileError, match="expected a 'palimpsest matrix memory 1' file"):
        MatrixMemory.load(tmp_path / "other", memory.addressing)
    with pytest.raises(FileNotFoundError, match="no such file"):
        MatrixMemory.load(tmp_path / "nothing", memory.addressing)


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "header"])
def test_damaged_files(memory: MatrixMemory, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "memory"
    memory.save(path)
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[-5] ^= 1
    elif damage == "header":
        data[data.index(b'"steps":"2"') + 9] ^= 1
    path.write_bytes(data if damage in ("flip", "header") else data[: {"cut": len(data) // 2, "empty": 0}[damage]])
    with pytest.raises(MemoryFileError, match="damaged"):
        MatrixMemory.load(path, memory.addressing)


def test_a_save_that_fails_keeps_the_old_file(
    memory: MatrixMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "memory"
    memory.save(path)
    before = path.read_bytes()

    def broken(tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("palimpsest.larimar.memory_file.save_file", broken)
    with pytest.raises(OSError, match="disk full"):
        memory.save(path)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


# -- texts -------------------------------------------------------------------------------------------------------------


class Words:
    """A text is the mean of its words' random vectors."""

    identity = "words"

    def __init__(self) -> None:
        self.seen: list[str] = []

    def encode(self, texts: Sequence[str]) -> Tensor:
        self.seen += texts
        return torch.stack([torch.stack([self._word(word) for word in text.split()]).mean(0) for text in texts])

    def _word(self, word: str) -> Tensor:
        seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4])
        return torch.randn(SIZE, generator=torch.Generator().manual_seed(seed))


FACTS = [("Ann was born in", "Rome"), ("Bo works for", "Acme"), ("The capital of Cuba is", "Havana")]


def test_texts_are_written_read_and_forgotten(addressing: Addressing[Any], tmp_path: Path) -> None:
    encoder = Words()
    memory = TextMemory.new(encoder, addressing)
    memory.write(FACTS[:2])
    memory.write([FACTS[2], "A text alone"])
    memory.write([])
    assert ("Ann was born in" in encoder.seen) == addressing.apart
    assert ("Ann was born in Rome" in encoder.seen) != addressing.apart
    assert memory.history == [(FACTS[0], 1), (FACTS[1], 1), (FACTS[2], 2), ("A text alone", 2)]
    prompts = [prompt if addressing.apart else f"{prompt} {answer}" for prompt, answer in FACTS]
    answers = [answer if addressing.apart else prompt for (_, answer), prompt in zip(FACTS, prompts, strict=True)]
    expected = encoder.encode([*answers, "A text alone"])
    assert float((memory.read([*prompts, "A text alone"]) - expected).norm() / expected.norm()) < 0.05

    memory.memory.save(tmp_path / "texts")
    loaded = TextMemory.load(tmp_path / "texts", encoder, addressing).copy()
    memory.copy().forget(FACTS)
    assert len(memory.history) == 4
    loaded.forget([FACTS[0], "A text alone"])
    never = TextMemory.new(encoder, addressing)
    never.write(FACTS[1:])
    assert alike(loaded.memory, never.memory)
    assert [text for text, _ in loaded.history] == FACTS[1:]
    with pytest.raises(KeyError, match="Ann was born in"):
        loaded.forget([FACTS[0]])


def test_a_memory_of_texts_knows_its_encoder(addressing: Addressing[Any]) -> None:
    with pytest.raises(ValueError, match="the memory's encoder is 'minilm', not 'words'"):
        TextMemory(Words(), MatrixMemory(addressing, SIZE, encoder="minilm"))
