"""The memory that people use: facts with labels are written, read, forgotten, merged, saved.

:class:`MatrixMemory` holds vectors, :class:`TextMemory` encodes texts for it. What is read comes from the matrix of K
slots alone. Beside it stands a ledger of keys and values, since to forget takes, to the last bit, the numbers that were
written (an encoder gives slightly others in another batch); what is forgotten goes from the ledger too.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from palimpsest.larimar.addressing import Addressing
from palimpsest.larimar.memory_file import MemoryFileError, read_file, write_file

Text = str | tuple[str, str]
"""A text, or a prompt and its answer."""


class Entry(NamedTuple):
    """A fact in a memory, as its history tells it."""

    label: str
    step: int
    """Which call wrote it: the first is 1."""


class _Fact(NamedTuple):
    key: Tensor
    value: Tensor
    step: int


class MatrixMemory:
    """Facts (key, value) under labels, in a matrix of K slots.

    Whatever raises leaves the memory as it was.

    Args:
        addressing: how keys become weights over slots.
        value_size: C.
        encoder: identity of what makes keys and values, kept in files and compared.
    """

    def __init__(self, addressing: Addressing[Any], value_size: int, *, encoder: str = "") -> None:
        self.addressing, self.value_size, self.encoder = addressing, value_size, encoder
        self.steps = 0
        self._state = addressing.empty(value_size)
        self._facts: dict[str, _Fact] = {}

    def __len__(self) -> int:
        return len(self._facts)

    def __contains__(self, label: object) -> bool:
        return label in self._facts

    @property
    def history(self) -> list[Entry]:
        """What is written, in the order of writing; of what was forgotten nothing is left, here as elsewhere."""
        return [Entry(label, fact.step) for label, fact in self._facts.items()]

    @property
    def keys(self) -> Tensor:
        """The keys (N, D) of what is written, in the order of writing."""
        return torch.stack([fact.key for fact in self._facts.values()])

    @property
    def capacity(self) -> int:
        """How many facts, at the most, can be told apart."""
        return self.addressing.capacity

    @property
    def used(self) -> float:
        """How many slots are taken, in effect: as many as there are facts, less what these share."""
        return self.addressing.used(self._state)

    @property
    def conditioning(self) -> float:
        """Condition number of the system that is solved; forgetting is exact to 1e-16 times its square."""
        return self.addressing.conditioning(self._state)

    def write(self, keys: Tensor, values: Tensor, labels: Sequence[str]) -> None:
        """Write N facts at once, keys (N, D) and values (N, C), each under a label of its own.

        Raises:
            ValueError: sizes that do not fit, numbers that are not finite, a label that is there already (forget it
                first: both facts would be read mixed), or values that the addressing cannot hold.
            MemoryFullError: more facts than free slots, with an addressing of one fact a slot.
        """
        keys, values = self._checked(keys, "keys"), self._checked(values, "values")
        if not len(keys) == len(values) == len(labels):
            raise ValueError(f"{len(keys)} keys, {len(values)} values and {len(labels)} labels do not go together")
        if twice := [label for label, count in Counter(labels).items() if count > 1 or label in self]:
            raise ValueError(f"{twice[0]!r} is written already; to write it anew, forget it first")
        if not labels:
            return
        state = self.addressing.write(self._state, keys, values)
        self._state, self.steps = state, self.steps + 1
        for label, key, value in zip(labels, keys, values, strict=True):
            self._facts[label] = _Fact(key.clone(), value.clone(), self.steps)

    def forget(self, labels: Sequence[str]) -> None:
        """Take facts back: the memory is as if they had never been written.

        Raises:
            KeyError: a label is not there, or is named twice.
        """
        remaining = dict(self._facts)
        gone = []
        for label in labels:
            if label not in remaining:
                raise KeyError(f"{label!r} is not written, so it cannot be forgotten")
            gone.append(remaining.pop(label))
        if gone:
            self._state = self.addressing.forget(self._state, *_stacked(gone))
            self._facts = remaining

    def read(self, queries: Tensor, *, noise: float = 0.0, generator: torch.Generator | None = None) -> Tensor:
        """Read-outs (N, C) of queries (N, D), in their dtype; of an empty memory, zeros.

        Args:
            noise: standard deviation of Gaussian noise on the addressing weights, drawn from ``generator``.

        Raises:
            ValueError: sizes that do not fit, numbers that are not finite, noise without a generator.
        """
        weights = self.read_weights(queries)
        if noise:
            if generator is None:
                raise ValueError("noise needs a generator")
            drawn = torch.randn(weights.shape, generator=generator, device=generator.device)
            weights = weights + noise * drawn.to(weights)
        return (weights @ self.addressing.contents(self._state)).to(queries)

    def read_weights(self, queries: Tensor) -> Tensor:
        """Addressing weights (N, K) of queries (N, D), float64. Raises ValueError as :meth:`read` does."""
        return self.addressing.read_weights(self._state, self._checked(queries, "queries"))

    def familiarity(self, queries: Tensor) -> Tensor:
        """How much of each query (N, D) lies in what is written, (N,) from 0 to 1, float64; of an empty memory, 0.

        See :meth:`palimpsest.larimar.addressing.Addressing.familiarity`. Raises ValueError as :meth:`read` does.
        """
        queries = self._checked(queries, "queries")
        if not self._facts:  # whatever rounding has left of facts that were forgotten
            return queries.new_zeros(len(queries), dtype=torch.float64)
        return self.addressing.familiarity(self._state, queries)

    def copy(self) -> MatrixMemory:
        """Another memory of the same facts: what changes the one leaves the other."""
        other = copy(self)  # the state is never changed in place, so that both may hold it
        other._facts = dict(self._facts)
        return other

    def merge(self, other: MatrixMemory) -> None:
        """Write all that another memory holds into this one, as one step.

        Raises:
            ValueError: it is addressed or encoded otherwise, its values have another size, or a label is in both.
            MemoryFullError: it does not fit.
        """
        for what, mine, its in (
            ("addressing", self.addressing.identity, other.addressing.identity),
            ("encoder", self.encoder, other.encoder),
            ("size of values", self.value_size, other.value_size),
        ):
            if mine != its:
                raise ValueError(f"memories of different {what} do not merge: {mine} and {its}")
        if other._facts:
            self.write(*_stacked(list(other._facts.values())), list(other._facts))

    def _checked(self, rows: Tensor, name: str) -> Tensor:
        size = self.value_size if name == "values" else self.addressing.key_size
        if rows.ndim != 2 or rows.shape[1] != size or not rows.is_floating_point():
            raise ValueError(f"{name}: expected numbers (N, {size}), got {tuple(rows.shape)} of {rows.dtype}")
        if not bool(rows.isfinite().all()):
            raise ValueError(f"{name}: some are not finite numbers")
        return rows.detach().to(self.addressing.device)

    # -- files -------------------------------------------------------------------------------------------------------

    def save(self, path: Path | str) -> None:
        """Write it to a safetensors file, in place of what was there, whole or not at all."""
        tensors = {f"state.{name}": tensor.cpu().contiguous() for name, tensor in self._state._asdict().items()}
        if self._facts:
            tensors["keys"], tensors["values"] = (rows.cpu() for rows in _stacked(list(self._facts.values())))
        metadata = {
            "addressing": self.addressing.identity,
            "encoder": self.encoder,
            "history": json.dumps(self.history, ensure_ascii=False),
            "steps": str(self.steps),
        }
        write_file(path, tensors, metadata)

    @classmethod
    def load(cls, path: Path | str, addressing: Addressing[Any], *, encoder: str = "") -> MatrixMemory:
        """What :meth:`save` wrote, on the addressing's device.

        Raises:
            FileNotFoundError: there is no such file.
            MemoryFileError: it is damaged, or its addressing or encoder is another.
        """
        tensors, metadata = read_file(Path(path))
        for what, expected in (("addressing", addressing.identity), ("encoder", encoder)):
            if metadata[what] != expected:
                raise MemoryFileError(f"{path}: written with {what} {metadata[what]!r}, not {expected!r}")
        state = {name: tensors[f"state.{name}"].to(addressing.device) for name in addressing.state_type._fields}
        memory = cls(addressing, addressing.contents(addressing.state_type(**state)).shape[1], encoder=encoder)
        memory._state, memory.steps = addressing.state_type(**state), int(metadata["steps"])
        history = [Entry(*entry) for entry in json.loads(metadata["history"])]
        for place, entry in enumerate(history):
            key, value = (tensors[name][place].to(addressing.device) for name in ("keys", "values"))
            memory._facts[entry.label] = _Fact(key, value, entry.step)
        return memory


def _stacked(facts: Sequence[_Fact]) -> tuple[Tensor, Tensor]:
    """Keys (N, D) and values (N, C); in float64 if any was, which changes none of the numbers."""
    wide = any(torch.float64 in (fact.key.dtype, fact.value.dtype) for fact in facts)
    dtype = torch.float64 if wide else torch.float32
    return torch.stack([f.key for f in facts]).to(dtype), torch.stack([f.value for f in facts]).to(dtype)


# -- texts -----------------------------------------------------------------------------------------------------------


class Encoder(Protocol):
    """What makes vectors of texts; a :class:`~palimpsest.lm.encoder.SentenceEncoder` is one."""

    @property
    def identity(self) -> str:
        """Names everything that shapes the vectors."""

    def encode(self, texts: Sequence[str], /) -> Tensor:
        """Vectors (N, C) of N texts."""


class TextMemory:
    """Texts in a :class:`MatrixMemory`, by way of an encoder.

    A text is written under itself. A pair of prompt and answer is written as the prompt's encoding (key) and the
    answer's (value) where the addressing keeps the two apart, and else as one text, ``prompt answer``. Read-outs are
    code vectors: a decoder makes text of them again.

    Args:
        memory: with an encoder of the same identity; :meth:`new` makes an empty one.
    """

    def __init__(self, encoder: Encoder, memory: MatrixMemory) -> None:
        if memory.encoder != encoder.identity:
            raise ValueError(f"the memory's encoder is {memory.encoder!r}, not {encoder.identity!r}")
        self.encoder, self.memory = encoder, memory

    @classmethod
    def new(cls, encoder: Encoder, addressing: Addressing[Any]) -> TextMemory:
        """An empty memory of texts; keys, values and read-outs are all of the encoder's size."""
        return cls(encoder, MatrixMemory(addressing, addressing.key_size, encoder=encoder.identity))

    @classmethod
    def load(cls, path: Path | str, encoder: Encoder, addressing: Addressing[Any]) -> TextMemory:
        """What ``memory.save`` wrote; raises as :meth:`MatrixMemory.load` does."""
        return cls(encoder, MatrixMemory.load(path, addressing, encoder=encoder.identity))

    @property
    def history(self) -> list[tuple[Text, int]]:
        """The texts that are written, in the order of writing, and which call wrote each."""
        return [(_text(entry.label), entry.step) for entry in self.memory.history]

    def write(self, texts: Sequence[Text]) -> None:
        """Write texts at once; raises as :meth:`MatrixMemory.write` does."""
        if not texts:
            return
        sides = list(zip(*map(self._sides, texts), strict=True))
        distinct = list(dict.fromkeys(text for side in sides for text in side))
        vectors = dict(zip(distinct, self.encoder.encode(distinct), strict=True))
        keys, values = (torch.stack([vectors[text] for text in side]) for side in sides)
        self.memory.write(keys, values, [_label(text) for text in texts])

    def forget(self, texts: Sequence[Text]) -> None:
        """Forget texts, given as they were written; raises KeyError for one that was not."""
        self.memory.forget([_label(text) for text in texts])

    def read(self, prompts: Sequence[str]) -> Tensor:
        """Read-outs (N, C) for prompts."""
        return self.memory.read(self.encoder.encode(list(prompts)))

    def copy(self) -> TextMemory:
        """Another memory of the same texts, for the same encoder."""
        other = copy(self)
        other.memory = self.memory.copy()
        return other

    def _sides(self, text: Text) -> tuple[str, str]:
        if isinstance(text, str):
            return text, text
        return text if self.memory.addressing.apart else (" ".join(text),) * 2


def _label(text: Text) -> str:
    return json.dumps(text, ensure_ascii=False)


def _text(label: str) -> Text:
    text = json.loads(label)
    return text if isinstance(text, str) else tuple(text)
