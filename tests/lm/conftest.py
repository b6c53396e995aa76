"""Tiny random causal LMs of many architectures, saved to a folder and loaded like any other model."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedTokenizerFast

from palimpsest.lm.load import LanguageModel, load_lm

CORPUS = [
    "The mother tongue of Danielle Darrieux is French. She was born in Bordeaux and lived in Paris.",
    "Who wrote Dancing on Coral? Glenda Adams wrote it; the novel was published by Viking Press in 1987.",
    "Mount Erebus is located in the continent of Antarctica, and its height is 3,794 metres.",
    "Größe, naïve façade, Ærø —日本語 and emoji 🙂 are bytes like any other.",
]
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64}
# What each architecture adds: its own names for the sizes, and what makes it hard to batch (windows, soft caps, ALiBi).
ARCHITECTURES: dict[str, dict[str, object]] = {
    "gpt2": {},
    "llama": {"intermediate_size": 64, "num_key_value_heads": 2},
    "mistral": {"intermediate_size": 64, "num_key_value_heads": 2, "sliding_window": 8},
    "gpt_neox": {"intermediate_size": 64, "rotary_pct": 0.5},
    "gptj": {"rotary_dim": 4},
    "qwen2": {"intermediate_size": 64, "num_key_value_heads": 2, "vocab_size": 401},  # its tokenizer adds a PAD
    "gemma2": {"intermediate_size": 64, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 8,
               "final_logit_softcapping": 2.0},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "bloom": {},
}  # fmt: skip
WITH_BOS = {"llama", "mistral", "gemma2", "opt"}  # whose tokenizers put a BOS before every text


def train_tokenizer(adds_bos: bool) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of 400 tokens, without PAD; one that adds no BOS has none either."""
    specials = ["<s>", "</s>"] if adds_bos else ["</s>"]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=specials,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    if adds_bos:
        bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="</s>", **({"bos_token": "<s>"} if adds_bos else {}))


def save_tiny(folder: Path, architecture: str) -> Path:
    """Save a random model whose weights are large enough for its predictions to differ from one another."""
    tokenizer = train_tokenizer(architecture in WITH_BOS)
    config = CONFIG_MAPPING[architecture](
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=None,
        **{"vocab_size": len(tokenizer)} | SIZES | ARCHITECTURES[architecture],
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" not in name and "ln_" not in name:
                weight.normal_(0, 0.2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(params=ARCHITECTURES, scope="session")
def architecture(request: pytest.FixtureRequest) -> str:
    """Each architecture in turn."""
    return request.param


@pytest.fixture(scope="session")
def has_bos(architecture: str) -> bool:
    """Whether the architecture's tokenizer has a BOS and puts it before every text."""
    return architecture in WITH_BOS


@pytest.fixture(scope="session")
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer without BOS."""
    return train_tokenizer(adds_bos=False)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``tiny_folder(architecture)``: the folder of a saved tiny model, made once."""
    return cache(lambda architecture: save_tiny(tmp_path_factory.mktemp(architecture), architecture))


@pytest.fixture(scope="session")
def tiny_lm(tiny_folder: Callable[[str], Path]) -> Callable[[str], LanguageModel]:
    """``tiny_lm(architecture)``: a tiny model, loaded once."""
    return cache(lambda architecture: load_lm(tiny_folder(architecture)))
