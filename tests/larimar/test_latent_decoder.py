from __future__ import annotations

import pytest
import torch
from tiny import ARCHITECTURES, tiny_lm
from transformers import DynamicCache

from palimpsest.larimar.decoder import LatentDecoder
from palimpsest.lm.generation import generate_greedy
from palimpsest.lm.scoring import score_targets

CODE = 6
PROMPTS = [
    "The mother tongue of Danielle Darrieux is",
    "Who wrote Dancing on Coral?",
    "",
    "The mother tongue of Danielle Darrieux is",
    "Who wrote Dancing on Coral?",
    "Mount",
    "Mount Erebus is located in the continent of Antarctica, and its height",
    "The mother tongue of Danielle Darrieux is",
]
TARGETS = ["French", "Glenda Adams", "Paris", "Bordeaux, or Paris", "Viking", "x", "is 3,794 metres", "French"]
PRESENT = torch.tensor([True, False, True, True, True, True, False, False])


def read_outs(rows: int) -> torch.Tensor:
    return torch.randn(rows, CODE, generator=torch.Generator().manual_seed(1))


Z = read_outs(len(PROMPTS))
Z[3] = Z[0]  # one read-out for two targets of one prompt
Z[4] = Z[0]


def make(architecture: str, absent: str = "mask") -> LatentDecoder:
    decoder = LatentDecoder(tiny_lm(architecture), CODE, seed=0, absent=absent)
    decoder.map.weight.data *= 3
    return decoder.eval()


@pytest.fixture(params=ARCHITECTURES, scope="module")
def decoder(request: pytest.FixtureRequest) -> LatentDecoder:
    return make(request.param)


def token_batch(decoder: LatentDecoder) -> torch.Tensor:
    """Rows (4, 20) of tokens, longer than any window."""
    return torch.randint(1, 300, (4, 20), generator=torch.Generator().manual_seed(2))


def test_rows_without_memory_in_a_mixed_batch_are_the_plain_decoders(decoder: LatentDecoder) -> None:
    ids, present = token_batch(decoder), torch.tensor([True, False, True, False])
    z = read_outs(4)
    z[1] = torch.inf  # whatever stands there
    with torch.no_grad():
        plain = decoder.lm.model(input_ids=ids, use_cache=False).logits
        mixed = decoder(ids, z, present)
    assert (mixed[~present] - plain[~present]).abs().max() < 1e-5
    assert (mixed[present] - plain[present]).abs().amax((1, 2)).min() > 1e-2
    assert torch.equal(decoder(ids), plain)


def test_each_row_sees_its_own_memory_alone(decoder: LatentDecoder) -> None:
    ids, present, z = token_batch(decoder), torch.tensor([True, False, True, True]), read_outs(4)
    with torch.no_grad():
        together = decoder(ids, z, present)
        for row in range(4):
            alone = decoder(ids[row : row + 1, :15], z[row : row + 1], present[row : row + 1])
            assert (together[row, :15] - alone[0]).abs().max() < 1e-5, "neither others nor what follows change a row"


def test_a_memory_with_a_tokens_keys_and_values_is_that_token(decoder: LatentDecoder) -> None:
    """The text after it stands where it would stand without it, and sees it wherever it would see a token."""
    ids, model = token_batch(decoder)[:1], decoder.lm.model
    cache = DynamicCache(config=model.config)
    mapped = decoder.map.weight.data
    with torch.no_grad():
        model(input_ids=torch.tensor([[7]]), past_key_values=cache, use_cache=True)
        states = [state.flatten() for layer in cache.layers for state in (layer.keys, layer.values)]
        decoder.map.weight.data = torch.zeros_like(mapped)
        decoder.map.weight.data[:, 2] = torch.cat(states)
        remembered = decoder(ids, torch.eye(CODE)[2:3])
        decoder.map.weight.data = mapped
        tokens = torch.cat([torch.tensor([[7]]), ids], dim=1)
        positions = torch.cat([torch.zeros(1, dtype=torch.long), torch.arange(ids.shape[1])])[None]
        read = model(input_ids=tokens, position_ids=positions, attention_mask=torch.ones_like(tokens)).logits[:, 1:]
    assert (remembered - read).abs().max() < 1e-4


def test_gradient_reaches_map_and_read_outs_of_rows_with_memory_only(decoder: LatentDecoder) -> None:
    ids, present = token_batch(decoder), torch.tensor([True, False, True, True])
    z = read_outs(4).requires_grad_()
    learnt = torch.zeros_like(ids, dtype=torch.bool)
    learnt[:, 3:6] = True
    losses = decoder.losses(ids, learnt, z, present)
    assert losses.shape == (12,)
    logprobs = decoder(ids, z, present).log_softmax(-1)
    expected = [-logprobs[row, place - 1, ids[row, place]].item() for row in range(4) for place in range(3, 6)]
    assert losses.tolist() == pytest.approx(expected, abs=1e-5)
    losses.sum().backward()
    assert z.grad is not None
    assert (z.grad.abs().sum(1) > 0).tolist() == present.tolist()
    assert (decoder.map.weight.grad.abs().sum(1) > 0).all(), "every layer's keys and values"
    decoder.zero_grad()


@torch.no_grad()
def literal_score(decoder: LatentDecoder, row: int) -> list[float]:
    """One row, no cache but the memory."""
    (prompt,) = decoder.lm.encode_prompts([PROMPTS[row]])
    target = decoder.lm.encode([TARGETS[row] if not PROMPTS[row] else " " + TARGETS[row]])[0]
    logits = decoder(torch.tensor([prompt + target]), Z[row : row + 1], PRESENT[row : row + 1])[0]
    logprobs = logits.log_softmax(-1)[len(prompt) - 1 : -1]
    return logprobs[torch.arange(len(target)), target].tolist()


@pytest.mark.parametrize("budget", [1, 60, 8192])
def test_scores_are_those_of_one_row_at_a_time(decoder: LatentDecoder, budget: int) -> None:
    scores = decoder.score(PROMPTS, TARGETS, Z, PRESENT, max_tokens_per_batch=budget)
    for row, score in enumerate(scores):
        assert score.token_logprobs == pytest.approx(literal_score(decoder, row), abs=1e-4)
    plain = score_targets(decoder.lm, PROMPTS, TARGETS)
    for row, (score, other) in enumerate(zip(scores, plain, strict=True)):
        assert (score.token_logprobs == pytest.approx(other.token_logprobs, abs=1e-4)) is not PRESENT[row].item()


def test_without_memory_scores_and_texts_are_the_language_models(decoder: LatentDecoder) -> None:
    plain = score_targets(decoder.lm, PROMPTS, TARGETS)
    for scores in (decoder.score(PROMPTS, TARGETS), decoder.score(PROMPTS, TARGETS, Z, torch.zeros(8).bool())):
        for score, other in zip(scores, plain, strict=True):
            assert score.token_logprobs == pytest.approx(other.token_logprobs, abs=1e-4)
    assert decoder.generate(PROMPTS, max_new_tokens=5) == generate_greedy(decoder.lm, PROMPTS, max_new_tokens=5)


@torch.no_grad()
def literal_text(decoder: LatentDecoder, row: int, max_new_tokens: int) -> str:
    """Encodes everything again for each token."""
    (prompt,) = decoder.lm.encode_prompts([PROMPTS[row]])
    ids = list(prompt)
    for _ in range(max_new_tokens):
        token = int(decoder(torch.tensor([ids]), Z[row : row + 1], PRESENT[row : row + 1])[0, -1].argmax())
        if token == decoder.lm.eos_id:
            break
        ids.append(token)
    before, whole = decoder.lm.decode([prompt[-1:], ids[len(prompt) - 1 :]])
    return whole[len(before) :]


@pytest.mark.parametrize("budget", [1, 120, 8192])
def test_texts_are_those_of_a_literal_loop(decoder: LatentDecoder, budget: int) -> None:
    expected = [literal_text(decoder, row, 10) for row in range(len(PROMPTS))]
    assert decoder.generate(PROMPTS, Z, PRESENT, max_new_tokens=10, max_tokens_per_batch=budget) == expected
    assert decoder.generate(PROMPTS, max_new_tokens=10) != expected
    row = max((row for row in range(len(PROMPTS)) if PRESENT[row]), key=lambda row: len(expected[row]))
    middle = expected[row][3:5]
    (stopped,) = decoder.generate(PROMPTS[row : row + 1], Z[row : row + 1], max_new_tokens=10, stop=[middle])
    assert stopped == expected[row][: expected[row].index(middle)]


def test_a_zero_read_out_still_draws_attention() -> None:
    published = make("llama", absent="zero")
    ids, present, z = token_batch(published), torch.tensor([True, False, True, False]), read_outs(4)
    with torch.no_grad():
        plain = published.lm.model(input_ids=ids, use_cache=False).logits
        mixed, without = published(ids, z, present), published(ids)
    assert torch.allclose(mixed[~present], without[~present], atol=1e-5)
    assert (without - plain).abs().amax((1, 2)).min() > 1e-3
    plain_scores, scores = score_targets(published.lm, PROMPTS, TARGETS), published.score(PROMPTS, TARGETS)
    assert all(abs(score.logprob - other.logprob) > 1e-3 for score, other in zip(scores, plain_scores, strict=True))
    assert published.score(PROMPTS, TARGETS, Z, PRESENT)[1].logprob == pytest.approx(scores[1].logprob, abs=1e-4)


def test_a_prompt_is_encoded_once_for_all_targets_under_one_read_out(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, seen = make("gpt2"), []
    forward = decoder.lm.model.forward
    monkeypatch.setattr(
        decoder.lm.model, "forward", lambda **call: seen.append(tuple(call["input_ids"].shape)) or forward(**call)
    )
    scores = decoder.score([PROMPTS[0]] * 3, ["a", "is", "c"], Z[:1].expand(3, -1))
    length = len(decoder.lm.encode(PROMPTS[:1])[0])
    assert seen == [(1, length - 1), (3, max(len(score.token_ids) for score in scores))]


def test_the_memory_takes_no_room_in_the_context() -> None:
    decoder = make("gpt2")
    full = decoder.lm.decode([[300] * 62])[0]
    assert len(decoder.lm.encode([full])[0]) == 62
    (score,) = decoder.score([full], [" is is is"], Z[:1])
    assert len(score.token_ids) == 3
    with pytest.raises(ValueError, match="prompt 1: 62 tokens and 4 to follow exceed the model's context of 64"):
        decoder.score(["a", full], ["b", " is is is is"], Z[:2])
    (cut,) = decoder.score([full + full], [" is is is"], Z[:1], overflow="left")
    assert cut.token_logprobs == pytest.approx(score.token_logprobs, abs=1e-4)
    assert decoder.generate([full + full], Z[:1], max_new_tokens=3, overflow="left") == decoder.generate(
        [full], Z[:1], max_new_tokens=3
    )


def test_bad_requests_are_named() -> None:
    decoder = make("gpt2")
    assert decoder.score([], [], Z[:0]) == []
    assert decoder.generate([], max_new_tokens=3) == []
    with pytest.raises(ValueError, match="1 read-outs for 2 texts"):
        decoder.score(["a", "b"], ["x", "y"], Z[:1])
    with pytest.raises(ValueError, match="3 flags of presence for 2 texts"):
        decoder.score(["a", "b"], ["x", "y"], Z[:2], torch.ones(3))
    with pytest.raises(ValueError, match="2 prompts but 1 targets"):
        decoder.score(["a", "b"], ["x"])
    decoder.train()
    with pytest.raises(ValueError, match="training mode"):
        decoder.generate(["a"], Z[:1], max_new_tokens=1)
    with pytest.raises(ValueError, match="training mode"):
        decoder.generate(["a"], max_new_tokens=1)


def test_a_decoder_in_half_precision_remembers() -> None:
    lm = tiny_lm("llama")
    lm.model.to(torch.bfloat16)
    decoder = LatentDecoder(lm, CODE, seed=0).eval()
    assert decoder.map.weight.dtype == torch.float32
    assert len(decoder.score(PROMPTS, TARGETS, Z, PRESENT)) == len(PROMPTS)


def test_under_autocast_a_row_says_nearly_the_same(decoder: LatentDecoder) -> None:
    ids, present, z = token_batch(decoder), torch.tensor([True, False, True, True]), read_outs(4)
    exact = decoder(ids, z, present)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = decoder(ids, z, present)
    rounded.float().square().mean().backward()
    assert decoder.map.weight.grad.isfinite().all()
    decoder.zero_grad()
    assert (rounded - exact).norm() < 0.05 * exact.norm()
