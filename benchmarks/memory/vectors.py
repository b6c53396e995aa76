"""Names with unit vectors, real ones where it matters: all-MiniLM-L6-v2 of names of the generated world.

A benchmark of a memory is about the memory. So every name gets its vector beforehand, and the embedder that both
memories are given only looks it up (:class:`Lookup`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palimpsest.data.world.relations import RELATIONS, Kind
from palimpsest.data.world.universe import Sizes, Thing, Universe
from palimpsest.files import atomic_path
from palimpsest.lm.encoder import SentenceEncoder

Vectors = NDArray[np.float32]

# Shares of 60, as in a memory filled from text: people come first, and dates and quantities are entities too, which are
# near one another by the hundred.
MIX = {Kind.PERSON: 34, Kind.BOOK: 12, Kind.COMPANY: 4, Kind.CITY: 2, Kind.DATE: 6, Kind.NUMBER: 2}
VALUES = {Kind.DATE: (1800 * 336, 200 * 336), Kind.NUMBER: (1_000, 900_000)}  # the first of them, and how many
STRIDE = 7919  # from one value to the next; it shares no factor with how many there are
SIZES = Sizes(countries=60, cities=4_000, companies=20_000, universities=400, people=200_000, books=60_000)
SENTENCE = "This text tells of {}."
UNSEEN = 60  # a name that is never stored, for so many that are
BATCH = 256


@dataclass(frozen=True, slots=True)
class Encoder:
    """Texts to unit vectors (N, 384)."""

    encode: Callable[[Sequence[str]], Any]
    identity: str


def minilm() -> Encoder:
    encoder = SentenceEncoder.load()
    return Encoder(lambda texts: encoder.encode(texts, batch_size=BATCH), encoder.identity)


def random_encoder(dimension: int = 384) -> Encoder:
    """Every text in a direction of its own: enough to see that a benchmark runs, without a model."""

    def direction(text: str) -> Vectors:
        seed = list(hashlib.sha256(text.encode()).digest()[:16])
        return np.random.default_rng(seed).standard_normal(dimension, np.float32)

    return Encoder(lambda texts: unit(np.stack([direction(text) for text in texts])), "random")


@dataclass(frozen=True, slots=True)
class Lookup:
    """An embedder for a memory that costs next to nothing: it looks vectors up by name."""

    vectors: dict[str, Vectors]
    dimension: int
    otherwise: Callable[[Sequence[str]], Any] | None = None
    """What embeds the names that are not among ``vectors``."""

    @property
    def identity(self) -> str:
        return "lookup"

    def encode(self, texts: Sequence[str], /) -> Vectors:
        if self.otherwise is None or all(text in self.vectors for text in texts):
            return np.stack([self.vectors[text] for text in texts])
        new = [text for text in texts if text not in self.vectors]
        made = dict(zip(new, np.asarray(self.otherwise(new)), strict=True))
        return np.stack([made[text] if text in made else self.vectors[text] for text in texts])


@dataclass(frozen=True, slots=True)
class Space:
    """Named vectors to make memories of."""

    names: list[str]
    vectors: Vectors
    """Of the names (N, C)."""
    unseen: list[str]
    unseen_vectors: Vectors
    """Names that are never stored, and their vectors."""
    relations: list[str]
    relation_vectors: Vectors

    @property
    def dimension(self) -> int:
        return self.vectors.shape[1]


def make_spaces(encoder: Encoder, names: int, relations: int, cache: Path | None = None) -> dict[int, Space]:
    """By length of the vectors, 384 and 768, a space of ``names`` names, and a few that are never stored.

    The longer vectors are those of a name and of a sentence about it, side by side.
    """
    unseen = max(10, names // UNSEEN)
    texts = [*world_names(names + unseen), *relation_names(relations)]
    short = encoded(texts, encoder, cache)
    sentences = encoded([SENTENCE.format(text) for text in texts], encoder, cache)
    return {
        vectors.shape[1]: Space(
            texts[:names],
            vectors[:names],
            texts[names:-relations],
            vectors[names:-relations],
            texts[-relations:],
            vectors[-relations:],
        )
        for vectors in (short, unit(np.concatenate([short, sentences], axis=1)))
    }


def encoded(texts: Sequence[str], encoder: Encoder, cache: Path | None) -> Vectors:
    """Vectors of the texts, from a file in the folder ``cache`` if they were made before."""
    digest = hashlib.sha256("\0".join([encoder.identity, *texts]).encode()).hexdigest()[:16]
    path = cache / f"{digest}.npy" if cache else None
    if path and path.is_file():
        return np.load(path)
    vectors = np.asarray(encoder.encode(texts), np.float32)
    if path:
        with atomic_path(path) as temporary:
            np.save(temporary, vectors)
    return vectors


def world_names(count: int, skipped: int = 0, seed: int = 0) -> list[str]:
    """``count`` distinct names of people, books, companies and cities, mixed; none of the first ``skipped``."""
    universe = Universe(seed, {"train": SIZES})
    total = sum(MIX.values())
    names: dict[str, None] = {}
    for kind, share in MIX.items():
        first, last = (-(-number * share // total) for number in (skipped, skipped + count))
        names |= dict.fromkeys(universe.name(_thing(universe, kind, rank)) for rank in range(first, last))
    mixed = list(names)
    Random(seed).shuffle(mixed)
    if len(mixed) < count:
        raise ValueError(f"{count} names asked for, but the world has {len(mixed)} distinct ones")
    return mixed[:count]


def _thing(universe: Universe, kind: Kind, rank: int) -> Thing:
    if kind in VALUES:
        start, count = VALUES[kind]
        return Thing(kind, start + rank * STRIDE % count)
    return universe.realms["train"].thing(kind, rank)


def relation_names(count: int) -> list[str]:
    """``count`` relation types: the labels of the generated world, and then other words for the same."""
    labels = [relation.label for relation in RELATIONS]
    statements = [template.text for relation in RELATIONS for template in relation.statements]
    verbs = [text[4:-5] for text in statements if text.startswith("{s} ") and text.endswith(" {o}.")]
    nouns = [text[4:-12] for text in statements if text.startswith("The ") and text.endswith(" of {s} is {o}.")]
    return list(dict.fromkeys([*labels, *verbs, *nouns]))[:count]


def unit(vectors: NDArray[np.floating]) -> Vectors:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def perturbed(vectors: Vectors, noise: float | NDArray[np.floating], rng: np.random.Generator) -> Vectors:
    """Each vector with a step of length ``noise`` in a random direction, as a unit vector again.

    The cosine between old and new is 1 / sqrt(1 + noise²), within the chance of two random directions.
    """
    directions = unit(rng.standard_normal(vectors.shape, np.float32))
    return unit(vectors + np.reshape(noise, (-1, 1)).astype(np.float32) * directions)
