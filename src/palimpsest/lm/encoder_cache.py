"""A sentence encoder that remembers the vectors of texts it has encoded.

Experiments ask the same prompts again and again, of many memories; a small encoder then takes longer than all else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch
from torch import Tensor

from palimpsest.lm.encoder import SentenceEncoder

REMEMBERING = ContextVar("REMEMBERING", default=True)


@contextmanager
def remembering_nothing() -> Iterator[None]:
    """Models compute anew inside the block what they know already: for measurements of time."""
    token = REMEMBERING.set(False)
    try:
        yield
    finally:
        REMEMBERING.reset(token)


@dataclass(frozen=True, eq=False)
class RememberingEncoder(SentenceEncoder):
    """Encodes each text once, for as long as it lives; its model must not change. Make one with :meth:`of`."""

    known: dict[str, Tensor] = field(default_factory=dict)
    """The unit vector (C,) of each text."""

    @classmethod
    def of(cls, encoder: SentenceEncoder) -> RememberingEncoder:
        """The same encoder with a memory; one that has it already is given back."""
        if isinstance(encoder, cls):
            return encoder
        return cls(encoder.model, encoder.tokenizer, encoder.max_length, encoder.identity)

    def encode(self, texts: Sequence[str], *, batch_size: int = 64, progress: bool = False) -> Tensor:
        """See :meth:`palimpsest.lm.encoder.SentenceEncoder.encode`; a text has the same vector, bit for bit, ever."""
        if not REMEMBERING.get():
            return super().encode(texts, batch_size=batch_size, progress=progress)
        new = [text for text in dict.fromkeys(texts) if text not in self.known]
        self.known.update(zip(new, super().encode(new, batch_size=batch_size, progress=progress), strict=True))
        if not texts:
            return super().encode(texts)
        return torch.stack([self.known[text] for text in texts])
