"""Adapters change what a model says and nothing else: on every architecture, saved and loaded, one beside another."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from palimpsest.lm.load import LanguageModel, ModelError
from palimpsest.lm.tokenizer import train_tokenizer
from palimpsest.memllm.adapters import (
    USUAL_TARGETS,
    Lora,
    attach_adapter,
    load_adapters,
    merge_adapter,
    save_adapter,
    using,
)
from palimpsest.memllm.calls import MARKERS

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64}
GROUPED = {"intermediate_size": 64, "num_key_value_heads": 2}
ARCHITECTURES: dict[str, dict[str, object]] = {
    "gpt2": {"tie_word_embeddings": True},
    "gpt_neox": {"intermediate_size": 64},
    "llama": GROUPED,
    "llama, tied": {**GROUPED, "tie_word_embeddings": True},
    "mistral": {**GROUPED, "sliding_window": 8},
    "qwen3, tied": {**GROUPED, "head_dim": 8, "tie_word_embeddings": True},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
}
TARGETS = {
    "gpt2": {"c_attn", "c_proj", "c_fc"},
    "gpt_neox": {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"},
    "opt": {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"},
}
LORA = Lora(rank=4, alpha=8, dropout=0.0)


def make(kind: str, layers: int = 2, vocabulary: int = 290) -> LanguageModel:
    """A random model, the same each time, loud enough for its predictions to differ from one another."""
    tokenizer = train_tokenizer(["Ann Lee wrote Dawn in Oslo; Bo Tan wrote Dusk in Lima."] * 4, vocabulary, 64)
    config = CONFIG_MAPPING[kind.split(",")[0]](
        **SIZES | ARCHITECTURES[kind] | {"num_hidden_layers": layers},
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        for name, weight in model.named_parameters():
            if "norm" not in name and "ln_" not in name:
                torch.nn.init.normal_(weight, 0, 0.2)
    return LanguageModel(model, tokenizer)


def train(lm: LanguageModel, seed: int, steps: int = 3) -> LanguageModel:
    """A few steps on random tokens with the markers among them."""
    optimizer = torch.optim.AdamW([weight for weight in lm.model.parameters() if weight.requires_grad], lr=0.05)
    text = torch.randint(280, (12,), generator=torch.Generator().manual_seed(seed))
    ids = torch.cat([text[:6], markers(lm), text[6:]])[None]
    for _ in range(steps):
        loss = cross_entropy(lm.model(input_ids=ids, use_cache=False).logits[0, :-1], ids[0, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return lm


def trained(kind: str, name: str, seed: int, lora: Lora = LORA) -> LanguageModel:
    return train(attach_adapter(make(kind), name, lora, seed), seed)


def markers(lm: LanguageModel) -> Tensor:
    return torch.tensor(lm.tokenizer.convert_tokens_to_ids(list(MARKERS)))


@torch.no_grad()
def logits(lm: LanguageModel, *, marked: bool = True) -> Tensor:
    """Of a row of ordinary tokens, and then the markers if ``marked``."""
    ids = torch.arange(20, 30)
    return lm.model(input_ids=torch.cat([ids, markers(lm)] if marked else [ids])[None]).logits[0]


@pytest.fixture(params=ARCHITECTURES)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=[True, False], ids=["head", "no head"])
def lora(request: pytest.FixtureRequest) -> Lora:
    return replace(LORA, head=request.param)


def test_a_new_adapter_changes_nothing_until_it_is_trained(kind: str, lora: Lora) -> None:
    lm = make(kind)
    vocabulary, before = len(lm.tokenizer), logits(lm, marked=False)
    adapted = attach_adapter(lm, "read", lora, 0)
    torch.testing.assert_close(logits(adapted, marked=False)[:, :vocabulary], before)
    said = logits(adapted)
    with using(adapted, None):
        assert torch.equal(logits(adapted), said)
    train(adapted, 0, steps=1)
    assert not torch.allclose(logits(adapted), said, atol=1e-2)


def test_an_adapter_can_go_on_from_another(kind: str, lora: Lora, tmp_path: Path) -> None:
    lm = trained(kind, "write", 1, lora)
    save_adapter(lm, "write", tmp_path / "write")
    further = attach_adapter(make(kind), "read", lora, 0, start=tmp_path / "write")
    assert torch.equal(logits(further), logits(lm))
    assert not torch.equal(logits(further), logits(attach_adapter(make(kind), "read", lora, 0)))
    train(further, 2, steps=1)
    assert not torch.allclose(logits(further), logits(lm), atol=1e-2)


def test_a_merged_adapter_says_the_same(kind: str, lora: Lora) -> None:
    lm = trained(kind, "read", 1, lora)
    said = logits(lm)
    merged = merge_adapter(lm)
    assert not hasattr(merged.model, "peft_config")
    torch.testing.assert_close(logits(merged), said, atol=1e-4, rtol=1e-4)
    cached = merged.model(input_ids=torch.arange(20, 30)[None], use_cache=True).logits[0]
    torch.testing.assert_close(cached, said[:10], atol=1e-4, rtol=1e-4)


def test_an_adapter_goes_on_only_from_one_of_its_shape(tmp_path: Path) -> None:
    save_adapter(trained("llama", "write", 1), "write", tmp_path / "write")
    with pytest.raises(ModelError, match="write: this adapter's weights are not those of one that could go on"):
        attach_adapter(make("llama"), "read", replace(LORA, rank=2), 0, start=tmp_path / "write")
    with pytest.raises(FileNotFoundError, match=r"read: no adapter_config.json, so no adapter"):
        attach_adapter(make("llama"), "read", LORA, 0, start=tmp_path / "read")


def test_what_is_trained(kind: str, lora: Lora) -> None:
    lm = attach_adapter(make(kind), "read", lora, 0)
    found = set(lm.model.peft_config["read"].target_modules)
    assert found == TARGETS.get(kind, set(USUAL_TARGETS)) | ({"lm_head"} if lora.head else set())
    weights = {name: weight for name, weight in lm.model.named_parameters() if weight.requires_grad}
    rows = [weight for name, weight in weights.items() if "lora_" not in name]
    assert [tuple(row.shape) for row in rows] == [(len(MARKERS), 32)]
    (per_layer,) = {sum(f".{n}." in name and "lora_A" in name for name in weights) for n in (0, 1)}
    assert len(weights) == 1 + 2 * (2 * per_layer + lora.head)
    assert per_layer == {"gpt2": 4}.get(kind, len(found - {"lm_head"}))  # GPT-2 has a c_proj in both parts of a block


def test_weights_of_the_base_stay_bit_for_bit(kind: str, lora: Lora) -> None:
    lm = make(kind)
    before = {name: weight.detach().clone() for name, weight in lm.model.named_parameters()}
    adapted = attach_adapter(lm, "read", lora, 0)
    base = {
        name.replace(".base_layer", "").replace(".token_adapter", ""): weight
        for name, weight in lm.model.named_parameters()
        if not weight.requires_grad and "lora_" not in name
    }
    assert base.keys() == before.keys()
    now = {name: weight.detach().clone() for name, weight in base.items()}  # longer by the markers' rows
    with using(adapted, None):
        said = logits(adapted)
    train(adapted, 0)
    with using(adapted, None):
        assert torch.equal(logits(adapted), said)
    for name, weight in base.items():
        assert torch.equal(weight, now[name])
        assert torch.equal(weight[: len(before[name])], before[name])


def test_saved_and_loaded_it_says_the_same(kind: str, lora: Lora, tmp_path: Path) -> None:
    lm = trained(kind, "read", 1, lora)
    save_adapter(lm, "read", tmp_path / "elsewhere")
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["adapter_config.json", "adapter_model.safetensors"]
    loaded = load_adapters(make(kind), {"mine": tmp_path / "elsewhere"})
    assert torch.equal(logits(loaded), logits(lm))
    assert loaded.model.peft_config["mine"].r == 4


def test_rows_of_the_markers_are_trained_and_saved(kind: str, lora: Lora, tmp_path: Path) -> None:
    lm = attach_adapter(make(kind), "read", lora, 0)
    embedding = lm.model.get_input_embeddings()
    first = embedding(markers(lm)).detach().clone()
    train(lm, 0)
    rows = embedding(markers(lm)).detach()
    assert (rows - first).abs().mean(1).min() > 0.01
    save_adapter(lm, "read", tmp_path / "read")
    (saved,) = (rows for name, rows in load_file(tmp_path / "read/adapter_model.safetensors").items() if "tok" in name)
    assert torch.equal(saved, rows)
    loaded = load_adapters(make(kind), {"read": tmp_path / "read"})
    assert torch.equal(loaded.model.get_input_embeddings()(markers(loaded)), rows)


def test_adapters_share_a_base_and_are_switched(kind: str, lora: Lora, tmp_path: Path) -> None:
    names, said = ["read", "write", "plain"], {}
    for seed, name in enumerate(names):
        lm = trained(kind, name, seed, lora)
        said[name] = logits(lm)
        save_adapter(lm, name, tmp_path / name)
    untrained = attach_adapter(make(kind), "read", lora, 0)
    lm = load_adapters(make(kind), {name: tmp_path / name for name in names})
    assert torch.equal(logits(lm), said["read"])
    for name in [*reversed(names), *names]:
        with using(lm, name) as speaking:
            assert torch.equal(logits(speaking), said[name])
            with using(lm, None):
                torch.testing.assert_close(logits(lm), logits(untrained))
            assert torch.equal(logits(lm), said[name])
        assert torch.equal(logits(lm), said["read"])
    with pytest.raises(KeyError), using(lm, "write"):
        raise KeyError
    assert torch.equal(logits(lm), said["read"])


def test_seed_decides_the_new_weights_and_not_the_state_of_the_generator() -> None:
    def start(seed: int) -> list[Tensor]:
        lm = attach_adapter(make("llama"), "read", LORA, seed)
        return [weight for weight in lm.model.parameters() if weight.requires_grad]

    state = torch.get_rng_state()
    one = start(1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert all(map(torch.equal, one, start(1)))
    assert not all(map(torch.equal, one, start(2)))


def test_scale_is_alpha_over_rank() -> None:
    lm = trained("llama", "read", 0)
    layer = lm.model.get_base_model().model.layers[1].mlp.up_proj
    x = torch.randn(5, 32)
    change = x @ layer.lora_A["read"].weight.T @ layer.lora_B["read"].weight.T
    torch.testing.assert_close(layer(x) - layer.base_layer(x), 8 / 4 * change)


def test_a_save_touches_no_other_adapter_and_replaces_its_own(tmp_path: Path) -> None:
    first, second = trained("llama", "read", 0), trained("llama", "read", 1)
    save_adapter(first, "read", tmp_path / "read")
    save_adapter(second, "read", tmp_path / "other")
    save_adapter(second, "read", tmp_path / "other")
    for lm, name in ((first, "read"), (second, "other")):
        assert torch.equal(logits(load_adapters(make("llama"), {"any": tmp_path / name})), logits(lm))


def test_a_saved_configuration_does_not_hang_on_the_order_of_a_set(tmp_path: Path) -> None:
    save_adapter(trained("llama", "read", 0), "read", tmp_path)
    saved = json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"]
    assert saved == sorted([*USUAL_TARGETS, "lm_head"])


def test_a_folder_without_an_adapter_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere: no adapter_config\.json"):
        load_adapters(make("llama"), {"read": tmp_path / "nowhere"})
    save_adapter(attach_adapter(make("llama"), "read", LORA, 0), "read", tmp_path / "half")
    (tmp_path / "half/adapter_model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"half: no adapter_model\.safetensors"):
        load_adapters(make("llama"), {"read": tmp_path / "half"})
    (tmp_path / "half/adapter_model.safetensors").write_bytes(b"cut off")
    with pytest.raises(ModelError, match="half"):
        load_adapters(make("llama"), {"read": tmp_path / "half"})


@pytest.mark.parametrize(
    "other",
    [
        lambda: make("gpt2"),
        lambda: make("llama", layers=3),
        lambda: make("llama", layers=1),
        lambda: make("llama", vocabulary=280),
    ],
    ids=["architecture", "more layers", "fewer layers", "tokenizer"],
)
def test_an_adapter_of_another_model_does_not_load(other, tmp_path: Path) -> None:
    save_adapter(attach_adapter(make("llama"), "read", LORA, 0), "read", tmp_path / "read")
    with pytest.raises(ModelError, match="does not fit"):
        load_adapters(other(), {"read": tmp_path / "read"})
