"""The three ways to address a memory: by hand, and what holds of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from palimpsest.larimar import (
    Addressing,
    FeatureAddressing,
    MemoryFullError,
    NearestAddressing,
    NotWrittenError,
    SpanAddressing,
)

SIZE = 12  # of keys and values
MAKERS: dict[str, Callable[[], Addressing[Any]]] = {
    "span": lambda: SpanAddressing(torch.eye(10, SIZE)),
    "relu": lambda: FeatureAddressing(40, SIZE, seed=0),
    "fourier": lambda: FeatureAddressing(40, SIZE, seed=0, kind="fourier"),
    "nearest": lambda: NearestAddressing(40, SIZE),
}


@pytest.fixture(params=MAKERS)
def addressing(request: pytest.FixtureRequest) -> Addressing[Any]:
    return MAKERS[request.param]()


def facts(addressing: Addressing[Any], count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Keys and values (N, 12), of the scale of a Larimar code."""
    generator = torch.Generator().manual_seed(seed)
    keys, values = (torch.randn(count, SIZE, generator=generator) for _ in range(2))
    return keys, values if addressing.apart else keys


def read(addressing: Addressing[Any], state: Any, queries: Tensor) -> Tensor:
    return addressing.read_weights(state, queries) @ addressing.contents(state)


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def test_facts_are_read_back(addressing: Addressing[Any]) -> None:
    keys, values = facts(addressing, 6)
    state = addressing.write(addressing.empty(SIZE), keys, values)
    assert distance(read(addressing, state, keys), values) < 0.05
    assert addressing.read_weights(state, keys).shape == (6, addressing.slots)
    assert addressing.contents(state).shape == (addressing.slots, SIZE)
    assert addressing.used(state) == pytest.approx(6, abs=0.2)


def test_an_empty_memory_reads_zeros(addressing: Addressing[Any]) -> None:
    state = addressing.empty(SIZE)
    assert not read(addressing, state, facts(addressing, 3)[0]).any()
    assert addressing.used(state) == pytest.approx(0)
    assert addressing.conditioning(state) == pytest.approx(1)


@settings(max_examples=30, deadline=None)
@given(name=st.sampled_from(list(MAKERS)), seed=st.integers(0, 999), kept=st.integers(0, 5), gone=st.integers(1, 4))
def test_what_is_forgotten_was_never_written(name: str, seed: int, kept: int, gone: int) -> None:
    """Not in the memory, and not in what is read, though the span's read-out magnifies every trace."""
    addressing = MAKERS[name]()
    keys, values = facts(addressing, kept + gone, seed)
    order = torch.randperm(kept + gone, generator=torch.Generator().manual_seed(seed))
    never = addressing.write(addressing.empty(SIZE), keys[:kept], values[:kept])
    state = addressing.write(addressing.empty(SIZE), keys[order], values[order])
    before = read(addressing, state, keys[kept:])
    state = addressing.forget(state, keys[kept:], values[kept:])
    queries = facts(addressing, 8, seed + 1)[0]
    for asked in (queries, keys):
        scale = float(values.norm(dim=1).mean())
        torch.testing.assert_close(
            read(addressing, state, asked), read(addressing, never, asked), rtol=1e-5, atol=1e-5 * scale
        )
    assert distance(before, values[kept:]) < 0.3  # it had been there
    assert addressing.used(state) == pytest.approx(addressing.used(never), abs=1e-5)


def test_what_was_not_written_is_not_forgotten(addressing: Addressing[Any]) -> None:
    keys, values = facts(addressing, 3)
    state = addressing.write(addressing.empty(SIZE), keys[:2], values[:2])
    for other in (slice(2, 3), [0, 0]):
        with pytest.raises(NotWrittenError, match="some were not"):
            addressing.forget(state, keys[other], values[other])
    assert distance(read(addressing, state, keys[:2]), values[:2]) < 0.05


def test_states_are_not_changed_in_place(addressing: Addressing[Any]) -> None:
    keys, values = facts(addressing, 4)
    state = addressing.write(addressing.empty(SIZE), keys[:2], values[:2])
    copy = [tensor.clone() for tensor in state]
    addressing.write(state, keys[2:], values[2:])
    addressing.forget(state, keys[:1], values[:1])
    assert all(torch.equal(tensor, kept) for tensor, kept in zip(state, copy, strict=True))


# -- familiarity ------------------------------------------------------------------------------------------------------


def orthogonal(count: int, seed: int = 0) -> Tensor:
    """Keys (N, 12) at right angles, of the scale of a Larimar code."""
    drawn = torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return SIZE**0.5 * torch.linalg.qr(drawn)[0][:count].float()


def test_what_is_written_is_familiar_and_other_things_less(addressing: Addressing[Any]) -> None:
    keys = orthogonal(6)
    state = addressing.write(addressing.empty(SIZE), keys[:3], keys[:3])
    found = addressing.familiarity(state, keys)
    assert found.dtype == torch.float64
    assert found[:3].tolist() == pytest.approx([1] * 3, abs=5e-3)  # a few ridges
    # The span and attention see the angle alone; features of different keys overlap.
    most = 1e-6 if isinstance(addressing, SpanAddressing | NearestAddressing) else 0.75
    assert found[3:].max() <= most
    torch.testing.assert_close(addressing.familiarity(state, 7 * keys), found)
    assert addressing.familiarity(addressing.empty(SIZE), keys).max() < 1e-12
    assert 0 <= float(addressing.familiarity(state, torch.zeros(1, SIZE))) < 1
    assert addressing.familiarity(state, keys[:0]).shape == (0,)


@settings(max_examples=25, deadline=None)
@given(name=st.sampled_from(list(MAKERS)), seed=st.integers(0, 999), kept=st.integers(0, 5), gone=st.integers(1, 4))
def test_writing_makes_nothing_less_familiar_and_forgetting_takes_that_back(
    name: str, seed: int, kept: int, gone: int
) -> None:
    addressing = MAKERS[name]()
    keys, values = facts(addressing, kept + gone, seed)
    queries = torch.cat([facts(addressing, 8, seed + 1)[0], keys])
    state = addressing.write(addressing.empty(SIZE), keys[:kept], values[:kept])
    before = last = addressing.familiarity(state, queries)
    for place in range(kept, kept + gone):
        state = addressing.write(state, keys[place : place + 1], values[place : place + 1])
        found = addressing.familiarity(state, queries)
        assert (found >= last - 1e-6).all()
        assert found.min() >= 0
        assert found.max() <= 1
        last = found
    state = addressing.forget(state, keys[kept:], values[kept:])
    torch.testing.assert_close(addressing.familiarity(state, queries), before, rtol=0, atol=1e-5)


def test_familiarity_of_the_span_by_hand() -> None:
    addressing = SpanAddressing(torch.eye(3))
    keys = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
    state = addressing.write(addressing.empty(3), keys, keys)
    queries = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 5.0]])  # of 25, 9 and half of 16; of 25, half
    assert addressing.familiarity(state, queries).tolist() == pytest.approx([17 / 25, 1 / 2], abs=1e-6)


def test_familiarity_of_features_is_leverage() -> None:
    """Of one fact, in closed form; of several, as a slow and plain regression has it."""
    addressing = FeatureAddressing(40, SIZE, seed=0, ridge=0.1)
    keys, values = facts(addressing, 4)
    state = addressing.write(addressing.empty(SIZE), keys[:1], values[:1])
    assert addressing.familiarity(state, keys[:1]).tolist() == pytest.approx([1 / 1.1])
    state = addressing.write(state, keys[1:], values[1:])
    queries = facts(addressing, 5, 1)[0]
    written, asked = addressing.write_weights(keys), addressing.write_weights(queries)
    gram = written @ written.T + 0.1 * torch.eye(4)
    expected = (asked @ written.T @ torch.linalg.inv(gram) @ written @ asked.T).diagonal()
    torch.testing.assert_close(addressing.familiarity(state, queries), expected)
    dull = FeatureAddressing(40, SIZE, seed=0, sharpness=100.0)  # no feature of any key is above that
    keys, values = facts(dull, 1)
    assert not dull.familiarity(dull.write(dull.empty(SIZE), keys, values), keys).any()


def test_familiarity_of_attention_by_hand() -> None:
    addressing = NearestAddressing(4, 2)
    keys = torch.tensor([[2.0, 0.0], [3.0, 4.0]])
    state = addressing.write(addressing.empty(1), keys, torch.ones(2, 1))
    queries = torch.tensor([[0.0, 5.0], [6.0, 8.0], [-1.0, 0.0]])
    assert addressing.familiarity(state, queries).tolist() == pytest.approx([0.8, 1, 0])


# -- each --------------------------------------------------------------------------------------------------------------


def test_the_span_is_read_by_projection() -> None:
    addressing = SpanAddressing(torch.eye(10, SIZE))
    keys = facts(addressing, 3)[0]
    state = addressing.write(addressing.empty(SIZE), keys, keys)
    queries = facts(addressing, 5, 1)[0].double()
    basis = torch.linalg.qr(keys.double().T)[0]
    torch.testing.assert_close(read(addressing, state, queries), queries @ basis @ basis.T, rtol=1e-6, atol=1e-6)


def test_a_full_span_gives_the_query_back() -> None:
    addressing = SpanAddressing(torch.eye(SIZE))
    keys, queries = facts(addressing, SIZE)[0], facts(addressing, 5, 1)[0]
    state = addressing.write(addressing.empty(SIZE), keys, keys)
    assert addressing.capacity == SIZE
    assert distance(read(addressing, state, queries), queries) < 1e-4


def test_the_span_stores_encodings_under_themselves() -> None:
    addressing = SpanAddressing(torch.eye(10, SIZE))
    keys = facts(addressing, 2)[0]
    with pytest.raises(ValueError, match="its own key"):
        addressing.write(addressing.empty(SIZE), keys, keys + 1)
    with pytest.raises(ValueError, match="12 numbers each, not 7"):
        addressing.empty(7)
    assert addressing.capacity == 10


@pytest.mark.parametrize("kind", ["relu", "fourier"])
def test_features_are_those_of_the_seed(kind: Any) -> None:
    one, same, other = (FeatureAddressing(40, SIZE, seed=seed, kind=kind) for seed in (0, 0, 1))
    keys = facts(one, 3)[0]
    assert torch.equal(one.write_weights(keys), same.write_weights(keys))
    assert distance(one.write_weights(keys), other.write_weights(keys)) > 0.1
    assert one.identity == same.identity != other.identity
    torch.testing.assert_close(one.write_weights(5 * keys), one.write_weights(keys))  # direction alone
    torch.testing.assert_close(one.write_weights(keys).norm(dim=1), torch.ones(3, dtype=torch.float64))


def test_fourier_features_make_a_gaussian_kernel() -> None:
    addressing = FeatureAddressing(20_000, SIZE, seed=0, kind="fourier", sharpness=1.5)
    keys = normalize(facts(addressing, 4)[0].double(), dim=1)
    weights = addressing.write_weights(keys)
    kernel = (-(1.5**2) * torch.cdist(keys, keys) ** 2 / 2).exp()
    torch.testing.assert_close(weights @ weights.T, kernel, rtol=0, atol=0.03)


def test_sharper_features_share_less() -> None:
    keys = facts(NearestAddressing(1, SIZE), 6)[0]
    for kind, values in (("relu", (0.0, 1.0)), ("fourier", (1.0, 2.0))):
        shared = []
        for sharpness in values:
            weights = FeatureAddressing(4000, SIZE, seed=0, kind=kind, sharpness=sharpness).write_weights(keys)
            shared.append(float((weights @ weights.T).abs().sum()))
        assert shared[1] < shared[0]


def test_features_hold_values_of_any_size() -> None:
    addressing = FeatureAddressing(40, SIZE, seed=0)
    state = addressing.write(addressing.empty(3), torch.eye(SIZE)[:1], torch.tensor([[1.0, 2.0, 3.0]]))
    torch.testing.assert_close(
        read(addressing, state, torch.eye(SIZE)[:1]), torch.tensor([[1.0, 2.0, 3.0]]).double(), rtol=1e-2, atol=0
    )


def test_attention_by_hand() -> None:
    # cosines with the query: 1, 0.6, 0
    addressing = NearestAddressing(4, 2, inverse_temperature=2.0)
    keys = torch.tensor([[2.0, 0.0], [3.0, 4.0], [0.0, 0.5]])
    state = addressing.write(addressing.empty(1), keys, torch.tensor([[1.0], [2.0], [4.0]]))
    expected = torch.tensor([2.0, 1.2, 0.0], dtype=torch.float64).softmax(0)
    query = torch.tensor([[7.0, 0.0]])
    torch.testing.assert_close(addressing.read_weights(state, query)[0, :3], expected)
    top = NearestAddressing(4, 2, inverse_temperature=2.0, top=2)
    expected = torch.cat([torch.tensor([2.0, 1.2], dtype=torch.float64).softmax(0), torch.zeros(2)])
    torch.testing.assert_close(top.read_weights(state, query)[0], expected)


def test_a_slot_a_fact() -> None:
    addressing = NearestAddressing(3, SIZE)
    keys, values = facts(addressing, 4)
    state = addressing.write(addressing.empty(SIZE), keys[:2], values[:2])
    with pytest.raises(MemoryFullError, match="2 facts to write, but of 3 slots 1 are free"):
        addressing.write(state, keys[2:], values[2:])
    state = addressing.write(state, keys[2:3], values[2:3])
    state = addressing.forget(state, keys[:1], values[:1])
    assert not state.keys[0].any()
    assert not state.values[0].any()
    state = addressing.write(state, keys[3:], values[3:])  # where the first was
    assert addressing.used(state) == 3
    assert distance(read(addressing, state, keys[1:]), values[1:]) < 0.05


def test_bad_settings_are_named() -> None:
    for make, message in (
        (lambda: FeatureAddressing(0, 3, seed=0), "one slot or more"),
        (lambda: FeatureAddressing(3, 3, seed=0, ridge=0.0), "ridge: expected a positive number"),
        (lambda: FeatureAddressing(3, 3, seed=0, kind="tanh"), "expected one of relu, fourier, not tanh"),
        (lambda: NearestAddressing(3, 3, inverse_temperature=0.0), "positive inverse temperature"),
        (lambda: NearestAddressing(3, 3, top=0), "positive inverse temperature and top, not 40.0 and 0"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
