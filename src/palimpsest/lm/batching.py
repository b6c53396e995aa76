"""Batches of token rows: bucketed by length under a token budget, and padded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from tqdm import tqdm

DEFAULT_TOKENS_PER_BATCH = 8192


def length_batches(lengths: Sequence[int], max_tokens: int, rows: Sequence[int] | None = None) -> list[list[int]]:
    """Group items of similar length, the longest first, so that a batch too large for the memory shows at once.

    A batch holds at most ``max_tokens`` tokens after padding (a single item may exceed it), and no item shorter than
    half of its longest, which bounds what padding can waste.

    Args:
        lengths: tokens a row of each item.
        max_tokens: budget, counted after padding.
        rows: rows that each item takes up in the batch; one if not given.

    Returns:
        Lists of item positions; every item occurs once.
    """
    if max_tokens < 1:
        raise ValueError(f"the token budget must be positive, not {max_tokens}")
    rows = rows or [1] * len(lengths)
    batches: list[list[int]] = []
    longest = taken = 0
    for item in sorted(range(len(lengths)), key=lambda item: -lengths[item]):
        if batches and (taken + rows[item]) * longest <= max_tokens and 2 * lengths[item] >= longest:
            batches[-1].append(item)
            taken += rows[item]
        else:
            batches.append([item])
            longest, taken = lengths[item], rows[item]
    return batches


def padded(rows: Sequence[Sequence[int]], pad_id: int, device: torch.device, *, left: bool = False) -> Tensor:
    """Rows of token ids as one tensor (B, T), filled with ``pad_id`` on the right or on the left."""
    width = max(map(len, rows))
    fill = [[pad_id] * (width - len(row)) for row in rows]
    return torch.tensor([[*pad, *row] if left else [*row, *pad] for row, pad in zip(rows, fill, strict=True)]).to(
        device
    )


def tracked(batches: Sequence[list[int]], label: str, show: bool) -> Iterable[list[int]]:
    """The batches, under a progress bar that counts their items if ``show``."""
    with tqdm(total=sum(map(len, batches)), desc=label, disable=not show, leave=False) as bar:
        for batch in batches:
            yield batch
            bar.update(len(batch))
