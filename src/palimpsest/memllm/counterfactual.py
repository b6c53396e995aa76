"""Documents with their entities swapped for others, so that a model learns to read what it cannot know.

MemLLM finetunes on such copies of Re-DocRED, made by CovEReD (Modarressi et al., arXiv 2407.06699). Here an entity
takes the name of one of the same type in another document: of some drawn at random, of one most alike in the form of
the name, the relations in which it stands and the words beside its mentions. A mention by a part of the name becomes
the corresponding part of the new name. Nothing but mentions changes.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from palimpsest.facts import Document, Entity, Mention

CHOICES = 200  # how many names are drawn, of which the most alike is taken
POOL = 5_000  # how many documents give the names
ADDITIONS = frozenset({"the", "jr.", "jr", "sr.", "sr", "ii", "iii", "iv"})  # no name by themselves
DEMONYM = re.compile(r"\w*(ian|ean|can|man|ese|ish|nch|utch|reek|wiss)s?")  # "American" cannot stand for "Japan"
AN = re.compile(r"(?!Eu|One|U[.SKn])[AEIOUaeiou]|[FHLMNRSX][A-Z.]|8")  # what "an" stands before, and "a" does not

Tokens = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Naming:
    """How a document names an entity: its wordings, the longest of which is its full name, and what it is like."""

    type: str
    full: Tokens
    wordings: tuple[Tokens, ...]
    traits: frozenset[str]

    @property
    def group(self) -> tuple[object, ...]:
        """Only names of one group are swapped: of the same type that fit the same grammar; values of the same form."""
        if self.type in ("TIME", "NUM"):
            return self.type, _shape(self.full)
        follows_an = self.type != "PER" and AN.match(self.full[0]) is not None
        return self.type, _article(self.full), _shape(self.full) == "Aan", follows_an


class Pool:
    """Names from some documents, to be given to the entities of others."""

    def __init__(self, documents: Iterable[Document]) -> None:
        self._groups: dict[tuple[object, ...], list[Naming]] = defaultdict(list)
        for naming in (naming for document in documents for naming in namings(document)):
            self._groups[naming.group].append(naming)

    def draw(self, old: Naming, taken: set[Tokens], rng: Random) -> dict[Tokens, Tokens]:
        """A new wording for each wording of an entity, none of them ``taken``; empty if no name is suitable."""
        group = self._groups.get(old.group, [])
        drawn = rng.sample(group, min(CHOICES, len(group)))  # likeness with some luck, so that copies differ
        drawn.sort(key=lambda new: rng.random() * (len(new.traits & old.traits) / len(new.traits | old.traits)) ** 2)
        for new in reversed(drawn):
            found = {wording: other for wording in old.wordings if (other := _counterpart(wording, old, new))}
            if len(found) == len(old.wordings) and taken.isdisjoint([*new.wordings, *found.values()]):
                return found
        return {}


def namings(document: Document) -> list[Naming]:
    """How a document names each of its entities."""
    wordings: list[dict[Tokens, None]] = [{} for _ in document.entities]
    traits: list[set[str]] = [set() for _ in document.entities]
    for fact in document.facts:
        traits[fact.head].add(f"{fact.relation} of")
        traits[fact.tail].add(f"{fact.relation} is")
    for index, mention in document.mentions():
        tokens = document.sentences[mention.sentence]
        wordings[index][tokens[mention.start : mention.end]] = None
        traits[index].update(f"{word} _" for word in tokens[: mention.start][-1:])
        traits[index].update(f"_ {word}" for word in tokens[mention.end :][:1])
        traits[index].update({"he", "his", "him", "she", "her"}.intersection(map(str.lower, tokens)))
    found = []
    for entity, known, like in zip(document.entities, wordings, traits, strict=True):
        full = max(known, key=lambda wording: (len(wording), _shape(wording) != "Aan"))
        form = {f"{len(full)} tokens", _shape(full), *filter(str.islower, full)}
        found.append(Naming(entity.type, full, tuple(known), frozenset(like | form)))
    return found


def augment(documents: Sequence[Document], copies: int, seed: int) -> Iterator[Document]:
    """Counterfactual copies of documents. They take their names from one another.

    Args:
        documents: annotated documents; at most 5,000 of them, drawn at random, give the names.
        copies: how many copies to make of each document; they follow one another.
        seed: the same seed gives the same copies; a copy does not depend on how many there are.

    Raises:
        ValueError: ``copies`` is negative.
    """
    if copies < 0:
        raise ValueError(f"copies: expected at least 0, found {copies}")
    pool = Pool(Random(seed).sample(documents, min(POOL, len(documents))))
    for number, document in enumerate(documents):
        for copy in range(copies):
            yield swap(document, pool, Random(f"{seed}/{number}/{copy}"))


def swap(document: Document, pool: Pool, rng: Random) -> Document:
    """A document with its entities swapped for others of a pool; facts, evidence and types stay as they are.

    An entity keeps its name if one of its mentions overlaps another mention, or if the pool has no suitable name. The
    title changes if it is an entity's name.
    """
    fixed, named = _overlapping(document), namings(document)
    taken = {wording for naming in named for wording in naming.wordings}
    new: list[dict[Tokens, Tokens]] = []
    for index, old in enumerate(named):
        new.append({} if index in fixed else pool.draw(old, taken, rng))
        taken.update(new[-1].values())
    return _reworded(document, new)


def _reworded(document: Document, new: Sequence[Mapping[Tokens, Tokens]]) -> Document:
    """The document with its mentions reworded: ``new`` maps the wordings of each entity, or is empty for it."""
    wordings = {
        (m.sentence, m.start): (m.end, new[index][document.sentences[m.sentence][m.start : m.end]])
        for index, m in document.mentions()
        if new[index]
    }
    sentences, moved = [], {}  # `moved`: where the old places between tokens are now
    for number, sentence in enumerate(document.sentences):
        tokens: list[str] = []
        place = 0
        while place < len(sentence):
            moved[number, place] = len(tokens)
            place, wording = wordings.get((number, place), (place + 1, sentence[place : place + 1]))
            tokens += wording
        moved[number, place] = len(tokens)
        sentences.append(tuple(tokens))

    def move(index: int, mention: Mention) -> Mention:
        start, end = (moved[mention.sentence, place] for place in (mention.start, mention.end))
        name = " ".join(sentences[mention.sentence][start:end]) if new[index] else mention.name
        return Mention(name, mention.sentence, start, end)

    entities = tuple(
        Entity(tuple(move(index, mention) for mention in entity.mentions), entity.type)
        for index, entity in enumerate(document.entities)
    )
    names = {" ".join(old): " ".join(wording) for swapped in new for old, wording in swapped.items()}
    return Document(names.get(document.title, document.title), tuple(sentences), entities, document.facts)


def _overlapping(document: Document) -> set[int]:
    """The entities of which a mention shares a token with another mention."""
    tokens = [(index, (m.sentence, place)) for index, m in document.mentions() for place in range(m.start, m.end)]
    count = Counter(place for _, place in tokens)
    return {index for index, place in tokens if count[place] > 1}


def _counterpart(wording: Tokens, old: Naming, new: Naming) -> Tokens | None:
    """What corresponds to a wording of ``old``: a wording of ``new``, or one made from its full name, or nothing."""
    part, form = _part(wording, old.full), _shape(wording)
    if part == "whole":
        return new.full if _article(wording) else new.full[len(_article(new.full)) :]
    if own := [other for other in new.wordings if (_part(other, new.full), _shape(other)) == (part, form)]:
        return own[0]
    if part == "initials":
        return (_initials(new.full),) if len(_initials(new.full)) > 1 else None
    size = min(len(wording), len(new.full) - 1)
    words = {"start": new.full[:size], "end": new.full[len(new.full) - size :]}.get(part, ())
    return None if any(word.islower() or word.lower() in ADDITIONS for word in words[:1] + words[-1:]) else words


def _part(wording: Tokens, full: Tokens) -> str:
    """Which part of a full name a wording is, article aside; any but the first words count as the end."""
    wording, full = wording[len(_article(wording)) :], full[len(_article(full)) :]
    if wording == full:
        return "whole"
    for place in range(len(full)):
        if wording == full[place : place + len(wording)]:
            return "end" if place else "start"
    return "initials" if len(wording) == 1 and wording[0].replace(".", "") == _initials(full) else "other"


def _initials(name: Tokens) -> str:
    return "".join(word[0] for word in name if word[:1].isupper())


def _article(name: Tokens) -> Tokens:
    return name[:1] if name[0].lower() == "the" and len(name) > 1 else ()


def _shape(name: Tokens) -> str:
    """What a name looks like: ``0 Aa 0000`` is a date, ``Aan`` a demonym."""
    return " ".join(
        ("Aan" if DEMONYM.fullmatch(token) else "Aa" if token[0].isupper() else "aa")
        if token.isalpha()
        else re.sub(r"\d+", lambda digits: "0000" if len(digits[0]) == 4 else "0", token)
        for token in name
    )
