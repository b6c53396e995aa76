"""Which entity each document is about: a few are written about often, most once, as in real text."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random

from palimpsest.data.world.documents import write_document, write_questions
from palimpsest.data.world.names import mix, permute
from palimpsest.data.world.relations import Kind
from palimpsest.data.world.universe import Realm, Thing
from palimpsest.facts import Document

STEEPNESS = 16


@dataclass(frozen=True)
class Fame:
    """The long tail: ``round(peak / (1 + (rank / knee) ** STEEPNESS))`` documents, at least one, are about an entity.

    ``peak`` documents are about the most famous entities of a kind; at rank ``knee`` it is half as many, far beyond it
    one. From rank ``reach * knee`` on there are none: these entities the training text mentions in passing or never.
    ``peak`` and ``knee`` list the same kinds, those that documents are about.
    """

    peak: Mapping[Kind, int]
    knee: Mapping[Kind, int]
    reach: int

    def __post_init__(self) -> None:
        if self.peak.keys() != self.knee.keys():
            raise ValueError(f"peak is given for {', '.join(self.peak)}, but knee for {', '.join(self.knee)}")

    def documents(self, kind: Kind, rank: int) -> int:
        """How many documents of the training text are about an entity."""
        if rank >= self.reach * self.knee[kind]:
            return 0
        return max(1, round(self.peak[kind] / (1 + (rank / self.knee[kind]) ** STEEPNESS)))

    def covers(self, realm: Realm, thing: Thing) -> bool:
        """Whether an entity of a realm is famous: of a rank before its kind's knee."""
        return realm.rank(thing) < self.knee[thing.kind]


class Corpus:
    """The training text of a realm as a fixed, shuffled sequence of (entity, copy) pairs, of which none is stored."""

    def __init__(self, realm: Realm, fame: Fame, seed: int) -> None:
        self.realm, self.seed = realm, seed
        # (kind, rank, first position, whether the block is the tail: from there on one document an entity)
        self._blocks: list[tuple[Kind, int, int, bool]] = []
        position = 0
        for kind in fame.knee:
            size, rank = min(realm.sizes.of(kind), fame.reach * fame.knee[kind]), 0
            while rank < size and (count := fame.documents(kind, rank)) > 1:
                self._blocks.append((kind, rank, position, False))
                position += count
                rank += 1
            self._blocks.append((kind, rank, position, True))
            position += size - rank
        self._starts = [start for _, _, start, _ in self._blocks]
        self.length = position

    def subject(self, index: int) -> Thing:
        """The entity that document ``index`` (of ``length``) is about."""
        position = permute(index, self.length, mix(self.seed, 1))
        kind, rank, start, tail = self._blocks[bisect_right(self._starts, position) - 1]
        return self.realm.thing(kind, rank + position - start if tail else rank)

    def chunk(self, index: int, questions: float) -> str:
        """Document ``index`` as text; with probability ``questions`` a line of questions and answers instead."""
        rng = Random(mix(self.seed, 2, index))
        main = self.subject(index)
        if rng.random() < questions:
            return write_questions(self.realm, main, rng)
        return write_document(self.realm, main, rng).text


def sample_documents(
    realm: Realm,
    fame: Fame,
    count: int,
    seed: int,
    *,
    famous: bool = False,
    restated: bool = False,
    balanced: bool = False,
) -> Iterator[Document]:
    """``count`` documents about entities drawn evenly from a realm, which may be ``restated``.

    Args:
        famous: only those of ranks before the knee; kinds come in proportion to their knees then, or their sizes.
        balanced: kinds come in proportion to the square roots of that, so that more is told of those of which there
            are few.
    """
    pools = {}
    for kind, knee in fame.knee.items():
        size = realm.sizes.of(kind)
        pools[kind] = min(knee, size) if famous else size
    kinds, weights = list(pools), [size**0.5 if balanced else size for size in pools.values()]
    for index in range(count):
        rng = Random(mix(seed, 3, index))
        kind = rng.choices(kinds, weights)[0]
        yield write_document(realm, realm.thing(kind, rng.randrange(pools[kind])), rng, restated)


def interleave(ours: Iterator[str], many: int, theirs: Iterator[str], few: int) -> Iterator[str]:
    """Two sequences of known lengths, each in its order, spread evenly through one another."""
    given = 0
    for index in range(many):
        yield next(ours)
        while given < few * (index + 1) // many:
            yield next(theirs)
            given += 1
