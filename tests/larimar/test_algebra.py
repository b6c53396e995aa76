"""The algebra of the memory: cases by hand, and what holds of all numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from palimpsest.larimar.algebra import (
    PUBLISHED_SCALE,
    ConvergenceError,
    NotWrittenError,
    State,
    address,
    address_kl,
    conditioning,
    initial_state,
    pseudo_inverse,
    read,
    residual,
    slots_used,
    store,
    update,
    write,
)

DOUBLE = torch.float64
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]
drawn = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**32 - 1)


def normal(seed: int, *shape: int, dtype: torch.dtype = DOUBLE) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def units(seed: int, *shape: int) -> Tensor:
    return torch.nn.functional.normalize(normal(seed, *shape), dim=-1)


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


# -- by hand ---------------------------------------------------------------------------------------------------------


def test_two_facts_in_two_slots() -> None:
    # M₀ = 2 I halves: W₀ = Z/2. Z is invertible, so M = W₀⁻¹ Z = 2 I, and every query is read as itself.
    z = torch.tensor([[2.0, 0.0], [2.0, 4.0]])
    memory = write(z, 2 * torch.eye(2))
    torch.testing.assert_close(memory.weights, torch.tensor([[1.0, 0.0], [1.0, 2.0]], dtype=DOUBLE))
    torch.testing.assert_close(memory.matrix, 2 * torch.eye(2, dtype=DOUBLE))
    reading = read(torch.tensor([[6.0, -2.0]]), memory)
    torch.testing.assert_close(reading.weights, torch.tensor([[3.0, -1.0]]))
    torch.testing.assert_close(reading.values, torch.tensor([[6.0, -2.0]]))


def test_one_fact_in_two_slots() -> None:
    # W₀ = z = (3, 4), W₀⁺ = wᵀ/25, M = wᵀ z / 25. A query's projection on z: (25, 0) → 75/25 z = (9, 12).
    z = torch.tensor([[3.0, 4.0]])
    memory = write(z, torch.eye(2))
    torch.testing.assert_close(memory.matrix, torch.tensor([[9.0, 12.0], [12.0, 16.0]], dtype=DOUBLE) / 25)
    for form in (memory, memory.matrix):
        torch.testing.assert_close(read(torch.tensor([[25.0, 0.0]]), form).values, torch.tensor([[9.0, 12.0]]))
    torch.testing.assert_close(read(torch.tensor([[25.0, 0.0]]), memory).weights, torch.tensor([[9.0, 12.0]]))


def test_contradicting_facts_are_averaged() -> None:
    # Three facts on one slot: least squares.
    weights, values = torch.tensor([[1.0], [1.0], [2.0]]), torch.tensor([[1.0], [3.0], [4.0]])
    torch.testing.assert_close(store(weights, values), torch.tensor([[12 / 6]], dtype=DOUBLE))


def test_one_step_of_the_iteration() -> None:
    a = torch.diag(torch.tensor([2.0, 1.0]))
    # X₀ = ½ A, X₁ = 2X₀ − X₀ A X₀ = A − ¼ A³ = diag(2 − 2, 1 − ¼)
    x = pseudo_inverse(a, 1, scale=0.5, tolerance=None)
    torch.testing.assert_close(x, torch.diag(torch.tensor([0.0, 0.75])))
    # A X A − A = diag(−2, −¼), A = diag(2, 1)
    assert float(residual(a, x)) == pytest.approx(math.sqrt(4 + 1 / 16) / math.sqrt(5))


def test_kl_by_hand() -> None:
    mean, log_variance = torch.tensor([[2.0, 0.0]]), torch.tensor([math.log(4.0), 0.0])
    assert float(address_kl(mean, log_variance)) == pytest.approx(0.5 * (4 + 4 - 1 - math.log(4)))
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, (0.5 * log_variance).exp()), torch.distributions.Normal(0.0, 1.0)
    ).sum(-1)
    torch.testing.assert_close(address_kl(mean, log_variance), expected)


def test_one_recursive_step() -> None:
    # C: 1 → 1 + 1·1 = 2, M = ½·1·4 = 2 in the first slot; the second stays free.
    state = update(initial_state(torch.zeros(2, 1), 1.0), torch.tensor([[1.0, 0.0]]), torch.tensor([[4.0]]))
    torch.testing.assert_close(state.memory, torch.tensor([[2.0], [0.0]], dtype=DOUBLE))
    torch.testing.assert_close(state.inverse, torch.diag(torch.tensor([0.5, 1.0], dtype=DOUBLE)))
    assert float(slots_used(state, 1.0)) == pytest.approx(0.5)
    assert float(conditioning(state)) == pytest.approx(2)


# -- pseudo-inverses -------------------------------------------------------------------------------------------------


@drawn
@given(seed=seeds, rows=st.integers(1, 8), columns=st.integers(1, 8), rank=st.integers(1, 8))
def test_the_exact_inverse_is_moore_and_penroses(seed: int, rows: int, columns: int, rank: int) -> None:
    a = normal(seed, 2, rows, rank) @ normal(seed + 1, rank, columns)
    x = pseudo_inverse(a)
    for one, other in ((a @ x @ a, a), (x @ a @ x, x), ((a @ x).mT, a @ x), ((x @ a).mT, x @ a)):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6 * float(other.abs().max()))


@drawn
@given(seed=seeds, dtype=st.sampled_from([torch.float32, DOUBLE]), wide=st.booleans())
def test_the_iteration_arrives_at_the_exact_inverse(seed: int, dtype: torch.dtype, wide: bool) -> None:
    a = normal(seed, 3, *((4, 24) if wide else (24, 4)), dtype=dtype)
    assert distance(pseudo_inverse(a, 15), pseudo_inverse(a)) < (1e-5 if dtype == torch.float32 else 1e-9)
    assert distance(pseudo_inverse(a, 15, scale=1e-2), pseudo_inverse(a)) < 1e-5


def test_the_safe_start_always_converges_and_the_published_one_may_not() -> None:
    for seed in range(5):
        a = 10.0 ** (seed - 2) * normal(seed, 6, 40) + 10.0 ** (seed - 2)  # with a common part: one large direction
        assert float(residual(a, pseudo_inverse(a, 30))) < 1e-8
    with pytest.raises(ConvergenceError, match=r"no pseudo-inverse after 15 steps: residual .* \(steps=None computes"):
        pseudo_inverse(100 * normal(0, 6, 40), 15, scale=PUBLISHED_SCALE)
    with pytest.raises(ConvergenceError, match="after 3 steps"):
        pseudo_inverse(normal(0, 6, 40), 3, scale=PUBLISHED_SCALE)
    assert torch.isfinite(pseudo_inverse(normal(0, 6, 40), 3, scale=PUBLISHED_SCALE, tolerance=None)).all()
    with pytest.raises(ValueError, match="0 or more"):
        pseudo_inverse(normal(0, 2, 2), -1)


@drawn
@given(seed=seeds, slots=st.integers(1, 9), code=st.integers(1, 9), facts=st.integers(1, 9))
def test_solving_equals_multiplying_by_the_inverse(seed: int, slots: int, code: int, facts: int) -> None:
    z, m = normal(seed, 2, facts, code), normal(seed + 1, slots, code)
    condition = float(torch.linalg.cond(m))
    torch.testing.assert_close(address(z, m), z @ pseudo_inverse(m), rtol=0, atol=1e-12 * condition**3)


def test_a_memory_of_zeros_reads_zeros() -> None:
    for dtype in (torch.float32, DOUBLE):
        reading = read(normal(0, 2, 3, dtype=dtype), torch.zeros(4, 3, dtype=dtype))
        assert not reading.values.any()
        assert not reading.weights.any()


# -- write and read --------------------------------------------------------------------------------------------------


@drawn
@given(seed=seeds, dtype=st.sampled_from([torch.float32, DOUBLE]), slots=st.integers(1, 24), extra=st.integers(0, 12),
       share=st.floats(0, 1), repeats=st.booleans())  # fmt: skip
def test_what_is_written_is_read_back(
    seed: int, dtype: torch.dtype, slots: int, extra: int, share: float, repeats: bool
) -> None:
    """Up to N = K, in both forms of the memory, and where a fact is written twice."""
    facts = max(1, round(share * slots))
    z = normal(seed, 2, facts, slots + extra, dtype=dtype)
    if repeats and facts < slots:
        z = torch.cat([z, z[:, :1]], 1)
    prior = torch.eye(slots, slots + extra, dtype=dtype) + 0.01 * normal(seed + 1, slots, slots + extra, dtype=dtype)
    memory = write(z, prior)
    assert read(z, memory).values.dtype == dtype
    assert distance(read(z, memory).values, z) < 1e-4
    assert distance(memory.weights @ memory.matrix, z) < 1e-4
    assert distance(read(z, memory.matrix).values, z) < 1e-4


@drawn
@given(seed=seeds, facts=st.integers(1, 20))
def test_a_written_memory_reads_as_its_bare_matrix(seed: int, facts: int) -> None:
    z, queries = normal(seed, facts, 16), normal(seed + 1, 5, 16)
    memory = write(z, torch.eye(12, 16, dtype=DOUBLE))
    exact = pseudo_inverse(memory.matrix) if facts >= 12 else torch.linalg.pinv(memory.matrix, rtol=1e-9)
    reading, bare = read(queries, memory), read(queries, memory.matrix)
    assert distance(reading.weights, queries @ exact) < 1e-4
    assert distance(reading.values, queries @ exact @ memory.matrix) < 1e-4
    assert distance(bare.values, reading.values) < 1e-4


@drawn
@given(seed=seeds, facts=st.integers(1, 30))
def test_the_order_of_facts_does_not_matter(seed: int, facts: int) -> None:
    z, prior = normal(seed, facts, 16), torch.eye(12, 16, dtype=DOUBLE)
    order = torch.randperm(facts, generator=torch.Generator().manual_seed(seed))
    assert distance(write(z[order], prior).matrix, write(z, prior).matrix) < 1e-4


@drawn
@given(seed=seeds, dtype=st.sampled_from([torch.float32, DOUBLE]))
def test_the_published_way_agrees_where_it_converges(seed: int, dtype: torch.dtype) -> None:
    z, queries, prior = (normal(seed + n, *shape, dtype=dtype) for n, shape in enumerate(((4, 32), (3, 32), (24, 32))))
    prior = torch.eye(24, 32, dtype=dtype) + 0.01 * prior
    published = partial(pseudo_inverse, steps=20)
    ours, theirs = write(z, prior), write(z, prior, invert=published)
    assert distance(theirs.matrix, ours.matrix) < 1e-4
    assert distance(read(queries, theirs, invert=published).values, read(queries, ours).values) < 1e-4


def test_masks_equal_dropping_rows() -> None:
    z, queries, prior = normal(0, 2, 5, 9), normal(1, 2, 3, 9), torch.eye(7, 9, dtype=DOUBLE)
    mask = torch.tensor([[True, False, True, True, False], [False, True, False, False, False]])
    asked = torch.tensor([[True, True, False], [False, True, True]])
    z = z.masked_fill(~mask[..., None], torch.nan)
    memory = write(z, prior, mask=mask)
    noise = {"noise": 0.1, "generator": torch.Generator().manual_seed(0)}
    reading = read(queries, memory, mask=asked)
    noisy = read(queries, memory, mask=asked, **noise)
    divergence = address_kl(reading.mean, 0.0, asked)
    for item in range(2):
        alone = write(z[item][mask[item]], prior)
        torch.testing.assert_close(memory.matrix[item], alone.matrix)
        values = read(queries[item][asked[item]], alone).values
        torch.testing.assert_close(reading.values[item][asked[item]], values)
        torch.testing.assert_close(divergence[item][asked[item]], address_kl(reading.mean[item][asked[item]], 0.0))
        for rows in (reading.values, noisy.values, divergence):
            assert not rows[item][~asked[item]].any()


def test_noise_comes_from_the_generator() -> None:
    memory, queries = write(normal(0, 4, 9), torch.eye(6, 9, dtype=DOUBLE)), normal(1, 1000, 9)

    def noisy(seed: int, noise: float | Tensor) -> Tensor:
        return read(queries, memory, noise=noise, generator=torch.Generator().manual_seed(seed)).weights

    clean = read(queries, memory)
    torch.testing.assert_close(clean.weights, clean.mean, rtol=0, atol=0)
    torch.testing.assert_close(noisy(3, 0.5), noisy(3, 0.5), rtol=0, atol=0)
    assert distance(noisy(3, 0.5), noisy(4, 0.5)) > 0.01
    std = torch.tensor([0.0, 1.0, 2.0, 0.0, 0.0, 3.0])
    spread = (noisy(3, std) - clean.mean).std(0)
    torch.testing.assert_close(spread, std.double(), rtol=0.1, atol=1e-12)
    with pytest.raises(ValueError, match="needs a generator"):
        read(queries, memory, noise=0.5)


@pytest.mark.parametrize("facts", [2, 4, 6])
def test_gradients_of_writing_and_reading(facts: int) -> None:
    z, queries, prior = (
        normal(n, *shape).requires_grad_() for n, shape in enumerate(((2, facts, 5), (2, 3, 5), (4, 5)))
    )
    log_variance = normal(9, 4).requires_grad_()

    def through(z: Tensor, queries: Tensor, prior: Tensor, log_variance: Tensor) -> tuple[Tensor, ...]:
        sigma = (0.5 * log_variance).exp()
        reading = read(queries, write(z, prior), noise=sigma, generator=torch.Generator().manual_seed(0))
        return reading.values, address_kl(reading.mean, log_variance)

    assert gradcheck(through, (z, queries, prior, log_variance), eps=1e-6, atol=1e-4, rtol=1e-3)


def test_gradients_of_updates() -> None:
    weights, values, prior = (normal(n, *shape).requires_grad_() for n, shape in enumerate(((3, 4), (3, 2), (4, 2))))

    def through(weights: Tensor, values: Tensor, prior: Tensor) -> Tensor:
        state = update(initial_state(prior, 0.5), weights, values)
        return update(state, weights[:1], values[:1], -1).memory

    assert gradcheck(through, (weights, values, prior))


@pytest.mark.parametrize("device", DEVICES)
def test_leading_dimensions_and_devices(device: str) -> None:
    z, prior = normal(0, 2, 3, 4, 8, dtype=torch.float32).to(device), torch.eye(6, 8, device=device)
    memory = write(z, prior)
    assert memory.matrix.shape == (2, 3, 6, 8)
    cpu = write(z[1, 2].cpu(), prior.cpu())
    assert distance(memory.matrix[1, 2].cpu(), cpu.matrix) < 1e-6
    noise = {"noise": 1.0, "generator": torch.Generator().manual_seed(0)}  # one generator serves every device
    read_there = read(z, memory, **noise)
    assert read_there.values.device.type == device
    state = update(initial_state(torch.zeros(2, 3, 6, 8, device=device), 1e-3), units(1, 2, 3, 4, 6).to(device), z)
    assert state.memory.shape == (2, 3, 6, 8)
    assert state.inverse.device.type == device


# -- recursive least squares -----------------------------------------------------------------------------------------


def same(one: State, other: State, tolerance: float) -> bool:
    return distance(one.memory, other.memory) < tolerance and distance(one.inverse, other.inverse) < tolerance


@drawn
@given(seed=seeds, facts=st.integers(1, 40), ridge=st.sampled_from([1e-4, 1e-3, 1e-1]))
def test_updates_are_ridge_regression_from_the_prior(seed: int, facts: int, ridge: float) -> None:
    weights, values, prior = units(seed, 2, facts, 16), normal(seed + 1, 2, facts, 3), normal(seed + 2, 2, 16, 3)
    state = update(initial_state(prior, ridge), weights, values)
    c = weights.mT @ weights + ridge * torch.eye(16, dtype=DOUBLE)
    expected = prior + torch.linalg.solve(c, weights.mT @ (values - weights @ prior))
    assert distance(state.memory, expected) < 1e-9
    assert distance(state.inverse, torch.linalg.inv(c)) < 1e-9


@drawn
@given(seed=seeds, kept=st.integers(0, 20), gone=st.integers(1, 20), ridge=st.sampled_from([1e-4, 1e-3, 1e-2]))
def test_written_then_forgotten_equals_never_written(seed: int, kept: int, gone: int, ridge: float) -> None:
    weights, values = units(seed, kept + gone, 24), normal(seed + 1, kept + gone, 3)
    order = torch.randperm(kept + gone, generator=torch.Generator().manual_seed(seed))
    start = initial_state(normal(seed + 2, 24, 3), ridge)
    never = update(start, weights[:kept], values[:kept])
    forgotten = update(update(start, weights[order], values[order]), weights[kept:], values[kept:], -1)
    assert same(forgotten, never, 1e-5)
    one_by_one = update(start, weights[order], values[order])
    for place in range(kept, kept + gone):
        one_by_one = update(one_by_one, weights[place : place + 1], values[place : place + 1], -1)
    assert same(one_by_one, never, 1e-5)


@drawn
@given(seed=seeds, facts=st.integers(1, 30))
def test_one_by_one_equals_at_once_in_any_order(seed: int, facts: int) -> None:
    weights, values = units(seed, facts, 16), normal(seed + 1, facts, 3)
    start = initial_state(torch.zeros(16, 3), 1e-3)
    state = start
    for place in torch.randperm(facts, generator=torch.Generator().manual_seed(seed)):
        state = update(state, weights[None, place], values[None, place])
    assert same(state, update(start, weights, values), 1e-9)


def test_blocks_equal_one_solve(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, values, start = units(0, 23, 16), normal(1, 23, 3), initial_state(torch.zeros(16, 3), 1e-3)
    whole = update(start, weights, values)
    monkeypatch.setattr("palimpsest.larimar.algebra.BLOCK", 5)
    assert same(update(start, weights, values), whole, 1e-9)
    assert same(update(update(start, weights, values), weights[3:], values[3:], -1),
                update(start, weights[:3], values[:3]), 1e-7)  # fmt: skip


def test_masked_facts_are_not_written() -> None:
    weights, values, start = units(0, 6, 16), normal(1, 6, 3), initial_state(torch.zeros(16, 3), 1e-3)
    mask = torch.tensor([True, False, True, True, False, True])
    assert same(update(start, weights, values, mask=mask), update(start, weights[mask], values[mask]), 1e-12)


def test_updates_without_ridge_to_speak_of_are_the_batch_write() -> None:
    z, prior = normal(0, 5, 16), torch.eye(12, 16, dtype=DOUBLE)
    memory = write(z, prior)
    state = update(initial_state(torch.zeros(12, 16), 1e-9), memory.weights, z)
    assert distance(state.memory, memory.matrix) < 1e-6


@pytest.mark.parametrize("change", [lambda w: units(7, 2, 16), lambda w: 2 * w, lambda w: torch.cat([w, w])])
def test_what_was_not_written_is_not_forgotten(change: Callable[[Tensor], Tensor]) -> None:
    weights, values = units(0, 2, 16), normal(1, 2, 3)
    state = update(initial_state(torch.zeros(16, 3), 1e-3), weights, values)
    with pytest.raises(NotWrittenError, match="some were not"):
        update(state, change(weights), values.repeat(len(change(weights)) // 2, 1), -1)


def test_bad_arguments_of_the_state() -> None:
    for ridge in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="positive"):
            initial_state(torch.zeros(2, 2), ridge)
    with pytest.raises(ValueError, match="1 to write or -1 to forget, not 2"):
        update(initial_state(torch.zeros(2, 2), 1.0), torch.eye(2), torch.eye(2), 2)


def test_slots_are_counted() -> None:
    start, weights = initial_state(torch.zeros(16, 3), 1e-6), units(0, 5, 16)
    assert float(slots_used(start, 1e-6)) == pytest.approx(0, abs=1e-9)
    assert float(conditioning(start)) == pytest.approx(1)
    state = update(update(start, weights, normal(1, 5, 3)), weights[:2], normal(1, 2, 3))  # two of them again
    assert float(slots_used(state, 1e-6)) == pytest.approx(5, abs=1e-3)
    assert float(conditioning(state)) > 1e6
