"""Calls as tokens: what is a marker and what is text is decided by token ids, never by spelling.

The three markers of a call are a token each, in any tokenizer. Text of documents and of the memory is encoded so that
a marker spelt out in it becomes ordinary tokens; hence it can never begin or end a call.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from palimpsest.facts import Query, Triple
from palimpsest.lm.load import LanguageModel, ModelError
from palimpsest.memllm.calls import (
    CLOSE,
    FOCUS_END,
    FOCUS_START,
    MARKERS,
    OPEN,
    READ,
    RESULTS,
    WRITE,
    render_queries,
    render_results,
    render_write,
)

SEED = 0  # of the markers' embeddings before training
_MARKER = re.compile(f"({'|'.join(map(re.escape, MARKERS))})")


def add_call_tokens(lm: LanguageModel) -> LanguageModel:
    """Make sure that the markers are tokens of a language model; its other weights stay as they are.

    The tokenizer, and where it has no row to spare the embedding, are extended in place; new rows are random, the same
    each time.
    """
    lm.tokenizer.add_special_tokens({"additional_special_tokens": list(MARKERS)}, replace_extra_special_tokens=False)
    if len(lm.tokenizer) > lm.model.get_input_embeddings().num_embeddings:
        with torch.random.fork_rng():
            torch.manual_seed(SEED)
            lm.model.resize_token_embeddings(len(lm.tokenizer), mean_resizing=False)
    return replace(lm)


@dataclass(frozen=True, slots=True)
class TextTokens:
    """Token ids of a text, and the characters ``start`` to ``end`` (exclusive) that each covers."""

    ids: list[int]
    offsets: list[tuple[int, int]]

    def first(self, character: int) -> int:
        """Position of the first token that reaches beyond a character's start: where a mention's tokens begin."""
        return next((place for place, (_, end) in enumerate(self.offsets) if end > character), len(self.ids))


@dataclass(frozen=True, eq=False)
class CallTokens:
    """Encodes calls, and the text around them, for a language model that has the markers (:func:`add_call_tokens`).

    ``spaced`` puts a space before each name; see :mod:`palimpsest.memllm.calls`.
    """

    lm: LanguageModel
    spaced: bool

    @property
    def tokenizer(self) -> Any:
        """The language model's."""
        return self.lm.tokenizer

    @property
    def start(self) -> int:
        """The token before a text."""
        return self.lm.start_id

    @property
    def end(self) -> int:
        """The token after a text."""
        return self.lm.start_id if self.lm.eos_id is None else self.lm.eos_id

    @cached_property
    def open(self) -> int:
        """The token that begins a call."""
        return self._marker(OPEN)

    @cached_property
    def results(self) -> int:
        """The token between question and answer."""
        return self._marker(RESULTS)

    @cached_property
    def close(self) -> int:
        """The token that ends a call."""
        return self._marker(CLOSE)

    @cached_property
    def read_prefix(self) -> list[int]:
        """What every read call begins with, the opening marker included."""
        return self._encode(f"{OPEN}{READ}(")

    @cached_property
    def write_prefix(self) -> list[int]:
        """What every write call begins with, up to its first triple."""
        return self._encode(f"{OPEN}{WRITE}{RESULTS}")

    @cached_property
    def focus_start(self) -> list[int]:
        """What stands before the sentence that a write call is about."""
        return self._encode(FOCUS_START)

    @cached_property
    def focus_end(self) -> list[int]:
        """What stands after the sentence that a write call is about."""
        return self._encode(FOCUS_END)

    def text(self, text: str) -> TextTokens:
        """Tokens of text in which nothing is a marker."""
        encoded = self.tokenizer(
            text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True, verbose=False
        )
        pairs = [
            (piece, span)
            for token, span in zip(encoded.input_ids, encoded.offset_mapping, strict=True)
            for piece in self._spelt_out.get(token, [token])
        ]
        return TextTokens([token for token, _ in pairs], [span for _, span in pairs])

    def queries(self, queries: Sequence[Query]) -> list[int]:
        """A read call up to the point where the memory answers."""
        rendered = render_queries(queries, spaced=self.spaced)
        return self.read_prefix + self._encode(rendered.removeprefix(f"{OPEN}{READ}("))

    def answer(self, names: Iterable[str]) -> list[int]:
        """The rest of a read call: the results and the closing marker."""
        return self._encode(render_results(names, spaced=self.spaced))

    def name(self, text: str) -> list[int]:
        """A name, as it stands in a call."""
        return self._encode(" " * self.spaced + text)

    def write(self, triples: Iterable[Triple]) -> list[int]:
        """A write call."""
        return self._encode(render_write(triples, spaced=self.spaced))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens, markers included."""
        return str(self.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))

    def _encode(self, rendered: str) -> list[int]:
        """Tokens of a call: its markers, and what stands between them as text."""
        ids: list[int] = []
        for part in _MARKER.split(rendered):
            if part in MARKERS:
                ids.append(self._marker(part))
            else:  # after a line feed, for many tokenizers put a space before what begins a text
                text = self.text("\n" + part)
                ids += text.ids[text.first(1) :]
        return ids

    @cached_property
    def _spelt_out(self) -> dict[int, list[int]]:
        """Each marker as the tokens of its characters: vocabularies learnt from code know `({` as an ordinary token."""
        return {self._marker(marker): self.tokenizer.convert_tokens_to_ids(list(marker)) for marker in MARKERS}

    def _marker(self, marker: str) -> int:
        token = self.tokenizer.convert_tokens_to_ids(marker)
        if token is None or token == self.tokenizer.unk_token_id:
            raise ModelError(f"{marker} is no token of this tokenizer: call add_call_tokens first")
        return int(token)
