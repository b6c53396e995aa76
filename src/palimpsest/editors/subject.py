"""Where a prompt names its subject: a fact is looked up at the subject's last token (ROME, section 2.2)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from palimpsest.lm.load import LanguageModel


@dataclass(frozen=True, slots=True)
class Located:
    """A prompt's tokens, as :meth:`LanguageModel.encode_prompts` gives them, and those of them that name its subject:
    ``first`` to ``last``, both included. A token that holds a part of the name and something else is one of them."""

    ids: tuple[int, ...]
    first: int
    last: int


def locate_subjects(
    lm: LanguageModel, prompts: Sequence[str], subjects: Sequence[str], starts: Sequence[int] | None = None
) -> list[Located]:
    """Encode prompts and find each one's subject in it.

    Where it occurs several times, the last time counts, for nothing before it has seen more; an occurrence within a
    longer word counts only if there is no other.

    Args:
        starts: the character from which on each prompt may name its subject; 0 if not given.

    Raises:
        ValueError: a subject is empty or not in its prompt; names both.
    """
    if not prompts:
        return []
    starts = starts or [0] * len(prompts)
    spans = [_span(*item) for item in zip(prompts, subjects, starts, strict=True)]
    encoded = lm.tokenizer(list(prompts), add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    located = []
    for ids, plain, offsets, (start, end) in zip(
        lm.encode_prompts(prompts), encoded.input_ids, encoded.offset_mapping, spans, strict=True
    ):
        bos = len(ids) - len(plain)
        inside = [place for place, (first, last) in enumerate(offsets) if max(first, start) < min(last, end)]
        located.append(Located(tuple(ids), bos + inside[0], bos + inside[-1]))
    return located


def _span(prompt: str, subject: str, start: int) -> tuple[int, int]:
    """The characters of the subject in a prompt."""
    name = re.escape(subject)
    found = [match.span() for match in re.compile(rf"(?<!\w){name}(?!\w)").finditer(prompt, start)]
    found = found or [match.span() for match in re.compile(name).finditer(prompt, start)]
    if not subject.strip() or not found:
        raise ValueError(f"the subject {subject!r} is not in the prompt {prompt[start:]!r}")
    return found[-1]
