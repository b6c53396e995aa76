"""Token rows that are read on, taken back and branched, with the keys and values of what stays kept.

Calls to a memory come and go in mid-text: a row reads a call, reads on, and later goes on without that call. What
stands before it need not be encoded again. Rows of a batch have lengths of their own, and each token's position is its
place in its own row, so a row's logits do not depend on its neighbours, nor on how it came to hold what it holds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

from palimpsest.lm.batching import padded
from palimpsest.lm.load import LanguageModel


class Rows:
    """B rows of tokens that a language model has read; all are empty at first.

    Rows are read under ``torch.no_grad``. Slots of the cache that a row does not use are masked out of its attention.
    Layers with a sliding window are used as long as all slots lie in it; branching frees the slots that no row uses.
    """

    def __init__(self, lm: LanguageModel, count: int) -> None:
        self.lm = lm
        self._cache = DynamicCache(config=lm.model.config)
        self._used = torch.zeros(count, 0, dtype=torch.bool, device=lm.device)  # (B, slots): which hold the row's
        self.lengths = torch.zeros(count, dtype=torch.long, device=lm.device)
        """Tokens that each row holds, (B,)."""

    def __len__(self) -> int:
        return len(self.lengths)

    @torch.no_grad()
    def read(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        """Read on, each row its own tokens, of which some may have none.

        Returns:
            Logits (N, V) after each of the N tokens read, row by row.

        Raises:
            ValueError: not as many token lists as rows, nothing to read, or a row would outgrow the model's context, or
                all together a sliding window of the model. The rows are then what they were.
        """
        if len(tokens) != len(self):
            raise ValueError(f"{len(tokens)} token lists for {len(self)} rows")
        counts = torch.tensor([len(row) for row in tokens], device=self.lm.device)
        if not counts.any():
            raise ValueError("there is nothing to read")
        lengths = self.lengths + counts
        if (longest := int(lengths.max())) > self.lm.context_length:
            raise ValueError(f"a row of {longest} tokens, but the model's context is {self.lm.context_length}")
        input_ids = padded(tokens, self.lm.pad_id, self.lm.device)  # (B, T)
        slots = self._used.shape[1] + input_ids.shape[1]
        for layer in self._cache.layers:
            if layer.is_sliding and slots >= layer.sliding_window:
                raise ValueError(f"rows in {slots} slots, but the model has a sliding window of {layer.sliding_window}")
        place = torch.arange(input_ids.shape[1], device=self.lm.device)
        real = place < counts[:, None]
        self._used = torch.cat([self._used, real], dim=1)
        # A row that is still empty attends to its padding: a softmax over nothing would be undefined.
        mask = self._used | (lengths == 0)[:, None]
        logits = self.lm.model(
            input_ids=input_ids,
            attention_mask=mask.long(),
            position_ids=torch.minimum(self.lengths[:, None] + place, lengths[:, None] - 1).clamp(min=0),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=real,
        ).logits
        self.lengths = lengths
        return logits[real] if logits.ndim == 3 else logits  # a model may ignore `logits_to_keep`

    def branch(self, rows: Sequence[int], lengths: Sequence[int] | None = None) -> Rows:
        """New rows that hold the first ``lengths`` tokens of the given ones (which may repeat), or all of them."""
        chosen = torch.tensor(list(rows), device=self.lm.device)
        kept = self.lengths[chosen]
        if lengths is not None:
            kept = torch.minimum(kept, torch.tensor(list(lengths), device=self.lm.device))
        width = int(kept.max()) if len(kept) else 0
        # The slots that a row uses, in order, come first: a stable sort by "not used".
        slots = (~self._used).int().argsort(dim=1, stable=True)[chosen, :width]  # (B', width)
        branch = Rows(self.lm, len(chosen))
        for index, layer in enumerate(self._cache.layers if width else ()):
            branch._cache.update(_gather(layer.keys, chosen, slots), _gather(layer.values, chosen, slots), index)
        branch._used = torch.arange(width, device=self.lm.device) < kept[:, None]
        branch.lengths = kept
        return branch

    @classmethod
    def join(cls, chosen: Sequence[tuple[Rows, int]]) -> Rows:
        """One batch of rows picked from several, which belong to one language model."""
        joined = cls(chosen[0][0].lm, len(chosen))
        parts = []
        for source in dict.fromkeys(rows for rows, _ in chosen):
            places = [place for place, (rows, _) in enumerate(chosen) if rows is source]
            parts.append((places, source.branch([chosen[place][1] for place in places])))
        width = max(part._used.shape[1] for _, part in parts)
        joined._used = joined._used.new_zeros(len(chosen), width)
        for places, part in parts:
            joined._used[places, : part._used.shape[1]] = part._used
            joined.lengths[places] = part.lengths
        full = [(places, part._cache.layers) for places, part in parts if part._used.shape[1]]
        for index in range(len(joined._cache.layers) if full else 0):
            keys, values = (
                _scatter([(places, getattr(layers[index], kind)) for places, layers in full], len(chosen), width)
                for kind in ("keys", "values")
            )
            joined._cache.update(keys, values, index)
        return joined


def _gather(states: Tensor, rows: Tensor, slots: Tensor) -> Tensor:
    """States (B, heads, slots, size) of some rows at some slots of each: (B', heads, width, size)."""
    return states[rows[:, None], :, slots].transpose(1, 2)


def _scatter(parts: Sequence[tuple[Sequence[int], Tensor]], count: int, width: int) -> Tensor:
    """States of ``count`` rows with ``width`` slots, put together from those of some rows each; the rest is empty."""
    heads, _, size = parts[0][1].shape[1:]
    whole = parts[0][1].new_zeros(count, heads, width, size)
    for places, states in parts:
        whole[places, :, : states.shape[2]] = states
    return whole


@torch.no_grad()
def continue_greedily(
    rows: Rows,
    logits: Tensor,
    *,
    stop: Collection[int],
    max_new_tokens: int,
    choose: Callable[[list[int], Tensor], Tensor] = lambda live, logits: logits.argmax(1),
    keep: bool = True,
) -> list[list[int]]:
    """Read on with the most probable token until each row has read one of ``stop``, which it then ends with.

    Args:
        rows: they grow in place; a row that has stopped reads nothing more.
        logits: (B, V) after each row's last token.
        max_new_tokens: a row that has not stopped by then, or fills the model's context, is left unfinished.
        choose: the next tokens of the live rows, from their indices and logits.
        keep: whether ``rows`` are wanted afterwards; otherwise rows that have stopped are dropped on the way.

    Returns:
        The tokens read by each row.
    """
    written: list[list[int]] = [[] for _ in range(len(rows))]
    room = [min(max_new_tokens, free) for free in (rows.lm.context_length - rows.lengths).tolist()]
    held = list(range(len(rows)))  # the rows that are still in the batch
    live = [row for row in held if room[row] > 0]
    logits = logits[live]
    while live:
        chosen = dict(zip(live, choose(live, logits).tolist(), strict=True))
        for row, token in chosen.items():
            written[row].append(token)
        going = [row for row in live if chosen[row] not in stop and len(written[row]) < room[row]]
        if not keep and not going:
            break
        if not keep and 2 * len(going) <= len(held):
            rows, held = rows.branch([held.index(row) for row in going]), going
        after = rows.read([[chosen[row]] if row in chosen else [] for row in held])
        place = {row: index for index, row in enumerate(row for row in held if row in chosen)}
        logits, live = after[[place[row] for row in going]], going
    return written
