"""How much batching gains: scoring and generation in batches of 64 against one prompt at a time, on the same machine.

``python benchmarks/scoring.py [--out bench.json]`` prints (and writes) a flat JSON map from names to numbers.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from palimpsest.lm.generation import generate_greedy
from palimpsest.lm.load import LanguageModel
from palimpsest.lm.scoring import score_targets

BATCH = 64
VOCABULARY = 4096
PROMPT_WORDS = (4, 16)  # fewest and most tokens of a prompt: 95 % of the world's and of CounterFact's have so many
NEW_TOKENS = 8


def random_lm(seed: int = 0) -> LanguageModel:
    """The LM of the laptop scale with random weights: a 4-layer, 256-wide Llama, a word a token."""
    torch.manual_seed(seed)
    words = {word: place for place, word in enumerate(["<s>", "</s>"] + [f"w{i}" for i in range(VOCABULARY - 2)])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="</s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.Fuse()
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        bos_token_id=0,
        eos_token_id=1,
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    return LanguageModel(AutoModelForCausalLM.from_config(config), fast, add_bos=True)


def random_requests(count: int, targets: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """``count`` prompts of mixed length, each asked with ``targets`` targets of one to three tokens."""
    draw = random.Random(seed)

    def phrase(low: int, high: int) -> str:
        return " ".join(f"w{draw.randrange(VOCABULARY - 2)}" for _ in range(draw.randint(low, high)))

    prompts = [phrase(*PROMPT_WORDS) for _ in range(count)]
    return [p for p in prompts for _ in range(targets)], [phrase(1, 3) for _ in range(count * targets)]


@torch.no_grad()
def score_one_at_a_time(lm: LanguageModel, prompts: list[str], targets: list[str]) -> list[float]:
    """What most editing code does: one text through the model at a time, the logits of all its positions."""
    scores = []
    for prompt, target in zip(prompts, targets, strict=True):
        context = [0, *lm.tokenizer(prompt, add_special_tokens=False).input_ids]
        ids = context + lm.tokenizer(" " + target, add_special_tokens=False).input_ids
        logprobs = lm.model(input_ids=torch.tensor([ids], device=lm.device)).logits[0].float().log_softmax(-1)
        places = range(len(context), len(ids))
        scores.append(sum(logprobs[place - 1, ids[place]].item() for place in places))
    return scores


@torch.no_grad()
def generate_with_transformers(lm: LanguageModel, prompts: list[str], batch: int) -> list[str]:
    """``model.generate`` on left-padded batches in the order given."""
    texts = []
    for first in range(0, len(prompts), batch):
        encoded = lm.encode_prompts(prompts[first : first + batch])
        inputs = lm.tokenizer.pad({"input_ids": encoded}, padding_side="left", return_tensors="pt").to(lm.device)
        output = lm.model.generate(
            **inputs, max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=lm.pad_id, eos_token_id=lm.eos_id
        )
        texts += lm.tokenizer.batch_decode(output[:, inputs.input_ids.shape[1] :], skip_special_tokens=True)
    return texts


def compare(slow: Callable[[], object], fast: Callable[[], object], repetitions: int) -> list[float]:
    """Time ratios slow / fast of alternating repetitions, after a warm-up of the fast one."""
    fast()
    ratios = []
    for _ in range(repetitions):
        started = time.perf_counter()
        slow()
        halfway = time.perf_counter()
        fast()
        ratios.append((halfway - started) / (time.perf_counter() - halfway))
    return ratios


def run(device: str = "cpu", prompts: int = 512, repetitions: int = 5) -> dict[str, float]:
    """Measure; ``.low`` and ``.high`` are the smallest and largest ratio of the repetitions, the name their median.

    - ``bench.scoring.speedup_batch64``: distinct prompts with one target each, against one at a time.
    - ``bench.scoring.speedup_batch64_shared``: an eighth as many prompts with two targets each (new and old answer, as
      edits are scored), against one at a time.
    - ``bench.generation.speedup_batch64``: an eighth of the prompts, against ``model.generate`` on one at a time.
    - ``bench.generation.speedup_over_transformers``: a quarter, against ``model.generate`` in batches of the same size.
    """
    lm = random_lm()
    lm.tokenizer.pad_token = lm.tokenizer.eos_token
    lm.model.to(device)
    budget = BATCH * (PROMPT_WORDS[1] + 4)
    single, shared = random_requests(prompts, targets=1), random_requests(prompts // 8, targets=2)
    some, few = single[0][: prompts // 4], single[0][: prompts // 8]
    generate = partial(
        generate_greedy,
        lm,
        max_new_tokens=NEW_TOKENS,
        max_tokens_per_batch=BATCH * (PROMPT_WORDS[1] + 1 + NEW_TOKENS),
    )
    measured = {
        "bench.scoring.speedup_batch64": compare(
            partial(score_one_at_a_time, lm, *single),
            partial(score_targets, lm, *single, max_tokens_per_batch=budget),
            repetitions,
        ),
        "bench.scoring.speedup_batch64_shared": compare(
            partial(score_one_at_a_time, lm, *shared),
            partial(score_targets, lm, *shared, max_tokens_per_batch=budget),
            repetitions,
        ),
        "bench.generation.speedup_batch64": compare(
            partial(generate_with_transformers, lm, few, 1), partial(generate, few), repetitions
        ),
        "bench.generation.speedup_over_transformers": compare(
            partial(generate_with_transformers, lm, some, BATCH), partial(generate, some), repetitions
        ),
    }
    figures: dict[str, float] = {}
    for name, ratios in measured.items():
        figures |= {
            name: statistics.median(ratios),
            f"{name}.low": min(ratios),
            f"{name}.high": max(ratios),
            f"{name}.n": float(len(ratios)),
        }
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="also write the figures to this file")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    figures = json.dumps(run(options.device), indent=2) + "\n"
    print(figures, end="")
    if options.out:
        options.out.write_text(figures, encoding="utf-8")


if __name__ == "__main__":
    main()
