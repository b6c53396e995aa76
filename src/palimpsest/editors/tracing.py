"""Causal tracing: in which layer does a model look a fact up? (ROME, section 2)

Noise on the subject's embeddings makes the model forget the answer. Then a single state of the clean run is put back,
that of one layer at the subject's last token: what probability the answer regains is the state's *indirect effect*.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import pandas as pd
import torch
from torch import Tensor

from palimpsest.editors.subject import Located, locate_subjects
from palimpsest.editors.weights import find_blocks, hooked, put, take
from palimpsest.facts import Edit
from palimpsest.lm.batching import DEFAULT_TOKENS_PER_BATCH, tracked
from palimpsest.lm.load import LanguageModel
from palimpsest.lm.prompts import encode_targets, fit_context

KINDS = ("hidden", "mlp")
NOISE = 3.0  # standard deviations of the subjects' embeddings, as in the paper


@dataclass(frozen=True)
class _Patch:
    """A state to put back: what a block returns (``hidden``) or what its MLP does, in the layers of a window."""

    kind: str
    layer: int
    modules: tuple[str, ...]


def trace(
    lm: LanguageModel,
    facts: Sequence[Edit],
    *,
    samples: int = 10,
    window: int = 1,
    noise: float = NOISE,
    seed: int = 0,
    max_tokens_per_batch: int = DEFAULT_TOKENS_PER_BATCH,
    progress: bool = False,
) -> pd.DataFrame:
    """Indirect effects of every layer's hidden state and MLP output at the subject's last token.

    The probability is that of the first of ``target_true``, all its tokens; facts should be such as the model knows.
    The clean run, the noised runs and all that are patched are rows of the same batches.

    Args:
        samples: noised runs a fact, whose probabilities are averaged.
        window: how many layers' MLP outputs are put back together, around the one in question (10 of 48 in the paper).
        noise: its standard deviation, in those of the embeddings of all the facts' subjects.
        seed: of the noise, which is the same for all layers.

    Returns:
        A row for each fact, kind (``hidden``, ``mlp``) and layer: ``case_id``, ``subject``, ``kind``, ``layer``, the
        probabilities ``clean``, ``noised`` and ``restored``, ``total_effect`` (clean − noised) and ``indirect_effect``
        (restored − noised).

    Raises:
        ValueError: a prompt does not name its subject, or prompt and answer do not fit the context; names the case.
    """
    prompts = [_locate(lm, fact) for fact in facts]
    if not prompts:
        raise ValueError("there is no fact to trace")
    patches = _patches(lm, window)
    scale = noise * _spread(lm, [located for located, _ in prompts])
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for [number] in tracked([[number] for number in range(len(facts))], "tracing", progress):
        located, answer = prompts[number]
        width = lm.model.get_input_embeddings().weight.shape[1]
        shape = (samples, located.last + 1 - located.first, width)
        sample = scale * torch.randn(shape, generator=generator)
        clean, noised, restored = _run(lm, located, answer, sample.to(lm.device), patches, max_tokens_per_batch)
        for patch, value in zip(patches, restored, strict=True):
            effects = {"total_effect": clean - noised, "indirect_effect": value - noised}
            about = {"case_id": facts[number].case_id, "subject": facts[number].subject}
            place = {"kind": patch.kind, "layer": patch.layer}
            rows.append(about | place | {"clean": clean, "noised": noised, "restored": value} | effects)
    return pd.DataFrame(rows)


def _locate(lm: LanguageModel, fact: Edit) -> tuple[Located, list[int]]:
    """Prompt and answer as tokens."""
    try:
        [located] = locate_subjects(lm, [fact.prompt], [fact.subject])
        [answer] = encode_targets(lm, [fact.prompt], fact.target_true[:1])
        fit_context(lm, located.ids, len(answer), 0, "error")
    except ValueError as error:
        raise ValueError(f"case {fact.case_id}: {error}") from error
    return located, answer


def _patches(lm: LanguageModel, window: int) -> list[_Patch]:
    """What is put back in turn. The down projection's output stands for the MLP's, which not all architectures show."""
    blocks = find_blocks(lm.model)
    patches = [_Patch("hidden", layer, (block.name,)) for layer, block in enumerate(blocks)]
    for layer in range(len(blocks)):
        first = max(0, layer - (window - 1) // 2)
        near = blocks[first : layer + window // 2 + 1]
        patches.append(_Patch("mlp", layer, tuple(block.down_name for block in near)))
    return patches


def _spread(lm: LanguageModel, prompts: Iterable[Located]) -> float:
    """Standard deviation of the embeddings of all subjects' tokens."""
    subjects = [token for prompt in prompts for token in prompt.ids[prompt.first : prompt.last + 1]]
    with torch.no_grad():
        embedded = lm.model.get_input_embeddings()(torch.tensor(subjects, device=lm.device))
    return embedded.float().std().item()


def _run(
    lm: LanguageModel, prompt: Located, answer: Sequence[int], noise: Tensor, patches: Sequence[_Patch], max_tokens: int
) -> tuple[float, float, list[float]]:
    """Probabilities of the answer: clean, noised, and noised with each patch.

    Args:
        noise: (samples, tokens of the subject, width).
    """
    samples = len(noise)
    row = torch.tensor([*prompt.ids, *answer[:-1]], device=lm.device)
    at_once = max(1, (max_tokens // len(row) - 1 - samples) // samples)
    clean = noised = 0.0
    restored: list[float] = []
    for start in range(0, len(patches), at_once):
        part = patches[start : start + at_once]
        found = _answers(lm, prompt, row, torch.tensor(answer, device=lm.device), noise, part)
        clean, noised = found[0].item(), found[1 : samples + 1].mean().item()
        restored += found[samples + 1 :].view(len(part), samples).mean(1).tolist()
    return clean, noised, restored


@torch.no_grad()
def _answers(
    lm: LanguageModel, prompt: Located, row: Tensor, answer: Tensor, noise: Tensor, patches: Sequence[_Patch]
) -> Tensor:
    """The answer's probability in each row of a batch: one clean row, then the noised samples without patch, then with
    each patch (1 + samples · (1 + patches))."""
    samples, length = len(noise), len(row)
    tokens = row.expand(1 + samples * (1 + len(patches)), -1)
    last = torch.arange(len(tokens), device=lm.device) * length + prompt.last  # the subject's last token in each row
    subject = slice(prompt.first, prompt.last + 1)
    patched: dict[str, list[int]] = {}
    for number, patch in enumerate(patches):
        first = 1 + samples * (1 + number)
        for module in patch.modules:
            patched.setdefault(module, []).extend(range(first, first + samples))

    def corrupt(embedded: Tensor) -> Tensor:
        embedded = embedded.clone()
        embedded[1:, subject] += noise.repeat(1 + len(patches), 1, 1).to(embedded.dtype)
        return embedded

    def restore(rows: Tensor, state: Tensor) -> Tensor:
        return put(state, last[rows], take(state, last[:1]).expand(len(rows), -1))

    with ExitStack() as hooks:
        embeddings = lm.model.get_input_embeddings()
        name = next(name for name, module in lm.model.named_modules() if module is embeddings)
        hooks.enter_context(hooked(lm.model, name, corrupt))
        for module, rows in patched.items():
            hooks.enter_context(hooked(lm.model, module, partial(restore, torch.tensor(rows, device=lm.device))))
        logits = lm.model(input_ids=tokens, use_cache=False, logits_to_keep=len(answer)).logits
    logprobs = logits[:, -len(answer) :].float().log_softmax(-1)
    return logprobs.gather(2, answer.expand(len(tokens), -1)[..., None]).sum((1, 2)).exp()
