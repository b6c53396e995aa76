"""LoRA adapters of a language model: one that reads, one that writes, on one set of base weights (Hu et al. 2021).

An adapter holds low-rank changes of the linear layers and the embeddings of the call markers, and nothing else; it is
saved as safetensors beside its configuration. The base weights are never changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME, load_peft_weights
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from palimpsest.lm.load import LanguageModel, ModelError
from palimpsest.memllm.calls import MARKERS
from palimpsest.memllm.tokens import add_call_tokens

USUAL_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, kw_only=True)
class Lora:
    """The shape of an adapter: changes of rank ``rank``, scaled by ``alpha / rank``.

    ``head`` says whether the output layer is changed too. Biases stay as they are: Llama and Mistral have none, which
    is why the paper's ``lora_only`` trains none either, and two adapters on one model could not both have their own.
    """

    rank: int = 16
    alpha: float = 8
    dropout: float = 0.1
    head: bool = True


def attach_adapter(lm: LanguageModel, name: str, lora: Lora, seed: int, *, start: Path | None = None) -> LanguageModel:
    """A language model with a new adapter, ready to be trained; it says what the base says until it is.

    The model's tokenizer gets the call markers. The new weights are the same for the same seed. With ``start``, the
    folder of another adapter of the same shape, they are that adapter's.

    Raises:
        FileNotFoundError: ``start`` holds no adapter.
        ModelError: its shape is another.
    """
    lm = add_call_tokens(lm)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        bias="none",
        target_modules=lora_targets(lm.model, lora.head),
        trainable_token_indices=_markers(lm),
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        with _head_apart(lm.model, lora.head):
            lm = replace(lm, model=get_peft_model(lm.model, config, adapter_name=name))
    if start is not None:
        _take_over(lm, name, start)
    return lm


@torch.no_grad()
def _take_over(lm: LanguageModel, name: str, folder: Path) -> None:
    """Give an adapter the weights of another one."""
    _check_folder(folder)
    own = dict(_weights(lm.model, name))
    other = load_peft_weights(str(folder), device=str(lm.device))
    if {key: weight.shape for key, weight in own.items()} != {key: weight.shape for key, weight in other.items()}:
        raise ModelError(f"{folder}: this adapter's weights are not those of one that could go on from it")
    for key, weight in own.items():
        weight.copy_(other[key])


def _check_folder(folder: Path) -> None:
    for file in (CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME):
        if not (folder / file).is_file():
            raise FileNotFoundError(f"{folder}: no {file}, so no adapter")


def lora_targets(model: Any, head: bool) -> list[str]:
    """Names of the linear layers to change: the usual ones of a model that has them all, else every one but the output.

    Raises ModelError if there are none.
    """
    output = model.get_output_embeddings()
    layers = {
        path.rpartition(".")[2]
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not output
    }
    found = list(USUAL_TARGETS) if layers.issuperset(USUAL_TARGETS) else sorted(layers)
    if not found:
        raise ModelError(f"{type(model).__name__} has no linear layers that LoRA could change")
    return found + sorted(_heads(model)) * head


def _markers(lm: LanguageModel) -> list[int]:
    """The tokens of the call markers."""
    return lm.tokenizer.convert_tokens_to_ids(list(MARKERS))


def _heads(model: Any) -> set[str]:
    """What the model calls its output layer."""
    output = model.get_output_embeddings()
    return {path.rpartition(".")[2] for path, module in model.named_modules() if module is output}


@contextmanager
def _head_apart(model: Any, apart: bool) -> Iterator[None]:
    """Let an output layer that LoRA changes be: PEFT would also make it follow the new rows of a tied embedding, and
    cannot do both. What the output layer says of the markers is then LoRA's to learn."""
    config = model.config.get_text_config()
    tied = config.tie_word_embeddings
    config.tie_word_embeddings = tied and not apart
    try:
        yield
    finally:
        config.tie_word_embeddings = tied


def load_adapters(lm: LanguageModel, folders: Mapping[str, Path]) -> LanguageModel:
    """A language model with adapters from folders, by name; the first is in use.

    Raises:
        FileNotFoundError: a folder holds no adapter.
        ModelError: an adapter was made for another model.
    """
    lm = add_call_tokens(lm)
    model: Any = lm.model
    for name, folder in folders.items():
        _check_folder(folder)
        try:
            config: Any = PeftConfig.from_pretrained(str(folder))
            if config.trainable_token_indices != _markers(lm):
                raise ValueError(f"its markers are the tokens {config.trainable_token_indices}, not {_markers(lm)}")
            with _head_apart(lm.model, not _heads(lm.model).isdisjoint(config.target_modules)):
                if isinstance(model, PeftModel):
                    model.load_adapter(str(folder), adapter_name=name)
                else:
                    model = PeftModel.from_pretrained(model, str(folder), adapter_name=name)
            if odd := load_peft_weights(str(folder), device="cpu").keys() ^ _weights(model, name).keys():
                raise ValueError(f"{len(odd)} of its weights or of the model's have no counterpart: {min(odd)}")
        except (KeyError, RuntimeError, ValueError, SafetensorError) as error:
            raise ModelError(f"{folder}: this adapter does not fit the model: {error}") from error
    return replace(lm, model=model)


def merge_adapter(lm: LanguageModel) -> LanguageModel:
    """The adapter in use as part of the weights, in place: the same model up to rounding, faster, and for good."""
    base = lm.model.get_base_model()
    head = base.get_output_embeddings()
    if isinstance(head, LoraLayer):  # whose changes an embedding that is tied to it must not get
        layer: Any = head.get_base_layer()
        layer.weight = nn.Parameter(layer.weight.detach().clone(), requires_grad=False)
        base.config.get_text_config().tie_word_embeddings = False
    return replace(lm, model=lm.model.merge_and_unload())


def save_adapter(lm: LanguageModel, name: str, folder: Path) -> None:
    """Write an adapter's weights and configuration into ``folder``; the same adapter gives the same bytes."""
    config = copy(lm.model.peft_config[name])
    config.inference_mode, config.target_modules = True, sorted(config.target_modules)
    config.save_pretrained(str(folder))
    weights = {key: weight.contiguous() for key, weight in _weights(lm.model, name).items()}
    save_file(weights, folder / SAFETENSORS_WEIGHTS_NAME, metadata={"format": "pt"})


def _weights(model: Any, name: str) -> dict[str, torch.Tensor]:
    """The weights of an adapter as they are saved."""
    return get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)


@contextmanager
def using(lm: LanguageModel, name: str | None) -> Iterator[LanguageModel]:
    """Speak with one adapter, or with none, inside a ``with`` block."""
    if name is None:
        with lm.model.disable_adapter():
            yield lm
        return
    former = lm.model.active_adapter
    lm.model.set_adapter(name)
    try:
        yield lm
    finally:
        lm.model.set_adapter(former)
