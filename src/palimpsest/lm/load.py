"""Causal language models from the hub or a folder, with the few facts about them that scoring and generation need.

Weights come from safetensors alone and no code of a model repository is run.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.models.auto.tokenization_auto import get_tokenizer_config

from palimpsest.lm.attention import prefer_fast_attention

log = logging.getLogger(__name__)

# What architectures call the number of positions; the standard name comes first.
CONTEXT_NAMES = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_sequence_length", "seq_length")
UNBOUNDED = 10**9  # tokenizers without a limit give `model_max_length` an astronomic value


class ModelError(ValueError):
    """A model that cannot be used. The message names it and says what was expected."""


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A Hugging Face causal LM in evaluation mode with its (fast) tokenizer.

    ``model`` may be wrapped (by PEFT for instance) as long as it is called like a causal LM of transformers.
    ``add_bos`` says whether a prompt is preceded by the BOS token. Left ``None`` it follows the tokenizer: true for
    those that put a BOS before every text themselves (Llama, Mistral), false for those that do not (GPT-2).
    ``context_limit`` overrides the number of positions that the configuration states.
    """

    model: Any
    tokenizer: Any
    add_bos: bool | None = None
    context_limit: int | None = None

    def __post_init__(self) -> None:
        if not getattr(self.tokenizer, "is_fast", False):
            raise ModelError(f"{type(self.tokenizer).__name__} is not a fast tokenizer, which character offsets need")
        size = len(self.model.get_input_embeddings().weight)
        if len(self.tokenizer) > size:
            raise ModelError(f"the tokenizer has {len(self.tokenizer)} tokens, the model embeds only {size}")
        if self.add_bos is None:
            object.__setattr__(self, "add_bos", _tokenizer_adds_bos(self.tokenizer))
        elif self.add_bos and self.bos_id is None:
            raise ModelError("add_bos is set, but the tokenizer has no BOS token")
        self.model.eval()

    @property
    def device(self) -> torch.device:
        """Where the model's inputs go: the device of its input embedding."""
        return self.model.get_input_embeddings().weight.device

    @cached_property
    def context_length(self) -> int:
        """The longest input in tokens, from the configuration of any architecture.

        Models without a limit of their own (ALiBi) fall back on what their tokenizer states.
        """
        if self.context_limit is not None:
            return self.context_limit
        config = self.model.config.get_text_config()
        stated = [value for name in CONTEXT_NAMES if isinstance(value := getattr(config, name, None), int)]
        length = stated[0] if stated else self.tokenizer.model_max_length
        if length >= UNBOUNDED:
            raise ModelError(f"{config.model_type} states no context length: give `context_limit`")
        return int(length)

    @property
    def bos_id(self) -> int | None:
        """The token that begins a text, if the tokenizer has one."""
        return self.tokenizer.bos_token_id

    @property
    def eos_id(self) -> int | None:
        """The token that ends a text: the tokenizer's, else the one in the model's configuration."""
        if self.tokenizer.eos_token_id is not None:
            return self.tokenizer.eos_token_id
        stated = self.model.config.get_text_config().eos_token_id
        return stated[0] if isinstance(stated, list) else stated

    @property
    def pad_id(self) -> int:
        """The token that fills up a batch: PAD, else EOS, else token 0. It never changes a result."""
        candidates = (self.tokenizer.pad_token_id, self.eos_id, 0)
        return next(token for token in candidates if token is not None)

    @property
    def start_id(self) -> int:
        """The context of a text's first token: BOS, else EOS, which separates documents in training."""
        for token in (self.bos_id, self.eos_id):
            if token is not None:
                return token
        raise ModelError("the tokenizer has neither BOS nor EOS, so the first token of a text has no context")

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, with no special token added. Texts of any length."""
        if not texts:
            return []
        return self.tokenizer(
            list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False
        ).input_ids

    def encode_prompts(self, prompts: Sequence[str]) -> list[list[int]]:
        """Token ids of each prompt, after one BOS if :attr:`add_bos`; of an empty prompt at least :attr:`start_id`."""
        encoded = self.encode(prompts)
        bos = self.bos_id if self.add_bos else None
        if bos is not None:
            encoded = [ids if ids[:1] == [bos] else [bos, *ids] for ids in encoded]
        return [ids or [self.start_id] for ids in encoded]

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """Text of each row of token ids. Special tokens are shown, for the markers of a memory call are such tokens."""
        return [self.tokenizer.decode(list(row), clean_up_tokenization_spaces=False) for row in rows]


def load_lm(
    name_or_path: str | Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    add_bos: bool | None = None,
    context_limit: int | None = None,
) -> LanguageModel:
    """Load a causal LM and its tokenizer by hub name or from a folder.

    Raises:
        FileNotFoundError: the name reads as a path, and there is no such folder.
        ModelError: not a causal LM, weights missing or only there as pickle, no usable tokenizer, or nothing of that
            name on the hub.
    """
    name = resolve_model(name_or_path)
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        if not _is_causal(config):
            raise ValueError(f"{'/'.join(config.architectures or [config.model_type])} is not a causal language model")
        tokenizer = _load_tokenizer(name)
        model, info = AutoModelForCausalLM.from_pretrained(
            name, config=config, dtype=dtype, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"{name}: no causal language model could be loaded from there: {error}") from error
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise ModelError(f"{name}: {len(missing)} weights are missing and would be random, for example {missing[0]}")
    prefer_fast_attention(model)
    log.info("loaded %s: %s, %.1f M parameters", name, config.model_type, model.num_parameters() / 1e6)
    return LanguageModel(model.to(device), tokenizer, add_bos=add_bos, context_limit=context_limit)


def resolve_model(name_or_path: str | Path) -> str:
    """Check that a model folder exists and holds safetensors; a hub name (``owner/name``) passes unchanged.

    Raises:
        FileNotFoundError: the name reads as a path, and there is no such folder.
        ModelError: the folder has no configuration, no weights, or its weights are there only as pickle.
    """
    folder = Path(name_or_path).expanduser()
    if not folder.is_dir():
        if (
            isinstance(name_or_path, Path)
            or folder.is_absolute()
            or name_or_path.startswith(".")
            or len(folder.parts) > 2
        ):
            raise FileNotFoundError(f"{name_or_path}: no such model folder")
        return name_or_path
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder}: no config.json, so not a model folder")
    if not any(folder.glob("*.safetensors")):
        pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
        found = (
            f"only pickled weights ({', '.join(pickles)}), which can run code and are not read" if pickles else "none"
        )
        raise ModelError(f"{folder}: expected weights as *.safetensors, found {found}")
    return str(folder)


def _is_causal(config: Any) -> bool:
    """False also for what ``AutoModelForCausalLM`` would take and give a random head or bidirectional attention."""
    stated = config.architectures or []
    known = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return config.model_type in known and (not stated or not set(known.values()).isdisjoint(stated))


def _load_tokenizer(name: str) -> Any:
    """The tokenizer as it was saved: AutoTokenizer would make a Qwen2's own of any that lies beside a Qwen2."""
    generic = get_tokenizer_config(name).get("tokenizer_class") == PreTrainedTokenizerFast.__name__
    loader = PreTrainedTokenizerFast if generic else AutoTokenizer
    return loader.from_pretrained(name, use_fast=True, trust_remote_code=False)


def _tokenizer_adds_bos(tokenizer: Any) -> bool:
    """Whether the tokenizer by itself begins every text with its BOS token."""
    bos = tokenizer.bos_token_id
    plain, full = (tokenizer("a", add_special_tokens=special).input_ids for special in (False, True))
    return bos is not None and full[:1] == [bos] and plain[:1] != [bos]
