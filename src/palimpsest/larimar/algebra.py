"""The algebra of Larimar's memory (Das et al., arXiv 2403.11901): a matrix that is written, read and unwritten.

Pure functions of tensors: differentiable, batched, without state. Letters: B any leading batch dimensions, which may be
left out and which broadcast; N facts (or queries), K slots, C code; ``mask`` (B, N) is false for the rows of an episode
that are only padding. Encodings may be of any precision; a memory and its weights are float64, for near its capacity a
memory's condition number is in the thousands; what is read has the dtype of the queries.

The memory M (B, K, C) holds an episode of encodings Z (B, N, C) as in the generative pseudo-inverse memory (Pham et
al., ICLR 2022), a Kanerva machine (Wu et al., arXiv 1804.01756) whose inference is a pseudo-inverse::

    write   W₀ = Z M₀⁺,      M = W₀⁺ Z        (M₀: the learned prior mean)
    read    W  = Z_query M⁺,  Z_read = W M

and is changed by recursive least squares (Larimar, sequential writing and forgetting), α = 1 to write, −1 to forget::

    C ← C + α Wᵀ W,   M ← M + α C⁻¹ Wᵀ (Z − W M)

**How A⁺ is computed.** Published: Ben-Israel and Cohen's iteration X ← 2X − X A X, 15 steps on the full matrix, from a
multiple of Aᵀ. It shrinks the error of a singular value σ from 1 − sσ² to (1 − sσ²)^(2¹⁵), which is not enough for
small ones, and it grows without bound where sσ² > 2. Here products with A⁺ are solved for, by one Cholesky
factorisation of the smaller Gram matrix with a negligible ridge (see :func:`address`). And a memory that has just been
written knows its own inverse but for that of the smaller matrix Z, since M⁺ = Z⁺ W₀ while N ≤ K. To write takes
about K² C + N² C multiplications and to read N² C (K² C for an unknown M), times two or three, where the published way
takes 30 K C² for each; and a matrix of any rank will do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

PUBLISHED_SCALE = 5e-4  # of Aᵀ where the published iteration begins
TOLERANCE = 1e-2  # of a converged iteration's residual
BLOCK = 256  # facts of an update that are solved for together

Invert = Callable[[Tensor], Tensor]


class ConvergenceError(ArithmeticError):
    """An iteration did not arrive at a pseudo-inverse."""


class NotWrittenError(ValueError):
    """What should be forgotten was never written with these weights."""


# -- pseudo-inverse --------------------------------------------------------------------------------------------------


def pseudo_inverse(
    a: Tensor, steps: int | None = None, *, scale: float | None = None, tolerance: float | None = TOLERANCE
) -> Tensor:
    """The Moore–Penrose inverse A⁺ (B, C, K) of ``a`` (B, K, C).

    Args:
        steps: of the iteration X ← 2X − X A X; None takes the singular value decomposition instead, which is exact for
            every rank, and slow.
        scale: the iteration begins at ``scale`` · Aᵀ. It converges if scale · σ² < 2 for every singular value σ. None
            takes 1 / ‖A Aᵀ‖_∞, which always does; :data:`PUBLISHED_SCALE` is the published constant.
        tolerance: how large :func:`residual` may be at the end; None does not look (and spares a device the wait).

    Raises:
        ConvergenceError: the iteration diverged, or has not converged in so many steps. (Too many steps do harm as
            well: of a matrix without full rank, rounding errors in the null space double at each.)
    """
    if steps is None:
        return torch.linalg.pinv(a)
    if steps < 0:
        raise ValueError(f"steps: expected 0 or more, not {steps}")
    x = a.mT * (_safe_scale(a) if scale is None else scale)
    for _ in range(steps):
        x = 2 * x - x @ a @ x
    if tolerance is not None:
        worst = float(residual(a.detach(), x.detach()).max())
        if not worst <= tolerance:
            raise ConvergenceError(
                f"no pseudo-inverse after {steps} steps: residual {worst:.3g} where {tolerance:.3g} is allowed"
                f" (steps=None computes it exactly)"
            )
    return x


def residual(a: Tensor, x: Tensor) -> Tensor:
    """How far X (B, C, K) is from a pseudo-inverse of A (B, K, C): ‖A X A − A‖ / ‖A‖, Frobenius norms, (B)."""
    norm = torch.linalg.matrix_norm(a)
    return torch.linalg.matrix_norm(a @ x @ a - a) / norm.clamp_min(torch.finfo(a.dtype).tiny)


def _safe_scale(a: Tensor) -> Tensor:
    """1 / ‖A Aᵀ‖_∞ (B, 1, 1): the norm bounds the largest eigenvalue σ² of A Aᵀ, far closer than ‖A‖₁ ‖A‖_∞ does."""
    gram = a @ a.mT if a.shape[-2] <= a.shape[-1] else a.mT @ a
    bound = gram.abs().sum(-1).amax(-1)
    return 1 / bound.clamp_min(torch.finfo(a.dtype).tiny)[..., None, None]


# -- write and read --------------------------------------------------------------------------------------------------


class Memory(NamedTuple):
    """A memory that was written at once, with what it was written with: that makes reading cheap."""

    matrix: Tensor
    """M (B, K, C)."""
    weights: Tensor
    """W₀ (B, N, K)."""
    encodings: Tensor
    """Z (B, N, C)."""


class Reading(NamedTuple):
    """What a memory answers."""

    values: Tensor
    """Z_read (B, N, C)."""
    weights: Tensor
    """W (B, N, K), with noise if there was any."""
    mean: Tensor
    """W (B, N, K) without noise."""


def address(encodings: Tensor, memory: Tensor, *, ridge: float | None = None, invert: Invert | None = None) -> Tensor:
    """Addressing weights W = Z M⁺ (B, N, K): the coordinates of ``encodings`` Z (B, N, C) in the rows of M (B, K, C).

    They solve W M = Z by least squares, and of all solutions are the smallest: W = Z Mᵀ (M Mᵀ + λ)⁻¹. A direction of
    singular value σ comes out too small by λ / (λ + σ²).

    Args:
        ridge: λ, so that directions in which M has less than √λ count as absent. None takes the least that is safe: √λ
            is 1e-7 of the Frobenius norm of a memory in float64, where Cholesky's factorisation needs about 1.5e-8, and
            1e-6 else. Of a matrix without full rank the *weights* (never W M) then amplify what rounding left in absent
            directions: where they are looked at take a larger λ, or ``invert=pseudo_inverse``.
        invert: computes M⁺ by another way, such as ``partial(pseudo_inverse, steps=15)``, in the encodings' dtype.
    """
    if invert is not None:
        return encodings @ invert(memory.to(encodings.dtype))
    z, m = encodings.double(), memory.double()
    wide = m.shape[-2] <= m.shape[-1]
    gram = m @ m.mT if wide else m.mT @ m
    diagonal = gram.diagonal(dim1=-2, dim2=-1)
    least = (1e-14 if memory.dtype == torch.float64 else 1e-12) * diagonal.sum(-1, keepdim=True)
    ridges = least.clamp_min(1e-300 if ridge is None else ridge).expand_as(diagonal)  # zeros have an inverse, too
    factor = torch.linalg.cholesky_ex(gram + ridges.diag_embed()).L
    return _solve_right(z @ m.mT, factor) if wide else _solve_right(z, factor) @ m.mT


def _solve_right(rows: Tensor, factor: Tensor) -> Tensor:
    """R (L Lᵀ)⁻¹ of rows R (B, N, r): from the right, as rows lie in memory, where ``cholesky_solve`` would copy."""
    half = torch.linalg.solve_triangular(factor.mT, rows, upper=True, left=False)
    return torch.linalg.solve_triangular(factor, half, upper=False, left=False)


def store(weights: Tensor, values: Tensor, *, invert: Invert | None = None) -> Tensor:
    """The memory M = W⁺ Z (B, K, C) that gives ``values`` Z (B, N, C) back for ``weights`` W (B, N, K).

    Exact while the rows of W are independent (so N ≤ K at most), else by least squares; of all solutions the smallest.
    """
    return address(values.mT, weights.mT, invert=invert).mT


def write(encodings: Tensor, prior: Tensor, *, mask: Tensor | None = None, invert: Invert | None = None) -> Memory:
    """M = (Z M₀⁺)⁺ Z (B, K, C): an episode Z (B, N, C) written at once, whatever was there before.

    The order of facts does not matter. While the weights Z M₀⁺ are independent, so N ≤ K and N ≤ C, the encodings are
    read back as they were: to 1e-7, with random ones at N = K still to 1e-6.

    Args:
        prior: M₀ (K, C) or (B, K, C).
        invert: computes pseudo-inverses by another way: see :func:`address`.
    """
    encodings = masked(encodings, mask)
    weights = address(encodings, prior, invert=invert)
    return Memory(store(weights, encodings, invert=invert), weights, encodings)


def read(
    queries: Tensor,
    memory: Memory | Tensor,
    *,
    mask: Tensor | None = None,
    noise: float | Tensor = 0.0,
    generator: torch.Generator | None = None,
    ridge: float | None = None,
    invert: Invert | None = None,
) -> Reading:
    """W = Z_query M⁺ + noise · ε and Z_read = W M, for ``queries`` (B, N, C) of a memory or a bare matrix (B, K, C).

    Without noise Z_read is the projection of a query on the span of the memory's rows, which while N ≤ K is the span of
    what was written. Rows that are masked are read as zeros.

    Args:
        noise: standard deviation of the weights, a number or a tensor that broadcasts to (B, N, K).
        generator: where ε comes from; on any device.
        ridge, invert: see :func:`address`.

    Raises:
        ValueError: noise without a generator.
    """
    matrix = memory.matrix if isinstance(memory, Memory) else memory
    queries = masked(queries, mask)
    free = ridge is None and invert is None
    if free and isinstance(memory, Memory) and memory.weights.shape[-2] < matrix.shape[-2]:
        mean = address(queries, memory.encodings) @ memory.weights  # M⁺ = Z⁺ W₀
    else:
        mean = address(queries, matrix, ridge=ridge, invert=invert)
    weights = mean
    if isinstance(noise, Tensor) or noise != 0:
        if generator is None:
            raise ValueError("noise needs a generator")
        drawn = torch.randn(mean.shape, generator=generator, device=generator.device).to(mean)
        weights = masked(mean + noise * drawn, mask)
    return Reading(*(tensor.to(queries.dtype) for tensor in (weights @ matrix.to(weights.dtype), weights, mean)))


def address_kl(mean: Tensor, log_variance: Tensor | float, mask: Tensor | None = None) -> Tensor:
    """KL(N(W, σ²) ‖ N(0, 1)) = ½ Σ_k (σ² + w_k² − 1 − ln σ²), in nats a row (B, N); zero in masked rows.

    The prior of addressing weights in Larimar and the Kanerva machine; σ is that of the noise in reading.

    Args:
        mean: W (B, N, K); log_variance: ln σ², a number or a tensor that broadcasts to it.
    """
    log_variance = torch.as_tensor(log_variance, dtype=mean.dtype, device=mean.device)
    kl = 0.5 * (log_variance.exp() + mean**2 - 1 - log_variance).sum(-1)
    return kl if mask is None else kl.where(mask, kl.new_zeros(()))


def masked(rows: Tensor, mask: Tensor | None) -> Tensor:
    """``rows`` (B, N, ·) with zeros where ``mask`` (B, N) is false, whatever stood there."""
    return rows if mask is None else rows.where(mask[..., None], rows.new_zeros(()))


# -- recursive least squares -----------------------------------------------------------------------------------------


class State(NamedTuple):
    """A memory that can be written on, and unwritten."""

    memory: Tensor
    """M (B, K, C)."""
    inverse: Tensor
    """P = C⁻¹ (B, K, K), where C = ridge + Σ wᵀ w over what is written."""


def initial_state(prior: Tensor, ridge: float, dtype: torch.dtype = torch.float64) -> State:
    """Nothing written yet: M = ``prior`` (B, K, C), C = ridge · I.

    What is then written makes M the minimiser of Σ ‖z − w M‖² + ridge ‖M − prior‖². The ridge should be small beside
    ‖w‖², for facts are read back with an error of about ridge / ‖w‖², and large enough to forget: see :func:`update`.

    Raises ValueError unless the ridge is positive.
    """
    if not (ridge > 0 and math.isfinite(ridge)):
        raise ValueError(f"ridge: expected a positive number, not {ridge}")
    slots = prior.shape[-2]
    identity = torch.eye(slots, dtype=dtype, device=prior.device).expand(*prior.shape[:-2], slots, slots)
    return State(prior.to(dtype), identity / ridge)


def update(state: State, weights: Tensor, values: Tensor, alpha: int = 1, *, mask: Tensor | None = None) -> State:
    """Write facts (α = 1) or forget them (α = −1): the state as it would be with them, or had they never been written.

    Woodbury's identity gives, with an N × N solve and O(K² N) work::

        S = I + α W P Wᵀ,   M ← M + α P Wᵀ S⁻¹ (Z − W M),   P ← P − α P Wᵀ S⁻¹ W P

    The order of facts does not matter, nor whether they come at once or one by one.

    Forgetting needs the same weights and values as writing, and loses digits, because P is large in directions in
    which nothing is written. Relative to M the error is about ε (‖w‖² / ridge)², in float64 3e-10 where the ridge is
    1e-3 ‖w‖², 4e-8 where it is 1e-4 ‖w‖², and in float32 too large to be of use; so the state is in float64. Weights
    that differ from those written by a part δ leave about δ ‖w‖² / ridge of the fact.

    Args:
        weights: W (B, N, K), values: Z (B, N, C). Thousands at a time will do: they are taken in blocks.

    Raises:
        ValueError: α is neither 1 nor −1.
        NotWrittenError: α is −1 and more than was written would be taken away (I − W P Wᵀ is not positive definite).
    """
    if alpha not in (1, -1):
        raise ValueError(f"alpha: expected 1 to write or -1 to forget, not {alpha}")
    weights, values = (masked(rows, mask).to(state.memory.dtype) for rows in (weights, values))
    for block in zip(weights.split(BLOCK, -2), values.split(BLOCK, -2), strict=True):
        state = _update_block(state, *block, alpha)
    return state


def _update_block(state: State, weights: Tensor, values: Tensor, alpha: int) -> State:
    memory, inverse = state
    shared = weights @ inverse
    identity = torch.eye(weights.shape[-2], dtype=weights.dtype, device=weights.device)
    factor, info = torch.linalg.cholesky_ex(identity + alpha * shared @ weights.mT)  # S = L Lᵀ
    if alpha < 0 and bool(info.any()):
        raise NotWrittenError("to forget takes the weights that were written; of these, some were not, or not so often")
    wanted = torch.cat([shared, values - weights @ memory], -1)
    gain, missing = torch.linalg.solve_triangular(factor, wanted, upper=False).split(
        [inverse.shape[-1], values.shape[-1]], -1
    )  # L⁻¹ W P and L⁻¹ (Z − W M)
    # Each product is added to where it lies, for one fact costs as much as K² numbers cost to carry to and fro.
    inverse = (gain.mT @ (-alpha * gain)).add_(inverse)
    if weights.shape[-2] > 1:  # a single fact's change is symmetric to the last bit
        inverse = (inverse + inverse.mT) / 2
    return State((gain.mT @ (alpha * missing)).add_(memory), inverse)


def conditioning(state: State) -> Tensor:
    """Condition number (B) of C: the largest eigenvalue, which grows with what is written, over about the ridge."""
    eigenvalues = torch.linalg.eigvalsh(state.inverse)
    return eigenvalues[..., -1] / eigenvalues[..., 0]


def slots_used(state: State, ridge: float) -> Tensor:
    """Effective number (B) of slots that hold something, K − ridge · tr P: the facts written, less what they share."""
    slots = state.inverse.shape[-1]
    return slots - ridge * state.inverse.diagonal(dim1=-2, dim2=-1).sum(-1)
