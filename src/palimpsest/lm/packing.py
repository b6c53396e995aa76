"""Text as one long stream of tokens, cut into equal windows: no padding, every token is trained on once an epoch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import sha256
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerFast

CHUNKS_AT_ONCE = 4096


class PackedTokens:
    """Chunks, each preceded by the end-of-text token, packed into windows of ``length`` tokens and their successors.

    Raises ValueError if there are too few tokens for a single window.
    """

    def __init__(self, tokens: NDArray[np.int32], length: int) -> None:
        self.tokens, self.length = tokens, length
        self.windows = (len(tokens) - 1) // length
        if self.windows < 1:
            raise ValueError(f"{len(tokens)} tokens do not fill a window of {length} tokens and its successor")

    @classmethod
    def encode(cls, texts: Iterable[str], tokenizer: PreTrainedTokenizerFast, length: int) -> PackedTokens:
        """Tokenize and pack texts, a few thousand at a time."""
        texts, pieces = iter(texts), []
        start = tokenizer.eos_token_id
        while batch := list(islice(texts, CHUNKS_AT_ONCE)):
            encoded = tokenizer(batch, add_special_tokens=False)["input_ids"]
            pieces += [np.array([start, *ids], dtype=np.int32) for ids in encoded]
        return cls(np.concatenate(pieces) if pieces else np.empty(0, np.int32), length)

    def batch(self, windows: NDArray[np.int64]) -> Tensor:
        """The given windows, each with the token that follows it: (B, length + 1), int64."""
        positions = windows[:, None] * self.length + np.arange(self.length + 1)
        return torch.from_numpy(self.tokens[positions].astype(np.int64))

    def in_order(self, batch_size: int) -> Iterator[Tensor]:
        """All windows, batch by batch."""
        for start in range(0, self.windows, batch_size):
            yield self.batch(np.arange(start, min(start + batch_size, self.windows)))

    def shuffled(self, step: int, batch_size: int, seed: int) -> Tensor:
        """The batch of one training step, a pure function of its arguments: each epoch has an order of its own.

        The windows that do not fill a batch at the end of an epoch are left out of it.
        """
        size = min(batch_size, self.windows)
        epoch, position = divmod(step, self.windows // size)
        order = np.random.default_rng((seed, epoch)).permutation(self.windows)
        return self.batch(order[position * size : (position + 1) * size])

    def digest(self) -> str:
        """Identifies the content."""
        return sha256(np.int64(self.length).tobytes() + self.tokens.tobytes()).hexdigest()
