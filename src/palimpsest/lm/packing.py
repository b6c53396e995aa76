"""Whole texts packed into windows of equal length, nearly without padding.

Every window begins with the beginning of a text, as a prompt does later. If windows were cut from one long stream
instead, most would begin in mid-text: a quarter of these short texts would lose the name that their pronouns stand for,
and the model would hardly ever see a name at the place where a prompt has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerFast

TEXTS_AT_ONCE = 1024  # enough for the windows to be filled to 98 % and more; few enough to keep the order mixed
PADDING = -1  # no token: neither read nor predicted


class PackedTexts:
    """Texts, each opened by the end-of-text token, packed into windows: (N, length + 1) token ids, padded.

    A window's tokens but the last are read, and its tokens but the first are predicted. A text longer than a window
    goes on in the next one. Raises ValueError if there is no text.
    """

    def __init__(self, windows: NDArray[np.int32]) -> None:
        if not len(windows):
            raise ValueError("there is no text to pack into windows")
        self.windows = windows

    @classmethod
    def encode(cls, texts: Iterable[str], tokenizer: PreTrainedTokenizerFast, length: int) -> PackedTexts:
        """Tokenize and pack texts, about a thousand at a time."""
        texts, end = iter(texts), tokenizer.eos_token_id
        parts: list[NDArray[np.int32]] = [np.empty((0, length + 1), np.int32)]
        while batch := list(islice(texts, TEXTS_AT_ONCE)):
            encoded = tokenizer(batch, add_special_tokens=False)["input_ids"]
            # The end is predicted too, so a text takes a token more than its own, and a window one more than it reads.
            parts.append(_pack([[end, *ids] for ids in encoded], length + 1, end))
        return cls(np.concatenate(parts))

    def __len__(self) -> int:
        return len(self.windows)

    @property
    def predicted(self) -> int:
        """How many tokens are predicted in all windows together."""
        return int((self.windows[:, 1:] != PADDING).sum())

    def in_order(self, batch_size: int) -> Iterator[Tensor]:
        """All windows, batch by batch: (B, length + 1), int64."""
        for start in range(0, len(self), batch_size):
            yield torch.from_numpy(self.windows[start : start + batch_size].astype(np.int64))

    def shuffled(self, step: int, batch_size: int, seed: int) -> Tensor:
        """The batch of one training step, a pure function of its arguments: each epoch has an order of its own.

        The windows that do not fill a batch at the end of an epoch are left out of it.
        """
        size = min(batch_size, len(self))
        epoch, position = divmod(step, len(self) // size)
        order = np.random.default_rng((seed, epoch)).permutation(len(self))
        rows = order[position * size : (position + 1) * size]
        return torch.from_numpy(self.windows[rows].astype(np.int64))

    def digest(self) -> str:
        """Identifies the content."""
        return sha256(np.int64(self.windows.shape[1]).tobytes() + self.windows.tobytes()).hexdigest()


def _pack(texts: Sequence[Sequence[int]], width: int, end: int) -> NDArray[np.int32]:
    """First-fit decreasing: the longest texts first, each into the first window with room for it."""
    pieces = [list(text[start : start + width]) for text in texts for start in range(0, len(text), width)]
    windows: list[list[int]] = []
    for piece in sorted(pieces, key=len, reverse=True):
        for window in windows:
            if len(window) + len(piece) <= width:
                window.extend(piece)
                break
        else:
            windows.append(piece)
    packed = np.full((len(windows), width), PADDING, np.int32)
    for row, window in zip(packed, windows, strict=True):
        row[: len(window)] = window
        row[len(window) : len(window) + 1] = end  # where there is room: the last text ends
    return packed
