from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from tiny_models import CORPUS, tiny_lm

from palimpsest.editors import statistics
from palimpsest.editors.statistics import SecondMoment, second_moments
from palimpsest.editors.weights import find_blocks, read_at


@pytest.mark.parametrize("architecture", ["gpt2", "qwen2", "opt"])
@pytest.mark.parametrize("budget", [1, 100, 8192])
def test_the_second_moments_are_those_of_a_literal_loop(architecture: str, budget: int) -> None:
    lm = tiny_lm(architecture)
    blocks = find_blocks(lm.model)
    moments = second_moments(lm, CORPUS, blocks, per_feature=100, max_tokens_per_batch=budget)
    rows = lm.encode_prompts(CORPUS)
    assert max(map(len, rows)) <= lm.context_length
    for block, moment in zip(blocks, moments, strict=True):
        keys = []
        for row in rows:
            for place in range(len(row)):
                [[key]] = read_at(lm, [row], [place], [(block.down_name, "input")])
                keys.append(key.double())
        expected = sum(torch.outer(key, key) for key in keys) / len(keys)
        torch.testing.assert_close(moment.double(), expected, rtol=1e-5, atol=1e-6)


def test_as_many_vectors_are_read_as_asked_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lm = tiny_lm()
    [first, _] = find_blocks(lm.model)
    read: list[int] = []
    real = statistics._moments
    monkeypatch.setattr(
        statistics, "_moments", lambda lm, rows, *rest: read.append(sum(map(len, rows))) or real(lm, rows, *rest)
    )
    one = second_moments(lm, CORPUS * 9, [first], per_feature=2, seed=1)
    assert torch.equal(one[0], second_moments(lm, CORPUS * 9, [first], per_feature=2, seed=1)[0])
    assert not torch.equal(one[0], second_moments(lm, CORPUS * 9, [first], per_feature=2, seed=2)[0])
    with caplog.at_level(logging.WARNING):
        second_moments(lm, CORPUS, [first], per_feature=1000)
    assert read == [96, 96, 96, sum(map(len, lm.encode_prompts(CORPUS)))]
    assert "48000 vectors were asked for" in caplog.text
    with pytest.raises(ValueError, match="the corpus has 2 tokens, expected at least 48"):
        second_moments(lm, ["ab"], [first])


def test_what_was_computed_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny_lm()
    blocks = find_blocks(lm.model)
    [first] = second_moments(lm, CORPUS, blocks[:1], cache=tmp_path / "new")
    both = second_moments(lm, CORPUS, blocks, cache=tmp_path / "new")
    assert torch.equal(first, both[0])
    assert [path.suffix for path in (tmp_path / "new").iterdir()] == [".safetensors"] * 2
    with monkeypatch.context() as patch:
        patch.setattr(statistics, "_moments", None)
        assert all(map(torch.equal, both, second_moments(lm, CORPUS, blocks, cache=tmp_path / "new")))
        with pytest.raises(TypeError):  # other texts
            second_moments(lm, CORPUS[::-1] * 2, blocks, cache=tmp_path / "new")
        blocks[0].matrix.mul_(1.01)
        with pytest.raises(TypeError):  # other weights
            second_moments(lm, CORPUS, blocks, cache=tmp_path / "new")


def test_solving() -> None:
    torch.manual_seed(0)
    vectors = torch.randn(40, 6)
    moment, keys = vectors.T @ vectors / 40, torch.randn(3, 6)
    solved = SecondMoment(moment).solve(keys)
    torch.testing.assert_close(solved @ moment.double(), keys.double(), rtol=1e-4, atol=1e-4)
    moment[0], moment[:, 0] = 0, 0  # a feature that never fires
    assert SecondMoment(moment).solve(keys).isfinite().all()
