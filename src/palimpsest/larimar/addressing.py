"""How a memory of K slots is addressed: what is written where, and what a query reads.

Three ways behind one interface, so that every experiment can show them side by side. Each turns keys (N, D) into
weights over slots, and is a set of pure functions from a state to the next: a call that raises has changed nothing.

- :class:`SpanAddressing`, as published (Larimar, arXiv 2403.11901): key and value are the same encoding, and a
  read-out is the query's projection on the span of what was written. A full memory gives every query back as it came.
- :class:`FeatureAddressing`: keys and values apart. The weights are random features of the key (Rahimi and Recht 2007;
  of rectified projections, Cho and Saul 2009), so that the memory is a kernel regression from keys to values whose
  size does not grow. Update and forgetting are Larimar's, since only W differs.
- :class:`NearestAddressing`: one fact a slot, read by attention over the stored keys, as in a modern Hopfield network
  (Ramsauer et al., arXiv 2008.02217).
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from palimpsest.larimar import algebra
from palimpsest.larimar.algebra import NotWrittenError, State

RIDGE = 1e-3  # forgetting is then exact to about 1e-9, see palimpsest.larimar.algebra.update

S = TypeVar("S", "State", "Slots")
Features = Literal["relu", "fourier"]
SHARPNESS: dict[Features, float] = {"relu": 0.0, "fourier": 1.0}


class MemoryFullError(ValueError):
    """There are more facts to write than free slots."""


class Addressing(ABC, Generic[S]):
    """The interface. K is :attr:`slots`, D :attr:`key_size`; keys, values and queries may be of any precision."""

    apart: ClassVar[bool] = True
    """Whether a key is another encoding than its value."""
    state_type: ClassVar[Any]
    """The NamedTuple of tensors that is the state."""
    identity: str
    """Names everything that shapes the weights: states of two identities never mix."""

    def __init__(self, slots: int, key_size: int, device: torch.device | str) -> None:
        if min(slots, key_size) < 1:
            raise ValueError(f"expected one slot or more and keys of one number or more, not {slots} and {key_size}")
        self.slots, self.key_size, self.device = slots, key_size, torch.device(device)

    @property
    def capacity(self) -> int:
        """How many facts, at the most, can be told apart."""
        return self.slots

    @abstractmethod
    def empty(self, value_size: int) -> S:
        """The state in which nothing is written, for values of C numbers."""

    @abstractmethod
    def write(self, state: S, keys: Tensor, values: Tensor) -> S:
        """The state with facts (N, D) → (N, C) written in addition.

        Raises:
            MemoryFullError: they do not fit.
            ValueError: values that this addressing cannot hold.
        """

    @abstractmethod
    def forget(self, state: S, keys: Tensor, values: Tensor) -> S:
        """The state as if facts had never been written; ``keys`` and ``values`` are, to the last bit, those written.

        Raises:
            NotWrittenError: they evidently were not.
        """

    @abstractmethod
    def read_weights(self, state: S, queries: Tensor) -> Tensor:
        """Addressing weights (N, K) of queries (N, D), float64."""

    @abstractmethod
    def familiarity(self, state: S, queries: Tensor) -> Tensor:
        """How much of each query (N, D) lies in what is written: (N,) from 0, nothing, to 1, float64.

        Keys that are written have 1, or a ridge less, while N is small beside K. Writing never lowers it, and
        forgetting gives back the value of before.
        """

    @abstractmethod
    def contents(self, state: S) -> Tensor:
        """The matrix (K, C), of which a read-out is a combination of rows."""

    @abstractmethod
    def used(self, state: S) -> float:
        """How many slots are taken, in effect."""

    @abstractmethod
    def conditioning(self, state: S) -> float:
        """Condition number of the system that the memory solves; forgetting loses about twice as many digits."""


class _LeastSquares(Addressing[State]):
    """Writes and forgets by recursive least squares, with weights that depend on the key alone.

    A fact's equation w M = z is divided by ‖w‖, so that ``ridge`` is relative to ‖w‖² whatever the encoder's scale.
    Otherwise this matters only where facts contradict one another (N > K): relative errors count.
    """

    state_type = State

    def __init__(self, slots: int, key_size: int, ridge: float, device: torch.device | str) -> None:
        super().__init__(slots, key_size, device)
        self.ridge = ridge
        algebra.initial_state(torch.zeros(1, 1), ridge)  # says what is wrong with it

    @abstractmethod
    def write_weights(self, keys: Tensor) -> Tensor:
        """W (N, K) of keys (N, D), float64."""

    def empty(self, value_size: int) -> State:
        return algebra.initial_state(torch.zeros(self.slots, value_size, device=self.device), self.ridge)

    def write(self, state: State, keys: Tensor, values: Tensor) -> State:
        return algebra.update(state, *self._equations(keys, values))

    def forget(self, state: State, keys: Tensor, values: Tensor) -> State:
        return algebra.update(state, *self._equations(keys, values), alpha=-1)

    def _equations(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        weights = self.write_weights(keys)
        lengths = weights.norm(dim=1, keepdim=True)
        lengths = lengths.where(lengths > 0, lengths.new_ones(()))
        return weights / lengths, values.double() / lengths

    def contents(self, state: State) -> Tensor:
        return state.memory

    def used(self, state: State) -> float:
        return float(algebra.slots_used(state, self.ridge))

    def conditioning(self, state: State) -> float:
        return float(algebra.conditioning(state))


class SpanAddressing(_LeastSquares):
    """Published: written with Z M₀⁺, read with Z_query M⁺, where Z are encodings that are keys and values at once.

    Args:
        prior: M₀ (K, C), where the identity is usual.
        ridge: of the update, relative to the squared length of weights. It changes M, not its span.
        cutoff: directions of which M has less than this part of what M₀ has in the mean are not read. The read-out
            would make a whole of the smallest trace that forgetting leaves.
    """

    apart = False

    def __init__(self, prior: Tensor, *, ridge: float = RIDGE, cutoff: float = 1e-4) -> None:
        slots, code = prior.shape
        super().__init__(slots, code, ridge, prior.device)
        prior = prior.detach().double()
        self._trace = cutoff**2 * float(prior.square().sum()) / min(slots, code)  # M is of the size of M₀, whatever Z
        self.identity = f"span/{self.slots}x{self.key_size}/{ridge}/{cutoff}/{_digest(prior)}"
        self._inverse = algebra.address(torch.eye(self.key_size, dtype=prior.dtype, device=prior.device), prior)

    @property
    def capacity(self) -> int:
        return min(self.slots, self.key_size)

    def empty(self, value_size: int) -> State:
        if value_size != self.key_size:
            raise ValueError(f"encodings are stored as they are, {self.key_size} numbers each, not {value_size}")
        return super().empty(value_size)

    def write(self, state: State, keys: Tensor, values: Tensor) -> State:
        if not bool((keys == values).all()):
            raise ValueError("an encoding is its own key: expected the same keys and values")
        return super().write(state, keys, values)

    def write_weights(self, keys: Tensor) -> Tensor:
        return keys.double() @ self._inverse

    def read_weights(self, state: State, queries: Tensor) -> Tensor:
        return algebra.address(queries, state.memory, ridge=self._trace)

    def familiarity(self, state: State, queries: Tensor) -> Tensor:
        """‖z_read‖² / ‖z‖²: the share of a query's squared length that lies in the span of what is written.

        Past N = K, where a memory of fewer slots than C tilts its span, writing may lower it.
        """
        read = self.read_weights(state, queries) @ state.memory
        whole = queries.double().square().sum(1)
        return (read.square().sum(1) / whole.where(whole > 0, 1)).clamp(0, 1)


class FeatureAddressing(_LeastSquares):
    """Keys and values apart; weights are K random features of the key's direction, a vector of length 1.

    ``relu``: max(0, r·k − sharpness), for keys k of length 1 and Gaussian r. ``fourier``: cos(sharpness · r·k + b),
    which makes the kernel exp(−sharpness² ‖k − k′‖² / 2).

    Args:
        slots, key_size: K and D.
        seed: of the features, which are the same on every device.
        sharpness: the larger, the less two keys share: facts are told apart, and paraphrases with them. None takes
            what serves sentence encodings: 0 for ``relu``, 1 for ``fourier``.
        ridge: relative to the squared length of weights. Facts are read back to about this; the larger it is, the
            smoother is what is read between them.
        key_map: see :func:`_mapped`.
    """

    def __init__(
        self,
        slots: int,
        key_size: int,
        *,
        seed: int,
        kind: Features = "relu",
        sharpness: float | None = None,
        ridge: float = RIDGE,
        key_map: Tensor | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(slots, key_size, ridge, device)
        self._key_map = _checked_map(key_map, key_size, self.device)
        if kind not in SHARPNESS:
            raise ValueError(f"features: expected one of {', '.join(SHARPNESS)}, not {kind}")
        self.kind = kind
        self.sharpness = SHARPNESS[kind] if sharpness is None else sharpness
        generator = torch.Generator().manual_seed(seed)
        inner = key_size if self._key_map is None else self._key_map.shape[1]
        projection = torch.randn(inner, slots, generator=generator, dtype=torch.float64)
        phases = 2 * torch.pi * torch.rand(slots, generator=generator, dtype=torch.float64)
        drawn = _digest(projection, phases, *_given(self._key_map))
        self.identity = f"{kind}/{slots}x{key_size}/{self.sharpness}/{ridge}/{drawn}"
        self._projection, self._phases = projection.to(self.device), phases.to(self.device)

    def write_weights(self, keys: Tensor) -> Tensor:
        projected = _mapped(keys, self._key_map) @ self._projection
        if self.kind == "relu":
            return normalize((projected - self.sharpness).relu(), dim=-1)
        return normalize((self.sharpness * projected + self._phases).cos(), dim=-1)

    def read_weights(self, state: State, queries: Tensor) -> Tensor:
        return self.write_weights(queries)

    def familiarity(self, state: State, queries: Tensor) -> Tensor:
        """The leverage of a query in the regression from keys to values, 1 − ridge · w P wᵀ for w of length 1.

        It is w Wᵀ (W Wᵀ + ridge)⁻¹ W wᵀ: how much of w the weights W of what is written make up.
        """
        weights = self.write_weights(queries)
        left = self.ridge * ((weights @ state.inverse) * weights).sum(1)
        return (weights.square().sum(1) - left).clamp(0, 1)  # of a query without any feature w is 0, not of length 1


class Slots(NamedTuple):
    """State of :class:`NearestAddressing`; slots that are free hold zeros."""

    keys: Tensor
    """(K, D), float64."""
    values: Tensor
    """(K, C), float64."""
    used: Tensor
    """(K,), bool."""


class NearestAddressing(Addressing[Slots]):
    """One fact a slot; weights are softmax(β cos(query, key)) over the facts, or over the nearest few.

    Args:
        slots, key_size: K and D.
        inverse_temperature: β; the larger, the nearer to a look-up.
        top: how many of the nearest facts are read; None reads all.
        key_map: see :func:`_mapped`.
    """

    state_type = Slots

    def __init__(
        self,
        slots: int,
        key_size: int,
        *,
        inverse_temperature: float = 40.0,
        top: int | None = None,
        key_map: Tensor | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(slots, key_size, device)
        self._key_map = _checked_map(key_map, key_size, self.device)
        if inverse_temperature <= 0 or (top is not None and top < 1):
            raise ValueError(f"expected a positive inverse temperature and top, not {inverse_temperature} and {top}")
        self.inverse_temperature, self.top = inverse_temperature, top
        mapped = "" if self._key_map is None else f"/{_digest(self._key_map)}"
        self.identity = f"nearest/{slots}x{key_size}/{inverse_temperature}/{top}{mapped}"

    def empty(self, value_size: int) -> Slots:
        keys, values = (
            torch.zeros(self.slots, size, dtype=torch.float64, device=self.device)
            for size in (self.key_size, value_size)
        )
        return Slots(keys, values, torch.zeros(self.slots, dtype=torch.bool, device=self.device))

    def write(self, state: Slots, keys: Tensor, values: Tensor) -> Slots:
        free = (~state.used).nonzero()[:, 0]
        if len(keys) > len(free):
            raise MemoryFullError(f"{len(keys)} facts to write, but of {self.slots} slots {len(free)} are free")
        return self._fill(state, free[: len(keys)], keys.double(), values.double(), True)

    def forget(self, state: Slots, keys: Tensor, values: Tensor) -> Slots:
        left = state.used.clone()
        for key, value in zip(keys.double(), values.double(), strict=True):
            same = (left & (state.keys == key).all(1) & (state.values == value).all(1)).nonzero()
            if not len(same):
                raise NotWrittenError("to forget takes keys and values that were written; of these, some were not")
            left[same[0]] = False
        gone = (state.used & ~left).nonzero()[:, 0]
        return self._fill(state, gone, state.keys.new_zeros(()), state.values.new_zeros(()), False)

    def _fill(self, state: Slots, slots: Tensor, keys: Tensor, values: Tensor, used: bool) -> Slots:
        new = Slots(*(tensor.clone() for tensor in state))
        new.keys[slots], new.values[slots], new.used[slots] = keys, values, used
        return new

    def read_weights(self, state: Slots, queries: Tensor) -> Tensor:
        weights = queries.new_zeros(len(queries), self.slots, dtype=torch.float64)
        taken = state.used.nonzero()[:, 0]
        if len(taken):
            nearest, places = self._cosines(state, queries).topk(min(self.top or len(taken), len(taken)))
            weights.scatter_(1, taken[places], (self.inverse_temperature * nearest).softmax(-1))
        return weights

    def familiarity(self, state: Slots, queries: Tensor) -> Tensor:
        """The largest cosine of a query and a stored key, max_k cos(q, k), where it is positive."""
        if not bool(state.used.any()):
            return queries.new_zeros(len(queries), dtype=torch.float64)
        return self._cosines(state, queries).amax(1).clamp(0, 1)

    def _cosines(self, state: Slots, queries: Tensor) -> Tensor:
        """Of queries (N, D) and the keys in slots that are used, (N, used)."""
        return _mapped(queries, self._key_map) @ _mapped(state.keys[state.used], self._key_map).mT

    def contents(self, state: Slots) -> Tensor:
        return state.values

    def used(self, state: Slots) -> float:
        return float(state.used.sum())

    def conditioning(self, state: Slots) -> float:
        return 1.0


def _mapped(keys: Tensor, key_map: Tensor | None) -> Tensor:
    """Directions (N, D′) of keys (N, D), float64, after a linear map (D, D′) if there is one.

    Such a map is learnt by :func:`palimpsest.larimar.keys.learn_keys`.
    """
    keys = keys.double()
    return normalize(keys if key_map is None else keys @ key_map, dim=-1)


def _checked_map(key_map: Tensor | None, key_size: int, device: torch.device) -> Tensor | None:
    if key_map is None:
        return None
    if key_map.ndim != 2 or len(key_map) != key_size or not bool(key_map.isfinite().all()):
        raise ValueError(f"key_map: expected finite numbers ({key_size}, any), not of shape {tuple(key_map.shape)}")
    return key_map.detach().to(device).double()


def _given(tensor: Tensor | None) -> tuple[Tensor, ...]:
    return () if tensor is None else (tensor,)


def _digest(*tensors: Tensor) -> str:
    """A name of some numbers: 16 hexadecimal digits of their SHA-256."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.cpu().contiguous().numpy().data)
    return digest.hexdigest()[:16]
