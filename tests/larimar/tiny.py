"""Tiny random causal LMs of the architectures that the decoder is for, and a tiny sentence encoder."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, BertConfig, BertModel, PreTrainedTokenizerFast

from palimpsest.lm.encoder import SentenceEncoder
from palimpsest.lm.load import LanguageModel

CORPUS = [
    "The mother tongue of Danielle Darrieux is French. She was born in Bordeaux and lived in Paris.",
    "Who wrote Dancing on Coral? Glenda Adams wrote it; the novel was published by Viking Press in 1987.",
    "Mount Erebus is located in the continent of Antarctica, and its height is 3,794 metres.",
]
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64}
GROUPED = {"intermediate_size": 64, "num_key_value_heads": 2}
# What each architecture adds; of the windowed ones the window is shorter than the texts.
ARCHITECTURES: dict[str, dict[str, object]] = {
    "gpt2": {},
    "gptj": {"rotary_dim": 4},
    "gpt_neox": {"intermediate_size": 64, "rotary_pct": 0.5},
    "llama": GROUPED,
    "mistral": GROUPED | {"sliding_window": 8},
    "qwen2": GROUPED,
    "qwen3": GROUPED | {"head_dim": 16},
    "gemma": GROUPED | {"head_dim": 8},
    "gemma2": GROUPED | {"head_dim": 8, "sliding_window": 8, "final_logit_softcapping": 2.0},
}
WITH_BOS = {"llama", "mistral", "gemma", "gemma2"}


@cache
def tokenizer(adds_bos: bool) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of 400 tokens, without PAD."""
    specials = ["<s>", "</s>"] if adds_bos else ["</s>"]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=specials, initial_alphabet=alphabet)
    trainer.show_progress = False
    bpe.train_from_iterator(CORPUS, trainer)
    if adds_bos:
        bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="</s>", **({"bos_token": "<s>"} if adds_bos else {}))


def tiny_lm(architecture: str) -> LanguageModel:
    """A new random model, whose weights are large enough for its predictions to differ."""
    words = tokenizer(architecture in WITH_BOS)
    config = CONFIG_MAPPING[architecture](
        vocab_size=len(words),
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=None,
        **SIZES | ARCHITECTURES[architecture],
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "norm" not in name and "ln_" not in name:
                    weight.normal_(0, 0.2)
    return LanguageModel(model.eval(), words)


def tiny_encoder(folder: Path, seed: int = 0) -> SentenceEncoder:
    """A new random BERT of 16 numbers a text, saved to a folder and loaded from there."""
    words = {word: place for place, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])}
    for word in re.findall(r"\w+", " ".join(CORPUS)):
        words.setdefault(word, len(words))
    splitting = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    splitting.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    splitting.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
        initializer_range=0.5,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        BertModel(config).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=splitting, pad_token="[PAD]").save_pretrained(folder)
    return SentenceEncoder.load(folder)
