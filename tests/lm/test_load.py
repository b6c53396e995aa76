from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from palimpsest.lm.load import LanguageModel, ModelError, load_lm

Folders = Callable[[str], Path]


def test_any_architecture_loads_with_its_facts(tiny_folder: Folders, architecture: str, has_bos: bool) -> None:
    lm = load_lm(tiny_folder(architecture), dtype=torch.bfloat16, context_limit=32 if architecture == "bloom" else None)
    assert not lm.model.training
    assert lm.model.dtype == torch.bfloat16
    assert lm.device == torch.device("cpu")
    assert lm.context_length == (32 if architecture == "bloom" else 64)
    assert lm.add_bos == has_bos
    assert lm.bos_id == (0 if has_bos else None)
    assert lm.start_id == 0
    assert lm.eos_id == (1 if has_bos else 0)
    assert lm.pad_id == (lm.eos_id if lm.tokenizer.pad_token_id is None else lm.tokenizer.pad_token_id)


def test_one_bos_is_put_before_a_prompt_and_never_two(tiny_folder: Folders) -> None:
    llama, gpt2 = load_lm(tiny_folder("llama")), load_lm(tiny_folder("gpt2"))
    plain = llama.encode(["Paris"])[0]
    assert llama.encode_prompts(["Paris", "<s>Paris", ""]) == [[0, *plain], [0, *plain], [0]]
    assert load_lm(tiny_folder("llama"), add_bos=False).encode_prompts(["Paris", ""]) == [plain, [0]]
    assert gpt2.encode_prompts(["Paris", ""]) == [gpt2.encode(["Paris"])[0], [gpt2.eos_id]]
    with pytest.raises(ModelError, match="no BOS token"):
        load_lm(tiny_folder("gpt2"), add_bos=True)


def test_a_missing_folder_is_not_looked_up_on_the_hub(tmp_path: Path) -> None:
    for name in (tmp_path / "absent", str(tmp_path / "absent"), "./absent", "a/b/c"):
        with pytest.raises(FileNotFoundError, match="no such model folder"):
            load_lm(name)


def test_pickled_weights_are_refused(tiny_folder: Folders, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder("gpt2"), tmp_path / "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"only pickled weights \(pytorch_model.bin\)"):
        load_lm(folder)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(ModelError, match=r"expected weights as \*.safetensors, found none"):
        load_lm(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"no config.json"):
        load_lm(folder)


def test_damaged_weights_are_refused(tiny_folder: Folders, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder("gpt2"), tmp_path / "cut")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="no causal language model could be loaded"):
        load_lm(folder)


def test_missing_weights_are_not_made_up(tiny_folder: Folders, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder("llama"), tmp_path / "headless")
    weights = load_file(folder / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"1 weights are missing and would be random, for example lm_head.weight"):
        load_lm(folder)


def test_a_masked_lm_is_not_a_causal_lm(tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    config = BertConfig(
        vocab_size=len(tiny_tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    BertForMaskedLM(config).save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="BertForMaskedLM is not a causal language model"):
        load_lm(tmp_path)


def test_remote_code_is_not_run(tiny_folder: Folders, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder("gpt2"), tmp_path / "remote")
    config = json.loads((folder / "config.json").read_text())
    auto_map = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "evil", "auto_map": auto_map}))
    (folder / "evil.py").write_text("raise SystemExit('remote code ran')")
    with pytest.raises(ModelError, match="remote"):
        load_lm(folder)


def test_a_tokenizer_larger_than_the_model_is_refused(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tiny_tokenizer) - 1, n_embd=8, n_layer=1, n_head=1))
    with pytest.raises(ModelError, match="the model embeds only"):
        LanguageModel(model, tiny_tokenizer)
