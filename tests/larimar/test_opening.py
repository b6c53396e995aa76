"""Opened models are those that were saved, and encode each text once for all of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import CORPUS, tiny_encoder, tiny_lm

from palimpsest.larimar.decoder import LatentDecoder
from palimpsest.larimar.model import Larimar
from palimpsest.larimar.opening import open_remembering
from palimpsest.lm.encoder_cache import remembering_nothing


def test_models_say_the_same_and_share_their_encoder(tmp_path: Path) -> None:
    encoder = tiny_encoder(tmp_path / "encoder")
    other = tiny_encoder(tmp_path / "other", seed=1)
    for number, (name, chosen) in enumerate((("a", encoder), ("b", encoder), ("c", other))):
        Larimar(chosen, tiny_lm("qwen2"), slots=4, code=8, seed=number).save(tmp_path / name)
    opened = open_remembering(tmp_path, ["a", "b", "c"], "cpu")
    for name, model in opened.items():
        torch.testing.assert_close(model.encode(CORPUS), Larimar.load(tmp_path / name).encode(CORPUS))
    assert opened["a"].encoder is opened["b"].encoder is not opened["c"].encoder
    assert set(opened["a"].encoder.known) == set(CORPUS)  # type: ignore[attr-defined]
    assert opened["a"].identity != opened["b"].identity
    with pytest.raises(FileNotFoundError):
        open_remembering(tmp_path, ["d"], "cpu")


def test_what_a_decoder_has_said_is_not_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Larimar(tiny_encoder(tmp_path / "encoder"), tiny_lm("qwen2"), slots=4, code=8, seed=0).save(tmp_path / "a")
    plain = Larimar.load(tmp_path / "a").decoder
    opened = open_remembering(tmp_path, ["a"], "cpu")["a"].decoder
    prompts, targets = ["Mount Erebus is", "Who wrote", "Mount Erebus is"], ["in Antarctica", "it?", "high"]
    z = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    z[2] = z[0]
    counted: list[int] = []
    score, generate = LatentDecoder.score, LatentDecoder.generate

    def counting(method):  # type: ignore[no-untyped-def]
        def call(self, prompts, *rest, **options):  # type: ignore[no-untyped-def]
            counted.append(len(prompts))
            return method(self, prompts, *rest, **options)

        return call

    monkeypatch.setattr(LatentDecoder, "score", counting(score))
    monkeypatch.setattr(LatentDecoder, "generate", counting(generate))
    for present in (None, torch.tensor([True, False, True]), torch.tensor([False, False, False])):
        expected = [s.token_logprobs for s in score(plain, prompts, targets, z, present)]
        found = [s.token_logprobs for s in opened.score(prompts, targets, z, present)]
        for left, right in zip(expected, found, strict=True):
            assert left == pytest.approx(right, abs=1e-4)
        said = opened.generate(prompts, z, present, max_new_tokens=3)
        assert said == generate(plain, prompts, z, present, max_new_tokens=3)
    # Three targets, and two prompts and read-outs; then "Who wrote" without memory; then the others without.
    assert counted == [3, 2, 1, 1, 2, 1]
    opened.score(prompts, targets, z)
    opened.score(prompts, targets)
    opened.generate(prompts, max_new_tokens=3, stop=["."])  # another end is another question
    assert counted[6:] == [2]
    with remembering_nothing():
        opened.score(prompts, targets, z)
    assert counted.pop() == 3
    plain.absent = opened.absent = "zero"  # and so is another "no memory"
    expected = [s.token_logprobs for s in score(plain, prompts, targets)]
    for left, right in zip(expected, opened.score(prompts, targets), strict=True):
        assert left == pytest.approx(right.token_logprobs, abs=1e-4)
    assert counted[7:] == [3]
