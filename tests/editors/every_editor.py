"""Every editor, described as configuration describes it, and a tiny model that all of them can edit."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from copy import deepcopy
from functools import cache
from typing import Any

import tiny_memllm
import torch

from palimpsest.editors.editor import Editor
from palimpsest.editors.registry import build_editor
from palimpsest.larimar.examples import answer_examples
from palimpsest.larimar.model import Larimar
from palimpsest.lm.batching import padded
from palimpsest.lm.load import LanguageModel
from palimpsest.lm.tokenizer import train_tokenizer
from palimpsest.lm.train import Architecture
from palimpsest.memory import TripleMemory

CORPUS = [
    "The mother tongue of Danielle Darrieux is French. She was born in Bordeaux and lived in Paris.",
    "Who wrote Dancing on Coral? Glenda Adams wrote it; the novel was published by Viking Press in 1987.",
    "Mount Erebus is located in the continent of Antarctica, and its height is 3,794 metres.",
    "Ann Lee was born in Oslo. Oslo lies in Norway. Lee wrote Dusk, a novel, and later lived in Bergen.",
]
WORDS = " ".join(CORPUS).split()
SHUFFLED = [" ".join(random.Random(number).sample(WORDS, 20)) for number in range(60)]
HOME = "palimpsest.editors"
VALUES = {"prefixes": 1, "learning_rate": 0.05, "steps": 20, "clamp": 1000.0, "weight_decay": 0.0, "kl_weight": 0.0}


def described(module: str, name: str, settings: str, **values: Any) -> dict[str, Any]:
    """What the configuration would say of an editor."""
    return {
        "_target_": f"{HOME}.{module}.{name}",
        "settings": {"_target_": f"{HOME}.{module}.{settings}", **values},
    }


def larimar(addressing: str, **values: Any) -> dict[str, Any]:
    """The same of Larimar, which reads its memory for prompts alone that name an edit's subject."""
    scope = {"_target_": "palimpsest.larimar.scope.NamedSubject",
             "detector": {"_target_": "palimpsest.larimar.scope.Familiarity"}}  # fmt: skip
    described = {"_target_": f"palimpsest.larimar.{addressing}", **values}
    return {"_target_": f"{HOME}.larimar.LarimarEditor", "addressing": described, "scope": scope, "threshold": 0.6}


# One line a method: the contract tests run on all of them.
METHODS: dict[str, dict[str, Any]] = {
    "none": {"_target_": f"{HOME}.none.NoEdit"},
    "incontext": described("incontext", "InContext", "InContextSettings", facts=1, threshold=0.6),
    "ft": described("ft", "FineTuning", "FineTuningSettings", layer=1, learning_rate=0.01),
    "ft_l": described("ft", "FineTuning", "FineTuningSettings", layer=1, learning_rate=0.01, bound=0.03,
                      steps=10),
    "lora": described("lora", "LoraEditor", "LoraSettings", learning_rate=0.005),
    "grace": described("grace", "Grace", "GraceSettings", layer=1, radius=0.01, learning_rate=0.1,
                       steps=30),
    "wise": described("wise", "Wise", "WiseSettings", layer=1, alpha=0.1, beta=0.4, gamma=0.2, mask_ratio=0.5,
                      steps=40, prefixes=0, shard_edits=2),
    "rome": described("rome", "Rome", "RomeSettings", layer=0, **VALUES),
    "memit": described("memit", "Memit", "MemitSettings", layers=[0], covariance_weight=1e-6, **VALUES),
    "alphaedit": described("alphaedit", "AlphaEdit", "AlphaEditSettings", layers=[0], threshold=1e-4, ridge=1e-6,
                           **VALUES),
    "memllm": described("memllm", "MemLlmEditor", "MemLlmSettings"),
    "larimar_span": larimar("SpanAddressing", prior={"_target_": "torch.eye", "_args_": [32, 64]}),
    "larimar_features": larimar("FeatureAddressing", slots=64, key_size=64, seed=0),
    "larimar_nearest": larimar("NearestAddressing", slots=16, key_size=64),
}  # fmt: skip
LARIMAR = {name for name in METHODS if name.startswith("larimar_")}
# They leave prompts alone that have nothing to do with any edit.
MEMORIES = {"incontext", "grace", "wise", "memllm"} | LARIMAR
SENTENCE_STARTS = ["The mother tongue of Danielle Darrieux", "What continent is Mount Erebus", "Who wrote Dusk"]
IRRELEVANT = ["Glenda Adams was born in", "Oslo lies in", "The novel was published by", "Ann Lee wrote"]


class WordEncoder:
    """Sentence vectors by the words a text has; each word is a fixed random direction."""

    identity, dimension, model = "words", 64, torch.nn.Identity()

    def encode(self, texts: Sequence[str], /) -> torch.Tensor:
        vectors = [sum(self._direction(word) for word in text.rstrip(".?").split()) for text in texts]
        return torch.nn.functional.normalize(torch.stack(vectors), dim=1)

    def _direction(self, word: str) -> torch.Tensor:
        seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "little")
        return torch.randn(64, generator=torch.Generator().manual_seed(seed))


def copying_lm() -> LanguageModel:
    """A new model, the same each time, that already copies what it reads and is sure of what it says."""
    return deepcopy(_pattern())


@cache
def _pattern() -> LanguageModel:
    tokenizer = train_tokenizer(CORPUS, 600, 128)
    shape = {"layers": 3, "width": 96, "feedforward": 96, "heads": 2, "context_length": 128}
    model = Architecture(**shape).build(tokenizer, seed=0)
    with torch.no_grad():
        model.model.norm.weight.mul_(10)
    return LanguageModel(model, tokenizer)


def make(method: str, lm: LanguageModel) -> Editor:
    """An editor of a language model, with all that any method asks for at hand."""
    resources = {"lm": lm, "encoder": WordEncoder(), "corpus": SHUFFLED, "irrelevant": IRRELEVANT}
    if method == "memllm":
        resources |= {"memory": TripleMemory.open(":memory:", WordEncoder()), **tiny_memllm.taught(copying_lm)}
    if method in LARIMAR:
        resources["model"] = tiny_larimar(lm)
    return build_editor(METHODS[method], resources)


def tiny_larimar(lm: LanguageModel) -> Larimar:
    """Larimar around a model such as :func:`copying_lm`, which has learnt to say the town or language that it reads."""
    model = _untaught_larimar(lm)
    model.decoder.map.load_state_dict({"weight": _map_to_answers()})
    return model


def _untaught_larimar(lm: LanguageModel) -> Larimar:
    with torch.random.fork_rng():  # which draws weights before it sets them
        return Larimar(WordEncoder(), lm, slots=16, code=64)


@cache
def _map_to_answers() -> torch.Tensor:
    """Weights of a decoder's map, taught to give answers from codes of answers and of whole statements."""
    model, answers = _untaught_larimar(copying_lm()), ["Norway", "Viking Press", "Oslo", "French"]
    pairs = [(edited, answer) for edited in SENTENCE_STARTS for answer in answers]
    z = model.encode([*(answer for _, answer in pairs), *map(" ".join, pairs)])
    examples = 2 * answer_examples(model.lm, *zip(*pairs, strict=True))
    ids = padded([example.ids for example in examples], model.lm.pad_id, model.device)
    learnt = padded([list(map(int, example.learnt)) for example in examples], 0, model.device).bool()
    order = torch.Generator().manual_seed(0)
    adam = torch.optim.Adam([model.decoder.map.weight], lr=0.01)
    for _ in range(40):
        rows = torch.randint(len(z), (16,), generator=order)
        loss = model.decoder.losses(ids[rows], learnt[rows], z[rows]).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    return model.decoder.map.weight.detach()
