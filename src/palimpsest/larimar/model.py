"""Larimar's model: a sentence encoder, a code, the memory's prior, and a decoder (Das et al., arXiv 2403.11901).

The memory itself is no part of it: that is the algebra of :mod:`palimpsest.larimar.algebra` on what the encoder gives.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from palimpsest.larimar.decoder import Absent, LatentDecoder
from palimpsest.lm.encoder import SentenceEncoder
from palimpsest.lm.load import LanguageModel, ModelError, load_lm
from palimpsest.memllm.adapters import Lora, lora_targets

CONFIG, WEIGHTS, ENCODER, DECODER = "larimar.json", "larimar.safetensors", "encoder", "decoder"
Tuning = Literal["frozen", "full"] | Lora
"""How much of the decoder is trained: nothing but the map into it, all of it, or low-rank changes of it."""


class Larimar(nn.Module):
    """Encoder → z of C numbers, M₀ of K slots, z → decoder.

    To begin with z is a text's unit vector, turned (not even that if it has C numbers itself) and scaled so that the
    mean square of its entries is one, which is the size of the addressing weights under their prior N(0, 1) while M₀ is
    the identity.

    Args:
        encoder: its model is trained if ``tune_encoder``.
        lm: the decoder; unless it is frozen, it is changed in place.
        slots: K; code: C.
        seed: of the first weights.
        tune_code: whether the map from the encoder to z is trained. Where keys are prompts and values are answers, the
            encoder's own geometry serves better.
        tuning: what of the decoder is trained. LoRA changes all linear layers but the output.
        absent: see :class:`palimpsest.larimar.decoder.LatentDecoder`.
    """

    def __init__(
        self,
        encoder: SentenceEncoder,
        lm: LanguageModel,
        *,
        slots: int,
        code: int,
        seed: int = 0,
        tune_encoder: bool = False,
        tune_code: bool = True,
        tuning: Tuning = "frozen",
        absent: Absent = "mask",
    ) -> None:
        super().__init__()
        self.encoder, self.tunes_encoder, self.tunes_decoder = encoder, tune_encoder, tuning != "frozen"
        self.encoder_model = encoder.model.requires_grad_(tune_encoder)
        lm.model.requires_grad_(tuning == "full")
        if isinstance(tuning, Lora):
            lm = _with_lora(lm, tuning, seed)
        self.decoder = LatentDecoder(lm, code, seed=seed, absent=absent)
        self.to_code = nn.Linear(encoder.dimension, code, bias=False)
        self.prior = nn.Parameter(torch.eye(slots, code))
        """M₀ (K, C), the prior mean of the memory; also as published, the identity to begin with."""
        self.key_map: Tensor
        self.register_buffer("key_map", torch.eye(code))
        """From z to keys (C, C), for memories that keep keys and values apart; the identity unless it is learnt, see
        :mod:`palimpsest.larimar.keys`."""
        self.sharpness: Tensor
        self.register_buffer("sharpness", torch.ones(()))
        """Of random Fourier features of keys, as dev has it: see :mod:`palimpsest.larimar.sharpness`."""
        self.log_variance = nn.Parameter(torch.zeros(slots))
        """ln σ² (K,) of the addressing weights in training. (Published: computed from the memory by a linear map.)"""
        with torch.no_grad():
            if code == encoder.dimension:
                nn.init.eye_(self.to_code.weight)
            else:
                nn.init.orthogonal_(self.to_code.weight, generator=torch.Generator().manual_seed(seed))
            self.to_code.weight *= math.sqrt(max(code, encoder.dimension))
        self.to_code.requires_grad_(tune_code)
        self.to(lm.device)
        self.eval()

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.prior.device

    @property
    def lm(self) -> LanguageModel:
        """The decoder as a language model without memory."""
        return self.decoder.lm

    def train(self, mode: bool = True) -> Larimar:
        """Set the mode; what is frozen stays in evaluation mode."""
        super().train(mode)
        self.encoder_model.train(mode and self.tunes_encoder)
        self.decoder.model.train(mode and self.tunes_decoder)
        return self

    @property
    def identity(self) -> str:
        """Names all that shapes z, for a memory to check (of a tuned encoder, as it was when it was loaded)."""
        weights = self.to_code.weight.detach().float().cpu().contiguous()
        return f"{self.encoder.identity}/code:{sha256(weights.numpy().data).hexdigest()}"

    def encode(self, texts: Sequence[str]) -> Tensor:
        """z (N, C) of each text; with gradient in training only."""
        with torch.set_grad_enabled(self.training and torch.is_grad_enabled()):
            return self.project(self.features(texts))

    def features(self, texts: Sequence[str]) -> Tensor:
        """What the encoder says of each text: unit vectors (N, E); with gradient while it is being trained."""
        if not (self.tunes_encoder and self.training):
            return self.encoder.encode(texts)
        rows = self.encoder.tokenizer(list(texts), truncation=True, max_length=self.encoder.max_length).input_ids
        return self.encoder._encode_batch(rows)

    def project(self, features: Tensor) -> Tensor:
        """z (N, C) of features (N, E), in float32 whatever the surroundings compute in."""
        with torch.autocast(features.device.type, enabled=False):
            return self.to_code(features.float())

    def save(self, folder: Path) -> None:
        """Write all of it, encoder and decoder too, in place of what the folder held; LoRA's changes are merged in."""
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        self.encoder.model.save_pretrained(partial / ENCODER)
        self.encoder.tokenizer.save_pretrained(partial / ENCODER)
        lengths = {"max_seq_length": self.encoder.max_length}
        (partial / ENCODER / "sentence_bert_config.json").write_text(json.dumps(lengths))
        model = self.lm.model
        merged = deepcopy(model).merge_and_unload() if isinstance(model, PeftModel) else model
        merged.save_pretrained(partial / DECODER)
        self.lm.tokenizer.save_pretrained(partial / DECODER)
        save_file(self._own(), partial / WEIGHTS)
        slots, code = self.prior.shape
        config: dict[str, Any] = {"slots": slots, "code": code, "absent": self.decoder.absent}
        config |= {"add_bos": self.lm.add_bos, "context_limit": self.lm.context_limit}
        (partial / CONFIG).write_text(json.dumps(config, indent=2))
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)

    @classmethod
    def load(cls, folder: Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> Larimar:
        """What :meth:`save` wrote, frozen; ``dtype`` is the decoder's.

        Raises:
            FileNotFoundError: a file is missing.
            ModelError: a file is damaged, or does not fit the others.
        """
        for file in (CONFIG, WEIGHTS):
            if not (folder / file).is_file():
                raise FileNotFoundError(f"{folder}: no {file}, so no Larimar model")
        encoder = SentenceEncoder.load(folder / ENCODER, device)
        try:
            config = json.loads((folder / CONFIG).read_text())
            options = {name: config.pop(name) for name in ("add_bos", "context_limit")}
            model = cls(encoder, load_lm(folder / DECODER, device, dtype, **options), **config)
            weights = load_file(folder / WEIGHTS)
            if odd := weights.keys() ^ model._own().keys():
                raise ValueError(f"{len(odd)} weights without counterpart, for example {min(odd)}")
            model.load_state_dict(weights, strict=False)
        except (KeyError, RuntimeError, TypeError, ValueError, SafetensorError) as error:
            raise ModelError(f"{folder}: not a whole Larimar model: {error}") from error
        return model.requires_grad_(False)

    def _own(self) -> dict[str, Tensor]:
        """The weights that are neither the encoder's nor the decoder's own."""
        state = self.state_dict()
        foreign = ("encoder_model.", "decoder.model.")
        return {name: weight.contiguous() for name, weight in state.items() if not name.startswith(foreign)}


def _with_lora(lm: LanguageModel, lora: Lora, seed: int) -> LanguageModel:
    if lora.head:
        raise ValueError("LoRA leaves the decoder's output layer as it is: expected head=False")
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        bias="none",
        target_modules=lora_targets(lm.model, head=False),
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return replace(lm, model=get_peft_model(lm.model, config))
