"""The vocabulary that every part shares: triples, queries for them, annotated documents and edits.

Plain immutable values. They know nothing of files (``palimpsest.data`` reads and writes those) nor of models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

NO_SPACE_BEFORE = frozenset(",.;:!?)]}%'’") | {">>", "'s", "n't", "’s", "'re", "'ve", "'ll", "'m", "'d"}
NO_SPACE_AFTER = frozenset("([{$£€")

Known = Literal["subject", "object"]
"""Which of its two entities a query gives."""


class DataError(ValueError):
    """Input that cannot be used. The message names the file, the record and what was expected."""


@dataclass(frozen=True, slots=True)
class Triple:
    """A fact: ``(subject, relation, object)``, all three as text."""

    subject: str
    relation: str
    object: str


@dataclass(frozen=True, slots=True)
class Query:
    """``Query("author", subject="Ulysses")`` asks for the object, ``Query("author", object="Joyce")`` for the subject.

    Raises ValueError unless exactly one entity is given.
    """

    relation: str
    subject: str | None = None
    object: str | None = None

    def __post_init__(self) -> None:
        if (self.subject is None) == (self.object is None):
            raise ValueError(f"{self}: expected a subject or an object, and not both")

    @property
    def known(self) -> Known:
        """Which entity is given."""
        return "object" if self.subject is None else "subject"

    @property
    def entity(self) -> str:
        """The name of the entity that is given."""
        return self.subject or self.object or ""


@dataclass(frozen=True, slots=True)
class Mention:
    """Where a document names an entity: tokens ``start`` to ``end`` (exclusive) of sentence ``sentence``."""

    name: str
    sentence: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Entity:
    """All mentions of one entity in one document; ``type`` is DocRED's (PER, LOC, ORG, TIME, NUM, MISC)."""

    mentions: tuple[Mention, ...]
    type: str

    @property
    def name(self) -> str:
        """The entity's canonical name: its first mention as listed."""
        return self.mentions[0].name


@dataclass(frozen=True, slots=True)
class Fact:
    """A relation between two entities of one document, which are given by their positions in its entity list."""

    head: int
    relation: str
    tail: int
    evidence: tuple[int, ...] = ()

    @property
    def ends(self) -> tuple[int, int]:
        """Head and tail."""
        return self.head, self.tail


@dataclass(frozen=True)
class Document:
    """An annotated text: tokenised sentences, the entities mentioned and the facts stated (relations are P-ids)."""

    title: str
    sentences: tuple[tuple[str, ...], ...]
    entities: tuple[Entity, ...] = ()
    facts: tuple[Fact, ...] = ()

    @cached_property
    def _layout(self) -> tuple[str, tuple[tuple[tuple[int, int], ...], ...]]:
        text, spans = "", []
        for tokens in self.sentences:
            sentence, token_spans = detokenize(tokens)
            text += " " if text and sentence else ""
            offset = len(text)
            text += sentence
            spans.append(tuple((offset + start, offset + end) for start, end in token_spans))
        return text, tuple(spans)

    @property
    def text(self) -> str:
        """The document as running text, with ordinary spacing around punctuation."""
        return self._layout[0]

    def span(self, mention: Mention) -> tuple[int, int]:
        """Character range ``(start, end)`` of a mention in :attr:`text`."""
        spans = self._layout[1][mention.sentence]
        return spans[mention.start][0], spans[mention.end - 1][1]

    def sentence_spans(self) -> list[tuple[int, int]]:
        """Character range of each sentence in :attr:`text`; an empty sentence has an empty range."""
        ranges, end = [], 0
        for spans in self._layout[1]:
            ranges.append((spans[0][0], spans[-1][1]) if spans else (end, end))
            end = ranges[-1][1]
        return ranges

    def mentions(self) -> Iterator[tuple[int, Mention]]:
        """``(entity position, mention)`` pairs in text order; of two that start together the longer comes first."""
        pairs = [(index, mention) for index, entity in enumerate(self.entities) for mention in entity.mentions]
        return iter(sorted(pairs, key=lambda pair: (pair[1].sentence, pair[1].start, -pair[1].end, pair[0])))

    def triples(self, labels: dict[str, str]) -> list[Triple]:
        """The facts as text, entities by canonical name and relations by label (``labels``: P-id to label)."""
        return [
            Triple(self.entities[fact.head].name, labels[fact.relation], self.entities[fact.tail].name)
            for fact in self.facts
        ]


@dataclass(frozen=True, slots=True)
class Probe:
    """A prompt with the answer expected after an edit; ``before`` is the answer expected without it, if another."""

    prompt: str
    answer: str
    before: str | None = None


@dataclass(frozen=True, slots=True)
class Edit:
    """A requested change: after it ``prompt`` (subject filled in) is to be continued by ``target_new``.

    ``paraphrases`` ask the same in other words; ``neighbors`` ask about other subjects, whose answers must stay;
    ``portability`` asks questions that compose the new fact with another one (two hops).
    ``target_true`` are the answers right before the edit (CounterFact has one, ZsRE may have several).
    ``relation`` is a P-id where the format gives one.
    """

    case_id: str
    subject: str
    prompt: str
    target_new: str
    target_true: tuple[str, ...]
    relation: str | None = None
    paraphrases: tuple[str, ...] = ()
    neighbors: tuple[Probe, ...] = ()
    attribute_prompts: tuple[str, ...] = ()
    generation_prompts: tuple[str, ...] = ()
    portability: tuple[Probe, ...] = ()


def detokenize(tokens: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """Join tokens with ordinary spacing.

    Returns the text and each token's character range in it. Straight double quotes open and close in turn.
    """
    text, spans, glue, quoted = "", [], True, False
    for token in tokens:
        closing = token in NO_SPACE_BEFORE or (token == '"' and quoted)
        if not glue and not closing:
            text += " "
        spans.append((len(text), len(text) + len(token)))
        text += token
        glue = token in NO_SPACE_AFTER or (token == '"' and not quoted)
        if token == '"':
            quoted = not quoted
    return text, spans
