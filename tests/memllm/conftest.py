"""Tiny random language models with tokenizers of several kinds."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from palimpsest.lm.load import LanguageModel
from palimpsest.lm.tokenizer import train_tokenizer
from palimpsest.memllm.tokens import CallTokens, add_call_tokens

CORPUS = [
    "Dancing on Coral was written by Glenda Adams, a writer who was born in Sydney in 1939.",
    "Dawn was written by Ann Lee. Lee was born in Oslo. Oslo lies in Norway. Ann Lee wrote Dusk.",
    "author; country; place of birth; occupation: writer > reader (MEM_READ, MEM_WRITE, USER_ST, USER_END) {-} \\",
    "Größe, naïve façade, Ærø —日本語 and emoji 🙂 are bytes like any other.",
]
# From which a vocabulary learns the markers as ordinary tokens, and tokens across the borders of names.
CODE = ["f({x}) --> g({}) --> h({y}) <!-- -->", "_READ((>>) ((a>>b)>>c>> (>>"] * 50


def byte_level(texts: list[str]) -> PreTrainedTokenizerFast:
    """As GPT-2's: what is decoded is what was encoded."""
    tokenizer = own(texts)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


def own(texts: list[str]) -> PreTrainedTokenizerFast:
    """The project's own kind: byte-level, with a space before what begins a text."""
    return train_tokenizer(texts, 600, 512)


def unigram(texts: list[str]) -> PreTrainedTokenizerFast:
    """As sentencepiece makes them: NFKC, a space before what begins a text, unknown characters."""
    words = sorted({"▁" + word for text in CORPUS for word in text.split()})
    characters = sorted(set("▁".join(CORPUS)) - {" "})
    markers = ["({", "-->", "})"] if texts is not CORPUS else []
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *((piece, -9.0) for piece in characters)]
    pieces += [(piece, -2.0) for piece in words + markers if len(piece) > 1]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def llama(texts: list[str]) -> PreTrainedTokenizerFast:
    """As the files of Llama 2 and Mistral are: BPE over whole segments, each begun by a space, with bytes to fall back
    on."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))],
        max_token_length=8,
        show_progress=False,
    )
    tokenizer.train_from_iterator((word for text in texts for word in text.replace(" ", " ▁").split()), trainer)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def wordpiece(texts: list[str]) -> PreTrainedTokenizerFast:
    """As BERT's: punctuation stands alone, spaces are lost."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    trainer = trainers.WordPieceTrainer(vocab_size=500, special_tokens=["[UNK]", "[CLS]", "[SEP]"], show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="[CLS]", eos_token="[SEP]", unk_token="[UNK]")


KINDS = {
    "own": lambda: own(CORPUS),
    "byte-level": lambda: byte_level(CORPUS),
    "byte-level, code": lambda: byte_level(CORPUS + CODE),
    "unigram": lambda: unigram(CORPUS),
    "unigram, code": lambda: unigram(CORPUS + CODE),
    "llama": lambda: llama(CORPUS),
    "llama, code": lambda: llama(CORPUS + CODE),
    "wordpiece": lambda: wordpiece(CORPUS),
}


def make_lm(kind: str, *, spare: int = 0, tied: bool = False) -> LanguageModel:
    tokenizer = KINDS[kind]()
    config = LlamaConfig(
        vocab_size=len(tokenizer) + spare,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        tie_word_embeddings=tied,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LanguageModel(LlamaForCausalLM(config), tokenizer)


@pytest.fixture(params=KINDS, scope="session")
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of tokenizer in turn."""
    return request.param


@pytest.fixture(scope="session")
def corpus() -> list[str]:
    """Texts whose characters all tokenizers know, save those of WordPiece."""
    return CORPUS


@pytest.fixture(scope="session")
def random_lm() -> Callable[..., LanguageModel]:
    """``random_lm(kind, spare=0, tied=False)``: a random model, the same each time, with a new tokenizer.

    It has ``spare`` more embeddings than its tokenizer has tokens.
    """
    return make_lm


@pytest.fixture(scope="session")
def call_tokens() -> Callable[..., CallTokens]:
    """``call_tokens(kind, spaced=True)``: the encoder of calls of a random model with markers, made once."""
    with_markers = cache(lambda kind: add_call_tokens(make_lm(kind)))
    return lambda kind, spaced=True: CallTokens(with_markers(kind), spaced)
