from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model

from palimpsest.lm.batching import length_batches, padded
from palimpsest.lm.load import LanguageModel, load_lm
from palimpsest.lm.scoring import TargetScore, TextLosses, score_ids, score_targets, token_losses

Lms = Callable[[str], LanguageModel]
TOLERANCE = 1e-4
PROMPTS = [
    "The mother tongue of Danielle Darrieux is",
    "Who wrote Dancing on Coral?",
    "Mount Erebus is located in the continent of",
    "",
    "The mother tongue of Danielle Darrieux is",
    "Größe — 日本語 🙂",
    "Who wrote Dancing on Coral?",
    "A prompt that ends in a space ",
    "The mother tongue of Danielle Darrieux is",
]
TARGETS = ["French", "Glenda Adams", "Antarctica", "Paris", "Bordeaux, or Paris", "façade", "Viking", "x", "French"]


@torch.no_grad()
def reference_logprobs(lm: LanguageModel, context: list[int], target: list[int]) -> torch.Tensor:
    """Log-probabilities (n, V) at the target's places: one row, full logits, no cache, no padding, no mask."""
    logits = lm.model(input_ids=torch.tensor([context + target]), use_cache=False).logits[0]
    return logits.float().log_softmax(-1)[len(context) - 1 : -1]


def literal_ids(lm: LanguageModel, prompt: str, target: str) -> tuple[list[int], list[int]]:
    """The documented rule, spelled out for one pair."""
    encode = lambda text: lm.tokenizer.encode(text, add_special_tokens=False)  # noqa: E731
    head = encode(prompt)
    rest = target if prompt == "" or prompt[-1].isspace() or target[0].isspace() else " " + target
    whole = encode(prompt + rest)
    tail = whole[len(head) :] if whole[: len(head)] == head else encode(rest)
    if lm.tokenizer.bos_token_id is not None:  # the tokenizers of the tests that have a BOS add it
        head = [lm.tokenizer.bos_token_id, *head]
    return head or [lm.tokenizer.eos_token_id], tail


def assert_like_reference(lm: LanguageModel, context: list[int], target: list[int], score: TargetScore) -> None:
    expected = reference_logprobs(lm, context, target)
    chosen = expected[torch.arange(len(target)), target]
    assert score.token_ids == tuple(target)
    assert score.token_logprobs == pytest.approx(chosen.tolist(), abs=TOLERANCE)
    assert score.logprob == pytest.approx(chosen.sum().item(), abs=TOLERANCE * len(target))
    # Where the best token leads by more than rounding, `greedy` must agree; in a tie either answer is right.
    best, second = expected.topk(2).values.T
    clear = ((best - second) > TOLERANCE).numpy()
    assert np.array(score.greedy)[clear].tolist() == (expected.argmax(-1).numpy() == np.array(target))[clear].tolist()


@pytest.mark.parametrize("budget", [1, 40, 8192])
def test_batches_score_like_one_at_a_time(tiny_lm: Lms, architecture: str, budget: int) -> None:
    lm = tiny_lm(architecture)
    scores = score_targets(lm, PROMPTS, TARGETS, max_tokens_per_batch=budget)
    for prompt, target, score in zip(PROMPTS, TARGETS, scores, strict=True):
        assert_like_reference(lm, *literal_ids(lm, prompt, target), score)


texts = st.text(alphabet="aeinrst Paris,é🙂日", max_size=12)


@pytest.mark.parametrize("name", ["gpt2", "mistral"])
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pairs=st.lists(st.tuples(texts | st.sampled_from(PROMPTS), texts.filter(bool)), max_size=8),
    budget=st.integers(1, 200),
)
def test_any_list_scores_like_one_at_a_time(tiny_lm: Lms, name: str, pairs: list[tuple[str, str]], budget: int) -> None:
    lm = tiny_lm(name)
    scores = score_targets(lm, [p for p, _ in pairs], [t for _, t in pairs], max_tokens_per_batch=budget)
    assert len(scores) == len(pairs)
    for (prompt, target), score in zip(pairs, scores, strict=True):
        assert_like_reference(lm, *literal_ids(lm, prompt, target), score)


def test_probabilities_of_all_next_tokens_sum_to_one(tiny_lm: Lms) -> None:
    lm = tiny_lm("llama")
    vocabulary = range(len(lm.tokenizer))
    scores = score_ids(lm, [[0, 7, 8, 9]] * len(vocabulary), [[token] for token in vocabulary])
    assert sum(np.exp(score.logprob) for score in scores) == pytest.approx(1, abs=1e-4)
    assert sum(score.token_accuracy for score in scores) == 1


def test_a_shared_prompt_is_encoded_once(tiny_lm: Lms, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny_lm("gpt2")
    seen = []
    forward = lm.model.forward
    monkeypatch.setattr(lm.model, "forward", lambda **call: seen.append(call["input_ids"].shape) or forward(**call))
    prompt = "Mount Erebus is located in the continent of"
    score_ids(lm, [lm.encode([prompt])[0]] * 3, [[1], [2], [3]])
    length = len(lm.encode([prompt])[0])
    assert seen == [(1, length - 1), (3, 1)]


def test_scores_are_the_same_in_any_order(tiny_lm: Lms) -> None:
    lm = tiny_lm("gemma2")
    forth = score_targets(lm, PROMPTS, TARGETS)
    back = score_targets(lm, PROMPTS[::-1], TARGETS[::-1])[::-1]
    for one, other in zip(forth, back, strict=True):
        assert one.token_logprobs == pytest.approx(other.token_logprobs, abs=1e-5)


def test_a_wrapped_model_scores_like_the_model_in_it(tiny_folder: Callable[[str], Path]) -> None:
    lm = load_lm(tiny_folder("llama"))
    expected = score_targets(lm, PROMPTS, TARGETS)
    adapted = get_peft_model(lm.model, LoraConfig(r=2, target_modules=["q_proj"]))  # adds nothing before training
    scores = score_targets(LanguageModel(adapted, lm.tokenizer), PROMPTS, TARGETS)
    for score, plain in zip(scores, expected, strict=True):
        assert score.token_logprobs == pytest.approx(plain.token_logprobs, abs=1e-5)


def test_nothing_scores_to_nothing(tiny_lm: Lms) -> None:
    assert score_targets(tiny_lm("gpt2"), [], []) == []
    assert token_losses(tiny_lm("gpt2"), []) == []


def test_bad_requests_are_named(tiny_lm: Lms) -> None:
    lm = tiny_lm("gpt2")
    with pytest.raises(ValueError, match="target 1 is empty"):
        score_targets(lm, ["a", "b"], ["x", ""])
    with pytest.raises(ValueError, match="2 prompts but 1 targets"):
        score_targets(lm, ["a", "b"], ["x"])
    with pytest.raises(ValueError, match=r"prompt 1: \d+ tokens and 1 to follow exceed the model's context of 64"):
        score_ids(lm, [[1], [1] * 65], [[2], [2]])
    with pytest.raises(ValueError, match="request 0: 0 prompt"):
        score_ids(lm, [[]], [[2]])
    lm.model.train()
    try:
        with pytest.raises(ValueError, match="training mode"):
            score_targets(lm, ["a"], ["x"])
    finally:
        lm.model.eval()


def test_a_full_context_fits_and_a_longer_prompt_loses_its_oldest_tokens(tiny_lm: Lms) -> None:
    gpt2, llama = tiny_lm("gpt2"), tiny_lm("llama")
    prompt = [5 + i % 90 for i in range(80)]
    (full,) = score_ids(gpt2, [prompt[:62]], [[7, 8, 9]])
    assert_like_reference_within_context(gpt2, prompt[:62], [7, 8, 9], full)
    (cut,) = score_ids(gpt2, [prompt], [[7, 8, 9]], overflow="left")
    assert_like_reference_within_context(gpt2, prompt[-62:], [7, 8, 9], cut)
    (with_bos,) = score_ids(llama, [[0, *prompt]], [[7, 8, 9]], overflow="left")
    assert_like_reference(llama, [0, *prompt[-61:]], [7, 8, 9], with_bos)
    with pytest.raises(ValueError, match="exceed the model's context"):
        score_ids(gpt2, [[1]], [[2] * 65], overflow="left")


def assert_like_reference_within_context(
    lm: LanguageModel, context: list[int], target: list[int], score: TargetScore
) -> None:
    """GPT-2 has no position for the last target token, and none is needed to score it."""
    with torch.no_grad():
        logits = lm.model(input_ids=torch.tensor([context + target[:-1]]), use_cache=False).logits[
            0, len(context) - 1 :
        ]
    expected = logits.log_softmax(-1)[torch.arange(len(target)), target]
    assert score.token_logprobs == pytest.approx(expected.tolist(), abs=TOLERANCE)


def literal_losses(lm: LanguageModel, text: str, window: int, overlap: int) -> list[float]:
    """One window at a time: each opens with BOS or EOS and re-reads `overlap` tokens."""
    ids = lm.tokenizer.encode(text, add_special_tokens=False)
    opening = lm.tokenizer.eos_token_id if lm.tokenizer.bos_token_id is None else lm.tokenizer.bos_token_id
    losses, start = [], 0
    while start < len(ids):
        first = max(0, start - overlap)
        end = min(len(ids), first + window)
        with torch.no_grad():
            row = [opening, *ids[first:end]][:-1]
            logprobs = lm.model(input_ids=torch.tensor([row]), use_cache=False).logits[0].log_softmax(-1)
        losses += [-logprobs[place - first, ids[place]].item() for place in range(start, end)]
        start = end
    return losses


@pytest.mark.parametrize(("window", "overlap"), [(None, None), (16, 8), (16, 0), (9, 8)])
@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral", "gemma2"])
def test_long_texts_are_read_in_overlapping_windows(
    tiny_lm: Lms, name: str, window: int | None, overlap: int | None
) -> None:
    lm = tiny_lm(name)
    texts = [" ".join(PROMPTS) * 2, "", "Paris", PROMPTS[0]]
    for text, result in zip(texts, token_losses(lm, texts, window=window, overlap=overlap), strict=True):
        expected = literal_losses(lm, text, window or 64, 32 if overlap is None else overlap)
        assert result.token_ids.tolist() == lm.tokenizer.encode(text, add_special_tokens=False)
        assert result.losses == pytest.approx(np.array(expected), abs=TOLERANCE)
        assert len(result.offsets) == len(expected)


def test_tokens_of_a_mention_are_found_by_its_characters(tiny_lm: Lms) -> None:
    lm = tiny_lm("llama")
    text = "She was born in Bordeaux and lived in Paris."
    (result,) = token_losses(lm, [text])
    start = text.index("Bordeaux")
    mask = result.overlapping(start, start + len("Bordeaux"))
    assert lm.decode([result.token_ids[mask].tolist()])[0].strip() == "Bordeaux"
    assert "".join(text[first:last] for first, last in result.offsets) == text


def test_overlap_by_hand() -> None:
    losses = TextLosses(np.arange(3), np.zeros(3), np.array([[0, 3], [3, 9], [9, 10]]))
    assert losses.overlapping(4, 9).tolist() == [False, True, False]
    assert losses.overlapping(2, 4).tolist() == [True, True, False]
    assert not losses.overlapping(4, 4).any()


@pytest.mark.parametrize(("window", "overlap"), [(65, 8), (16, 16), (16, -1)])
def test_impossible_windows_are_refused(tiny_lm: Lms, window: int, overlap: int) -> None:
    with pytest.raises(ValueError, match="expected 0 <= overlap < window <= 64"):
        token_losses(tiny_lm("gpt2"), ["Paris"], window=window, overlap=overlap)


@given(lengths=st.lists(st.integers(1, 50), max_size=40), budget=st.integers(1, 300))
def test_batches_hold_every_item_once_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = length_batches(lengths, budget)
    assert sorted(item for batch in batches for item in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[item] for item in batch)
        assert len(batch) == 1 or len(batch) * longest <= budget
        assert all(2 * lengths[item] >= longest for item in batch)


def test_padding_by_hand() -> None:
    rows = [[1, 2, 3], [4]]
    assert padded(rows, 0, torch.device("cpu")).tolist() == [[1, 2, 3], [4, 0, 0]]
    assert padded(rows, 9, torch.device("cpu"), left=True).tolist() == [[1, 2, 3], [9, 9, 4]]
