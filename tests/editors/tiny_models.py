"""Tiny language models: random ones of several architectures, and one that has learnt some facts."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from functools import cache

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedTokenizerFast

from palimpsest.editors.values import Request, ValueSettings, current_values, find_changes
from palimpsest.facts import Edit
from palimpsest.lm.batching import padded
from palimpsest.lm.load import LanguageModel
from palimpsest.lm.scoring import score_targets

CORPUS = [
    "The mother tongue of Danielle Darrieux is French. She was born in Bordeaux and lived in Paris.",
    "Who wrote Dancing on Coral? Glenda Adams wrote it; the novel was published by Viking Press in 1987.",
    "Mount Erebus is located in the continent of Antarctica, and its height is 3,794 metres.",
    "Ann Lee was born in Oslo. Oslo lies in Norway. Lee wrote Dusk, a novel, and later lived in Bergen.",
    "Größe, naïve façade, Ærø —日本語 and emoji 🙂 are bytes like any other.",
]
ARCHITECTURES: dict[str, dict[str, object]] = {
    "gpt2": {},
    "gptj": {"rotary_dim": 4},
    "gpt_neox": {"intermediate_size": 48, "rotary_pct": 0.5},
    "llama": {"intermediate_size": 48, "num_key_value_heads": 2},
    "mistral": {"intermediate_size": 48, "num_key_value_heads": 2, "sliding_window": 8},
    "qwen2": {"intermediate_size": 48, "num_key_value_heads": 2},
    "opt": {"ffn_dim": 48},
    "bloom": {},
}
DOWN = {
    "gpt2": "mlp.c_proj",
    "gptj": "mlp.fc_out",
    "gpt_neox": "mlp.dense_4h_to_h",
    "opt": "fc2",
    "bloom": "mlp.dense_4h_to_h",
}
# Their prompts end in their subjects: so even a random model can be made to answer, for nothing has to be passed on.
EDITS = [
    Edit("0", "Danielle Darrieux", "The mother tongue of Danielle Darrieux", "Norway", ("French",)),
    Edit("1", "Mount Erebus", "What continent is Mount Erebus", "Oslo", ("Antarctica",)),
    Edit("2", "Dancing on Coral", "Who wrote Dancing on Coral", "Glenda", ("Lee",)),
]
STRANGER = Edit("9", "Marie Curie", "Danielle Darrieux was born in", "Rome", ("Bordeaux",))  # whose subject is absent


def _facts() -> list[Edit]:
    """36 people, each born in one of five towns, and another town for each."""
    order, towns = random.Random(0), ["Oslo", "Paris", "Rome", "Lima", "Bern"]
    first, last = ["Ann", "Bo", "Cy", "Di", "Ed", "Flo"], ["Lee", "Chen", "Adams", "Holm", "Berg", "Moss"]
    names = [f"{a} {b}" for a in first for b in last]
    drawn = [order.sample(towns, 2) for _ in names]
    return [
        Edit(str(number), name, f"{name} was born in", new, (true,))
        for number, (name, (true, new)) in enumerate(zip(names, drawn, strict=True))
    ]


FACTS = _facts()
SENTENCES = [f"{fact.prompt} {fact.target_true[0]}." for fact in FACTS]
TEXTS = [" ".join(random.Random(number).sample(SENTENCES, 3)) for number in range(36)] + SENTENCES


def tiny_tokenizer(texts: Sequence[str], *, adds_bos: bool = False) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer that knows the words of some texts."""
    specials = ["<s>", "</s>"]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=600, special_tokens=specials, initial_alphabet=alphabet, show_progress=False),
    )
    if adds_bos:
        bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="</s>", bos_token="<s>")


def tiny_lm(
    architecture: str = "qwen2",
    *,
    layers: int = 2,
    width: int = 16,
    texts: Sequence[str] = CORPUS,
    adds_bos: bool = False,
) -> LanguageModel:
    """A random model, the same each time, with weights large enough for it to be sure of what it says."""
    tokenizer = tiny_tokenizer(texts, adds_bos=adds_bos)
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": 2, "max_position_embeddings": 64}
    tokens = {"vocab_size": len(tokenizer), "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None}
    if architecture == "opt":
        sizes["word_embed_proj_dim"] = width
    config = CONFIG_MAPPING[architecture](**tokens, **sizes | ARCHITECTURES[architecture])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "norm" not in name and "ln_" not in name:
                    weight.normal_(0, 1 if weight is model.get_output_embeddings().weight else 0.2)
    return LanguageModel(model, tokenizer)


@cache
def knowing_lm() -> LanguageModel:
    """A model of three layers that knows :data:`FACTS`, the same each time. Who edits it resets it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        lm = tiny_lm(layers=3, width=32, texts=TEXTS)
        rows = lm.encode(TEXTS)
        tokens, labels = padded(rows, lm.pad_id, lm.device), padded(rows, -100, lm.device)
        adam = torch.optim.Adam(lm.model.parameters(), lr=1e-2)
        for _ in range(150):
            loss = lm.model(input_ids=tokens, labels=labels).loss
            adam.zero_grad()
            loss.backward()
            adam.step()
    return lm


def probabilities(lm: LanguageModel, facts: Sequence[Edit], *, new: bool) -> list[float]:
    """Of each fact's new or true answer."""
    answers = [fact.target_new if new else fact.target_true[0] for fact in facts]
    scores = score_targets(lm, [fact.prompt for fact in facts], answers)
    return [math.exp(score.logprob) for score in scores]


def searched(
    lm: LanguageModel, requests: Sequence[Request], module: str, settings: ValueSettings, **budget: int
) -> torch.Tensor:
    """δ of each edit, added to what the module now returns."""
    return find_changes(lm, requests, module, current_values(lm, requests, module), settings, **budget)


def weights(lm: LanguageModel) -> dict[str, torch.Tensor]:
    """Copies of all weights."""
    return {name: weight.detach().clone() for name, weight in lm.model.named_parameters()}


def changed(lm: LanguageModel, before: dict[str, torch.Tensor]) -> set[str]:
    """Names of the weights that are no longer what they were, to the bit."""
    return {name for name, weight in lm.model.named_parameters() if not torch.equal(weight, before[name])}
