"""Calls whose entities are copied from the text: a constraint on decoding, in the manner of GENRE (De Cao et al. 2021).

What a call names stands in the text: a sentence is written down in its own words, and a question is about what was
mentioned before. A small model that copies a name token by token at times slips into a likelier ending, and the name of
nobody comes out. Under the constraint only tokens may follow that continue some stretch of whole words of the text, or
that belong to the call's syntax; relations are free. (The papers' models are large and decode freely.)

A name that would have to be escaped cannot be copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from palimpsest.memllm.tokens import CallTokens

SYNTAX = frozenset(">;)")  # what ends a name or stands for a missing one
PARTS = (">>", ";")
SPACES = ("Ġ", "▁")  # how vocabularies write the space before a word
LONGEST = 32  # tokens of a name that follows a bracket or quote, or opens the text
BORDER = -1  # no token


class CopiedNames:
    """The state of some calls while they are decoded: what each may go on with.

    Args:
        tokens: encodes the calls.
        texts: for each call the tokens that its entities are copied from.

    Raises ValueError if the calls are not spaced: their names are other tokens than those of the text.
    """

    def __init__(self, tokens: CallTokens, texts: Sequence[Sequence[int]]) -> None:
        if not tokens.spaced:
            raise ValueError("names can be copied only into calls with a space before each name (spaced)")
        self.tokens = tokens
        self._calls = [_Call(*_sources(tokens, text)) for text in texts]
        self._syntax = _syntax(tokens)

    def restrict(self, rows: Sequence[int], logits: Tensor) -> Tensor:
        """Logits (R, V) of some calls, with minus infinity for what would not be copied."""
        forbidden = torch.zeros(logits.shape, dtype=torch.bool)
        places, allowed = list[int](), list[int]()
        for place, row in enumerate(rows):
            following, ending = self._calls[row].following()
            if following is not None:
                forbidden[place] = True
                following = following + self._syntax * ending
                places += [place] * len(following)
                allowed += following
        forbidden[places, allowed] = False
        return logits.masked_fill(forbidden.to(logits.device), -torch.inf)

    def add(self, rows: Sequence[int], chosen: Sequence[int]) -> None:
        """Tell what each of some calls went on with."""
        for row, token in zip(rows, chosen, strict=True):
            self._calls[row].add(token, _written(self.tokens, token))


class _Call:
    """One call: which of the three names of a triple or query it is in, and where in the text the name may be."""

    def __init__(self, text: Sequence[int], starts: Sequence[bool]) -> None:
        self._text, self._starts = text, starts
        self._beginnings = [place for place, start in enumerate(starts) if start]
        self._name, self._tail = 0, ""
        self._next: list[int] | None = None  # places in the text that could follow; None: a name begins

    def following(self) -> tuple[list[int] | None, bool]:
        """Tokens of the text that may follow (None: any token at all), and whether syntax may."""
        if self._name == 1:
            return None, True
        places = self._beginnings if self._next is None else self._next
        tokens = [token for place in places if (token := self._text[place]) != BORDER]
        return tokens, self._next is None or not tokens or any(self._starts[place] for place in places)

    def add(self, token: int, written: str) -> None:
        """Go on with a token, which is written so."""
        places = self._beginnings if self._next is None else self._next
        self._next = [place + 1 for place in places if self._text[place] == token]
        self._tail += written
        while (part := min((part for part in PARTS if part in self._tail), key=self._tail.index, default="")) != "":
            self._tail = self._tail.partition(part)[2]
            self._name = self._name + 1 if part == ">>" else 0
            self._next = None


def _sources(tokens: CallTokens, text: Sequence[int]) -> tuple[list[int], list[bool]]:
    """What can be copied, and of each token whether a name may begin there, or has ended before.

    That is a text, and what stands in it without a space before it once more with one. Each ends with a border.
    """
    starts = _word_starts(tokens, text)
    spaced = [piece.startswith(SPACES) for piece in tokens.tokenizer.convert_ids_to_tokens(list(text))]
    source, begins = [*text, BORDER], [*starts, True]
    for place, token in enumerate(text):
        if starts[place] and not spaced[place] and _written(tokens, token)[:1].isalnum():
            again = tokens.name(tokens.decode(text[place : place + LONGEST]))
            source += [*again, BORDER]
            begins += [*_word_starts(tokens, again), True]
    return source, begins


def _word_starts(tokens: CallTokens, text: Sequence[int]) -> list[bool]:
    """Of each token of a text, whether it begins a word or stands outside words."""
    spaced = [piece.startswith(SPACES) for piece in tokens.tokenizer.convert_ids_to_tokens(list(text))]
    starts, inside = [], False  # of a word
    for token, space in zip(text, spaced, strict=True):
        written = _written(tokens, token)
        starts.append(space or not inside or not written[0].isalnum())
        inside = written[-1].isalnum() or (space and written.isspace())  # a space may be a token by itself
    return starts


@lru_cache(maxsize=1 << 16)
def _written(tokens: CallTokens, token: int) -> str:
    """A token as text, which is never empty."""
    return tokens.decode([token]) or " "


@lru_cache(maxsize=8)
def _syntax(tokens: CallTokens) -> list[int]:
    """All tokens that are nothing but syntax, and the markers."""
    plain = [token for text, token in tokens.tokenizer.get_vocab().items() if SYNTAX.issuperset(text)]
    return [*plain, tokens.open, tokens.results, tokens.close, tokens.end]
