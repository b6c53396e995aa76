"""What the decoder learns to say: rows of tokens, of which some are learnt and the others only read."""

from __future__ import annotations

from collections.abc import Sequence

from palimpsest.lm.load import LanguageModel
from palimpsest.lm.prompts import encode_targets
from palimpsest.memllm.examples import Example


def text_examples(lm: LanguageModel, texts: Sequence[str], *, max_tokens: int = 64) -> list[Example]:
    """Each text whole, after the token that opens a text and with the end of text; of a long one the beginning."""
    end = [] if lm.eos_id is None else [lm.eos_id]
    rows = [[*ids, *end][: max_tokens - 1] for ids in lm.encode(texts)]
    return [Example.of(lm.start_id, (row, True), max_tokens=max_tokens) for row in rows]


def answer_examples(lm: LanguageModel, prompts: Sequence[str], answers: Sequence[str]) -> list[Example]:
    """Each answer after its prompt, in the tokens in which it is scored; only the answer is learnt."""
    pairs = zip(lm.encode_prompts(prompts), encode_targets(lm, prompts, answers), strict=True)
    return [Example([*prompt, *answer], [False] * len(prompt) + [True] * len(answer)) for prompt, answer in pairs]
