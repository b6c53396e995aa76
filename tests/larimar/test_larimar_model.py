from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from tiny import CORPUS, tiny_encoder, tiny_lm

from palimpsest.larimar.model import Larimar
from palimpsest.lm.encoder import SentenceEncoder
from palimpsest.lm.load import ModelError
from palimpsest.memllm.adapters import Lora

PROMPTS = ["The mother tongue of Danielle Darrieux is", "Who wrote Dancing on Coral?", "Mount Erebus"]
TARGETS = ["French", "Glenda Adams", "is"]
LORA = Lora(rank=2, alpha=4, dropout=0.1, head=False)


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    tiny_encoder(folder)
    return folder


def make(encoder_folder: Path, architecture: str = "gpt2", **options: object) -> Larimar:
    encoder = SentenceEncoder.load(encoder_folder, max_length=12)
    return Larimar(encoder, tiny_lm(architecture), **{"slots": 5, "code": 16} | options)


def disturbed(model: Larimar) -> Larimar:
    """Other weights wherever something is trained."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight += 0.1 * torch.randn(weight.shape, generator=generator)
    return model


def outputs(model: Larimar) -> list[float]:
    scores = model.decoder.score(PROMPTS, TARGETS, model.encode(CORPUS), torch.tensor([True, True, False]))
    return [logprob for score in scores for logprob in score.token_logprobs]


@pytest.mark.parametrize("architecture", ["gpt2", "gptj", "llama"])
@pytest.mark.parametrize("tuning", ["frozen", "full", LORA], ids=str)
@pytest.mark.parametrize("absent", ["mask", "zero"])
def test_a_saved_model_says_the_same(
    tmp_path: Path, encoder_folder: Path, architecture: str, tuning: object, absent: str
) -> None:
    model = disturbed(make(encoder_folder, architecture, tuning=tuning, absent=absent, tune_encoder=True))
    expected, z = outputs(model), model.encode(CORPUS)
    model.save(tmp_path / "larimar")
    loaded = Larimar.load(tmp_path / "larimar")
    assert torch.allclose(loaded.encode(CORPUS), z, atol=1e-6)
    assert not z.requires_grad
    assert loaded.identity == Larimar.load(tmp_path / "larimar").identity != make(encoder_folder).identity
    assert torch.equal(loaded.prior, model.prior)
    assert torch.equal(loaded.log_variance, model.log_variance)
    assert outputs(loaded) == pytest.approx(expected, abs=1e-4)
    assert loaded.decoder.generate(PROMPTS, z, max_new_tokens=4) == model.decoder.generate(PROMPTS, z, max_new_tokens=4)
    assert loaded.encoder.max_length == 12
    assert not any(weight.requires_grad for weight in loaded.parameters())
    assert not loaded.training
    assert outputs(model) == expected, "saving changes nothing"


def test_a_model_may_be_saved_over_itself(tmp_path: Path, encoder_folder: Path) -> None:
    make(encoder_folder).save(tmp_path / "larimar")
    model = disturbed(make(encoder_folder))
    model.save(tmp_path / "larimar")
    assert torch.equal(Larimar.load(tmp_path / "larimar").prior, model.prior)
    assert [path.name for path in tmp_path.iterdir()] == ["larimar"]


@pytest.mark.parametrize("tuning", ["frozen", "full", LORA], ids=str)
@pytest.mark.parametrize("tune_encoder", [False, True])
def test_only_what_is_tuned_is_trained(encoder_folder: Path, tuning: object, tune_encoder: bool) -> None:
    model = make(encoder_folder, tuning=tuning, tune_encoder=tune_encoder)
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert {"to_code.weight", "prior", "log_variance", "decoder.map.weight"} <= trained
    decoder = {name for name in trained if name.startswith("decoder.model.")}
    assert bool(decoder) is (tuning != "frozen")
    assert all("lora_" in name for name in decoder) is isinstance(tuning, Lora) or not decoder
    assert any(name.startswith("encoder_model.") for name in trained) is tune_encoder
    model.train()
    assert model.encoder.model.training is tune_encoder
    assert model.decoder.model.training is (tuning != "frozen")
    assert model.features(CORPUS).requires_grad is tune_encoder
    assert not model.eval().features(CORPUS).requires_grad


def test_features_in_training_are_those_in_use_but_for_dropout(encoder_folder: Path) -> None:
    model = make(encoder_folder, tune_encoder=True).train()
    model.encoder.model.eval()
    assert torch.allclose(model.features(CORPUS), model.encoder.encode(CORPUS), atol=1e-6)


@pytest.mark.parametrize("code", [8, 16, 24])
def test_codes_begin_as_the_features_turned_and_scaled(encoder_folder: Path, code: int) -> None:
    model = make(encoder_folder, code=code)
    features, z = model.features(CORPUS), model.encode(CORPUS)
    assert z.shape == (3, code)
    if code == 16:
        assert torch.allclose(z, 4 * features)
    if code >= 16:  # no angle is lost
        assert torch.allclose(z @ z.T, code * features @ features.T, atol=1e-4)
        assert z.square().mean(1).tolist() == pytest.approx([1] * 3)
    assert math.sqrt(z.square().mean().item()) == pytest.approx(1, abs=0.5)
    assert torch.equal(model.encode(CORPUS), make(encoder_folder, code=code).encode(CORPUS))
    assert torch.equal(model.prior, torch.eye(5, code))


def test_an_untrained_lora_decoder_without_memory_is_the_plain_one(encoder_folder: Path) -> None:
    plain, adapted = (
        make(encoder_folder, tuning=tuning).decoder.score(PROMPTS, TARGETS) for tuning in ("frozen", LORA)
    )
    assert [score.logprob for score in adapted] == pytest.approx([score.logprob for score in plain], abs=1e-5)
    with pytest.raises(ValueError, match="head=False"):
        make(encoder_folder, tuning=Lora(head=True))


def test_what_is_no_model_is_refused(tmp_path: Path, encoder_folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no larimar.json"):
        Larimar.load(tmp_path)
    folder = tmp_path / "larimar"
    make(encoder_folder).save(folder)
    config = json.loads((folder / "larimar.json").read_text())
    for name, value, message in (("slots", 6, "size mismatch"), ("colour", 1, "unexpected keyword")):
        (folder / "larimar.json").write_text(json.dumps(config | {name: value}))
        with pytest.raises(ModelError, match=f"not a whole Larimar model: .*(?s:.*){message}"):
            Larimar.load(folder)
    (folder / "larimar.json").write_text(json.dumps(config))
    weights = (folder / "larimar.safetensors").read_bytes()
    (folder / "larimar.safetensors").write_bytes(weights[:-5])
    with pytest.raises(ModelError, match="not a whole Larimar model"):
        Larimar.load(folder)
    (folder / "larimar.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"no larimar.safetensors"):
        Larimar.load(folder)
