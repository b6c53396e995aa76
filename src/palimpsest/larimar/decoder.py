"""A causal language model that speaks from a read-out of the memory (Larimar, arXiv 2403.11901).

One linear map turns a read-out z into a key and a value for every layer. They fill the first place of the key/value
cache, which every token of the text can attend to: no architecture is changed. (The published code gives a layer one
vector for both.) The key is used as it is, not rotated, and the text keeps the positions that it has without memory.
So without memory the decoder is the language model that it was.

In a layer with a sliding window the memory leaves sight as the token before a text would.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import DynamicCache

from palimpsest.larimar.pointers import EncodedPrompts, PointerReader
from palimpsest.lm.batching import DEFAULT_TOKENS_PER_BATCH
from palimpsest.lm.generation import generate_greedy
from palimpsest.lm.load import LanguageModel
from palimpsest.lm.prompts import Overflow, encode_targets, fit_context
from palimpsest.lm.scoring import TargetScore, score_ids

Absent = Literal["mask", "zero"]
"""What stands before a text without memory: nothing, or (as published) a zero key and value, which draw attention."""
Share = tuple[LanguageModel, list[int], list[Any]]


class LatentDecoder(nn.Module):
    """A language model, and the map from a read-out z of C numbers to a place in its cache.

    The map has no bias, so that z = 0 gives keys and values of zeros.

    Args:
        lm: any causal LM whose layers cache keys and values.
        code: C.
        seed: of the map's first weights.
        absent: what "no memory" is.
    """

    def __init__(self, lm: LanguageModel, code: int, *, seed: int, absent: Absent = "mask") -> None:
        super().__init__()
        self.lm, self.absent = lm, absent
        self.model = lm.model
        cache = DynamicCache(config=self.model.config)
        with torch.no_grad():  # one token tells the shapes, whatever the architecture calls them
            token = torch.zeros(1, 1, dtype=torch.long, device=lm.device)
            self.model(input_ids=token, past_key_values=cache, use_cache=True)
        self._slides = any(cache.is_sliding)
        self._shapes = [tuple(state.shape[1::2]) for layer in cache.layers for state in (layer.keys, layer.values)]
        self._dtype = cache.layers[0].keys.dtype
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.map = nn.Linear(code, sum(heads * width for heads, width in self._shapes), bias=False)
        self.map.to(lm.device)

    def remember(self, z: Tensor, cache: DynamicCache) -> None:
        """Put the read-outs z (B, C) into the first place of an empty cache."""
        flat = self.map(z)
        if not torch.is_autocast_enabled(flat.device.type):  # where the model's own keys are of the map's type
            flat = flat.to(self._dtype)
        parts = flat.split([heads * width for heads, width in self._shapes], dim=1)
        states = [part.view(len(z), heads, 1, width) for part, (heads, width) in zip(parts, self._shapes, strict=True)]
        for layer, (key, value) in enumerate(zip(states[::2], states[1::2], strict=True)):
            cache.update(key, value, layer)

    def forward(
        self, ids: Tensor, z: Tensor | None = None, present: Tensor | None = None, keep: Tensor | int = 0
    ) -> Tensor:
        """Logits after each token.

        Args:
            ids: (B, T) tokens, padded on the right if at all.
            z: (B, C) read-outs; without it no row has memory.
            present: (B,) which rows have memory; all if not given. What z holds for the others does not matter.
            keep: (B, T) where logits are wanted; everywhere if not given.

        Returns:
            (B, T, V), or (n, V) for the n places to keep.
        """
        z, seen = self._memory(len(ids), z, present)
        if z is None:
            return self.model(input_ids=ids, use_cache=False, logits_to_keep=keep).logits
        cache = DynamicCache(config=self.model.config)
        self.remember(z, cache)
        return self.model(
            input_ids=ids,
            attention_mask=torch.cat([seen[:, None], torch.ones_like(ids, dtype=torch.bool)], dim=1).long(),
            position_ids=torch.arange(ids.shape[1], device=ids.device).expand(ids.shape),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=keep,
        ).logits

    def losses(self, ids: Tensor, learnt: Tensor, z: Tensor | None = None, present: Tensor | None = None) -> Tensor:
        """Negative log-likelihoods (n,) of the learnt tokens, row by row, in nats; see :meth:`forward`.

        ``learnt`` (B, T) says which tokens count; a row's first, which nothing precedes, never does.
        """
        before = torch.zeros_like(learnt)
        before[:, :-1] = learnt[:, 1:]  # the places that predict
        return cross_entropy(self(ids, z, present, before).float(), ids[:, 1:][learnt[:, 1:]], reduction="none")

    def score(
        self,
        prompts: Sequence[str],
        targets: Sequence[str],
        z: Tensor | None = None,
        present: Tensor | None = None,
        *,
        max_tokens_per_batch: int = DEFAULT_TOKENS_PER_BATCH,
        overflow: Overflow = "error",
        progress: bool = False,
    ) -> list[TargetScore]:
        """Score N targets as continuations of their prompts; see :func:`palimpsest.lm.scoring.score_targets`.

        Args:
            z: (N, C) a read-out for each prompt; without it no prompt has memory.
            present: (N,) which prompts have memory; all if not given. The others go to the language model alone.
        """
        if len(prompts) != len(targets):
            raise ValueError(f"{len(prompts)} prompts but {len(targets)} targets")
        wanted = encode_targets(self.lm, prompts, targets)
        scores: dict[int, TargetScore] = {}
        for lm, rows, ids in self._shares(prompts, [len(target) for target in wanted], overflow, z, present):
            share = [wanted[row] for row in rows]
            found = score_ids(lm, ids, share, max_tokens_per_batch=max_tokens_per_batch, progress=progress)
            scores |= zip(rows, found, strict=True)
        return [scores[row] for row in range(len(prompts))]

    def generate(
        self,
        prompts: Sequence[str],
        z: Tensor | None = None,
        present: Tensor | None = None,
        *,
        max_new_tokens: int,
        stop: Sequence[str] = (),
        max_tokens_per_batch: int = DEFAULT_TOKENS_PER_BATCH,
        overflow: Overflow = "error",
        progress: bool = False,
    ) -> list[str]:
        """Continue N prompts greedily; see :meth:`score` and :func:`palimpsest.lm.generation.generate_greedy`."""
        texts: dict[int, str] = {}
        for lm, rows, ids in self._shares(prompts, [max_new_tokens] * len(prompts), overflow, z, present):
            for part in _by_length(ids) if self._slides else [range(len(ids))]:
                found = generate_greedy(
                    lm,
                    [ids[item] for item in part],
                    max_new_tokens=max_new_tokens,
                    stop=stop,
                    max_tokens_per_batch=max_tokens_per_batch,
                    progress=progress,
                )
                texts |= zip((rows[item] for item in part), found, strict=True)
        return [texts[row] for row in range(len(prompts))]

    def _shares(
        self, prompts: Sequence[str], new: Sequence[int], overflow: Overflow, z: Tensor | None, present: Tensor | None
    ) -> Iterator[Share]:
        """What is to read which prompts, and their tokens: the model alone, or through pointers to read-outs.

        ``new`` counts the tokens that are to follow each prompt.
        """
        encoded = self.lm.encode_prompts(prompts)
        ids = [list(fit_context(self.lm, row, new[place], place, overflow)) for place, row in enumerate(encoded)]
        z, seen = self._memory(len(ids), z, present)
        room = self.lm.context_length
        without, with_memory = ((seen == wanted).nonzero()[:, 0].tolist() for wanted in (False, True))
        if without:
            yield self._speaker(self.model, room), without, [ids[row] for row in without]
        if with_memory and z is not None:
            unique, which = z[seen].unique(dim=0, return_inverse=True)  # equal rows share their work as ever
            reader = PointerReader(self.model, self.remember, unique)
            pointed = [[reader.first + item, *ids[row]] for row, item in zip(with_memory, which.tolist(), strict=True)]
            yield self._speaker(reader, room + 1), with_memory, pointed

    def _speaker(self, model: nn.Module | PointerReader, room: int) -> LanguageModel:
        return EncodedPrompts(model, self.lm.tokenizer, add_bos=False, context_limit=room)

    def _memory(self, rows: int, z: Tensor | None, present: Tensor | None) -> tuple[Tensor | None, Tensor]:
        """What to place before each row, if anything (B, C), and whether it can be seen (B,)."""
        given = 0 if z is None else rows
        for name, tensor, length in (("read-outs", z, rows), ("flags of presence", present, given)):
            if tensor is not None and len(tensor) != length:
                raise ValueError(f"{len(tensor)} {name} for {rows} texts, expected {length}")
        weight = self.map.weight
        if present is None:
            present = torch.full((rows,), z is not None)
        present = present.to(weight.device, torch.bool)
        if self.absent == "zero":
            z, seen = weight.new_zeros(rows, weight.shape[1]) if z is None else z, torch.ones_like(present)
        else:
            seen = present
        return (z if z is None else z.to(weight.device).where(present[:, None], 0)), seen


def _by_length(rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """Positions of the rows of each length.

    Between a memory and a shorter text there would be padding, which a sliding window counts.
    """
    parts = defaultdict(list)
    for position, row in enumerate(rows):
        parts[len(row)].append(position)
    return list(parts.values())
