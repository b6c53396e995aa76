from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache

import pytest
import torch

from palimpsest.lm.generation import generate_greedy
from palimpsest.lm.load import LanguageModel

Lms = Callable[[str], LanguageModel]
PROMPTS = [
    "The mother tongue of Danielle Darrieux is",
    "Who",
    "",
    "Mount Erebus is located in the continent of",
    "Who",
    "日本語 🙂",
]


@cache
@torch.no_grad()
def literal_greedy_ids(lm: LanguageModel, prompt: str, max_new_tokens: int) -> list[int]:
    """One prompt, the whole text through the model for every token."""
    ids = lm.tokenizer.encode(prompt) or [lm.tokenizer.eos_token_id]  # the test's tokenizers add a BOS if they have one
    start = len(ids)
    for _ in range(max_new_tokens):
        token = int(lm.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())
        if token == lm.tokenizer.eos_token_id:
            break
        ids.append(token)
    return ids[start:]


def literal_greedy(lm: LanguageModel, prompt: str, max_new_tokens: int) -> str:
    return lm.tokenizer.decode(literal_greedy_ids(lm, prompt, max_new_tokens), clean_up_tokenization_spaces=False)


@pytest.mark.parametrize("budget", [1, 8192])
def test_batches_generate_like_one_at_a_time(tiny_lm: Lms, architecture: str, budget: int) -> None:
    lm = tiny_lm(architecture)
    expected = [literal_greedy(lm, prompt, 14) for prompt in PROMPTS]
    assert generate_greedy(lm, PROMPTS, max_new_tokens=14, max_tokens_per_batch=budget) == expected


def test_rows_leave_as_they_finish(tiny_lm: Lms, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny_lm("gpt2")
    free = [literal_greedy(lm, prompt, 20) for prompt in PROMPTS]
    stop = [free[0][2], free[3][5]]  # single characters that end some rows early
    widths = []
    forward = lm.model.forward
    monkeypatch.setattr(lm.model, "forward", lambda **call: widths.append(len(call["input_ids"])) or forward(**call))
    stopped = generate_greedy(lm, PROMPTS, max_new_tokens=20, stop=stop)
    assert widths[0] == len(set(PROMPTS)), "equal prompts run once"
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < widths[0]
    for text, whole in zip(stopped, free, strict=True):
        assert whole.startswith(text)
        assert not any(string in text for string in stop)
        assert text == whole or any(whole[len(text) :].startswith(string) for string in stop)


def test_a_stop_string_may_span_tokens(tiny_lm: Lms) -> None:
    lm = tiny_lm("gpt2")
    whole = literal_greedy(lm, PROMPTS[0], 20)
    middle = whole[3:9]
    assert generate_greedy(lm, PROMPTS[:1], max_new_tokens=20, stop=[middle]) == [whole[: whole.index(middle)]]


def test_eos_ends_a_continuation(tiny_lm: Lms) -> None:
    lm = tiny_lm("gpt2")
    free = literal_greedy_ids(lm, PROMPTS[0], 6)
    tokenizer = copy.deepcopy(lm.tokenizer)
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(free[-1])
    ended = generate_greedy(LanguageModel(lm.model, tokenizer), PROMPTS[:1], max_new_tokens=6)
    assert ended == lm.decode([free[: free.index(free[-1])]])
    assert ended != lm.decode([free])


def test_a_continuation_keeps_its_leading_space(tiny_lm: Lms) -> None:
    lm = tiny_lm("llama")
    token = lm.encode([" is"])[0][0]
    assert lm.decode([[token]]) == [" is"]
    bias = torch.nn.functional.one_hot(torch.tensor(token), len(lm.tokenizer)) * 1e4
    handle = lm.model.lm_head.register_forward_hook(lambda module, args, logits: logits + bias)
    try:
        assert generate_greedy(lm, ["Who"], max_new_tokens=2) == [" is is"]
    finally:
        handle.remove()


def test_bad_requests_are_named(tiny_lm: Lms) -> None:
    lm = tiny_lm("gpt2")
    assert generate_greedy(lm, [], max_new_tokens=3) == []
    with pytest.raises(ValueError, match="max_new_tokens must be at least 1"):
        generate_greedy(lm, ["a"], max_new_tokens=0)
    with pytest.raises(ValueError, match="empty stop string"):
        generate_greedy(lm, ["a"], max_new_tokens=1, stop=[""])
    long = "Mount Erebus " * 20
    with pytest.raises(ValueError, match="prompt 1: "):
        generate_greedy(lm, ["a", long], max_new_tokens=3)
    assert len(generate_greedy(lm, ["a", long], max_new_tokens=3, overflow="left")) == 2
