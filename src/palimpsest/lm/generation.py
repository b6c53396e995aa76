"""Greedy generation in batches, with a key/value cache from which finished rows leave early.

A small loop instead of ``model.generate``: rows drop out of the batch as soon as they end, and stop strings cost one
decoding of the row.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import DynamicCache

from palimpsest.lm.batching import DEFAULT_TOKENS_PER_BATCH, length_batches, padded, tracked
from palimpsest.lm.load import LanguageModel
from palimpsest.lm.prompts import Overflow, fit_context


@torch.no_grad()
def generate_greedy(
    lm: LanguageModel,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    stop: Sequence[str] = (),
    max_tokens_per_batch: int = DEFAULT_TOKENS_PER_BATCH,
    overflow: Overflow = "error",
    progress: bool = False,
) -> list[str]:
    """Continue each prompt with the most probable token, again and again.

    A continuation ends before EOS, before the first occurrence of any ``stop`` string in it, or after
    ``max_new_tokens``. It is returned as it stands after the prompt, with its leading space. Equal prompts are
    continued once.

    Args:
        overflow: what to do with a prompt that leaves no room for ``max_new_tokens`` in the model's context: an
            error that names its index, or drop its oldest tokens (a BOS stays).

    Raises:
        ValueError: a prompt does not fit, an empty stop string, or ``max_new_tokens`` below one.
    """
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be at least 1, not {max_new_tokens}")
    if "" in stop:
        raise ValueError("an empty stop string would stop every continuation at once")
    if lm.model.training:
        raise ValueError("the model is in training mode, where dropout would change its choices: call model.eval()")
    encoded = [
        tuple(fit_context(lm, ids, max_new_tokens, index, overflow))
        for index, ids in enumerate(lm.encode_prompts(prompts))
    ]
    unique = list(dict.fromkeys(encoded))
    texts: dict[tuple[int, ...], str] = {}
    batches = length_batches([len(row) + max_new_tokens for row in unique], max_tokens_per_batch)
    for batch in tracked(batches, "generating", progress):
        rows = [unique[index] for index in batch]
        texts |= zip(rows, _generate_batch(lm, rows, max_new_tokens, stop), strict=True)
    return [texts[row] for row in encoded]


def _generate_batch(
    lm: LanguageModel, prompts: Sequence[Sequence[int]], max_new_tokens: int, stop: Sequence[str]
) -> list[str]:
    """Continuations of a batch of token rows (B rows), which are padded on the left so that all grow at one end."""
    tokens = padded(prompts, lm.pad_id, lm.device, left=True)  # (B, T)
    lengths = torch.tensor([len(row) for row in prompts], device=lm.device)[:, None]
    mask = (torch.arange(tokens.shape[1], device=lm.device) >= tokens.shape[1] - lengths).long()
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    cache = DynamicCache(config=lm.model.config)
    generated: list[list[int]] = [[] for _ in prompts]
    texts = [""] * len(prompts)
    live = list(range(len(prompts)))  # the prompt that each row of the shrinking batch continues

    for step in range(1, max_new_tokens + 1):
        logits = lm.model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        chosen = logits[:, -1].argmax(1)  # (B,)
        going = []
        for row, (prompt, token) in enumerate(zip(live, chosen.tolist(), strict=True)):
            ended = token == lm.eos_id
            if not ended:
                generated[prompt].append(token)
            if ended or stop or step == max_new_tokens:
                texts[prompt], stopped = _cut(_decode_after(lm, prompts[prompt], generated[prompt]), stop)
                ended = ended or stopped
            if not ended:
                going.append(row)
        if not going or step == max_new_tokens:
            break
        tokens, positions = chosen[:, None], positions[:, -1:] + 1
        if len(going) < len(live):
            kept = torch.tensor(going, device=lm.device)
            cache.batch_select_indices(kept)
            tokens, positions, mask = tokens[kept], positions[kept], mask[kept]
            live = [live[row] for row in going]
        mask = torch.cat([mask, mask.new_ones(len(live), 1)], dim=1)
    return texts


def _decode_after(lm: LanguageModel, prompt: Sequence[int], generated: Sequence[int]) -> str:
    """Text of generated tokens as it stands after the prompt: decoders drop the space before a text's first token."""
    before, whole = lm.decode([prompt[-1:], [*prompt[-1:], *generated]])
    return whole[len(before) :]


def _cut(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """The text before the first stop string in it, and whether there was one."""
    found = [place for string in stop if (place := text.find(string)) >= 0]
    return (text[: min(found)], True) if found else (text, False)
