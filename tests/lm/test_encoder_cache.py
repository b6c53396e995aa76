"""An encoder that remembers gives what the encoder gives, and computes it once."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from palimpsest.lm.encoder import SentenceEncoder
from palimpsest.lm.encoder_cache import RememberingEncoder, remembering_nothing

TEXTS = ["Ada was born in Turin.", "Where?", "Ada was born in Turin.", "Bo wrote Fear."]


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return SentenceEncoder.load()


def test_vectors_are_those_of_the_encoder(encoder: SentenceEncoder) -> None:
    remembering = RememberingEncoder.of(encoder)
    assert remembering.identity == encoder.identity
    found = remembering.encode(TEXTS)
    torch.testing.assert_close(found, encoder.encode(TEXTS), atol=1e-6, rtol=0)
    assert torch.equal(remembering.encode(TEXTS[1:]), found[1:])  # bit for bit, whatever the batch
    assert remembering.encode([]).shape == (0, encoder.dimension)


def test_a_text_is_encoded_once(encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    encode = SentenceEncoder.encode

    def counting(self: SentenceEncoder, texts: Sequence[str], **options: bool) -> Tensor:
        read.extend(texts)
        return encode(self, texts, **options)

    monkeypatch.setattr(SentenceEncoder, "encode", counting)
    remembering = RememberingEncoder.of(encoder)
    for _ in range(2):
        remembering.encode(TEXTS)
    assert read == [TEXTS[0], TEXTS[1], TEXTS[3]]
    assert RememberingEncoder.of(remembering) is remembering
    with remembering_nothing():
        remembering.encode(TEXTS[:1])
    remembering.encode(TEXTS[:1])
    assert read[3:] == TEXTS[:1]
