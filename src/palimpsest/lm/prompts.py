"""How prompts and targets become tokens, and what happens when they do not fit the model's context."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from palimpsest.lm.load import LanguageModel

Overflow = Literal["error", "left"]


def encode_targets(lm: LanguageModel, prompts: Sequence[str], targets: Sequence[str]) -> list[list[int]]:
    """Token ids of each target as it stands after its prompt.

    A space joins the two, unless the prompt is empty or ends in white space, or the target begins with it. Where the
    tokens of the joined text begin with the tokens of the prompt, the rest are the target's. Otherwise a token would
    straddle the boundary, and the target (with its space) is encoded apart. So a prompt's own tokens never depend on
    its target.

    Raises:
        ValueError: a target is empty; names its index.
    """
    for index, (prompt, target) in enumerate(zip(prompts, targets, strict=True)):
        if not target:
            raise ValueError(f"target {index} is empty (its prompt: {prompt!r})")
    rests = [
        target if not prompt or prompt[-1].isspace() or target[0].isspace() else f" {target}"
        for prompt, target in zip(prompts, targets, strict=True)
    ]
    heads = lm.encode(prompts)
    wholes = lm.encode([prompt + rest for prompt, rest in zip(prompts, rests, strict=True)])
    straddled = {i for i, (head, whole) in enumerate(zip(heads, wholes, strict=True)) if whole[: len(head)] != head}
    apart = dict(zip(sorted(straddled), lm.encode([rests[i] for i in sorted(straddled)]), strict=True))
    return [apart[i] if i in apart else whole[len(heads[i]) :] for i, whole in enumerate(wholes)]


def fit_context(
    lm: LanguageModel, context: Sequence[int], new_tokens: int, index: int, overflow: Overflow
) -> Sequence[int]:
    """A prompt's tokens, or as many of its last as leave room for ``new_tokens`` more. The last of those is never read.

    Raises:
        ValueError: prompt or target is empty; or they exceed the context and ``overflow`` is ``"error"``, or even
            a prompt of one token does not help. Names ``index``.
    """
    if not context or new_tokens < 1:
        raise ValueError(
            f"request {index}: {len(context)} prompt and {new_tokens} new tokens, expected at least one of each"
        )
    room = lm.context_length - new_tokens + 1
    if len(context) <= room:
        return context
    opening = [lm.bos_id] if lm.add_bos and context[0] == lm.bos_id else []
    if overflow == "error" or room <= len(opening):
        raise ValueError(
            f"prompt {index}: {len(context)} tokens and {new_tokens} to follow exceed the model's context of "
            f"{lm.context_length} tokens" + (" (overflow='left' drops the oldest)" if overflow == "error" else "")
        )
    return [*opening, *context[len(context) - room + len(opening) :]]
