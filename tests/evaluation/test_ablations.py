"""Noise on reads, and what is said of other text, with tiny models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from fake_editors import Notebook

from palimpsest.editors.larimar import LarimarEditor
from palimpsest.editors.none import NoEdit
from palimpsest.evaluation.ablations import ENTROPY, PERPLEXITY, Beside, NoisyReads
from palimpsest.evaluation.drift import held_out_losses, ngram_entropy
from palimpsest.facts import Edit
from palimpsest.larimar.addressing import FeatureAddressing
from palimpsest.larimar.model import Larimar
from palimpsest.lm.encoder import SentenceEncoder
from palimpsest.lm.load import LanguageModel
from palimpsest.lm.scoring import TargetScore
from palimpsest.lm.tokenizer import train_tokenizer
from palimpsest.lm.train import Architecture

TEXTS = ["Ann Lee was born in Oslo", "Oslo lies in Norway", "Glenda Adams wrote Dancing on Coral in 1987"]
EDITS = [Edit(str(n), f"S{n}", f"Who is S{n}?", f"name{n}", ("nobody",)) for n in range(6)]


@pytest.fixture(scope="module")
def tiny() -> LanguageModel:
    tokenizer = train_tokenizer(TEXTS, 300, 64)
    shape = Architecture(layers=1, width=16, feedforward=16, heads=2, context_length=64, induction=False)
    return LanguageModel(shape.build(tokenizer, seed=0), tokenizer)


@pytest.fixture(scope="module")
def model(tiny: LanguageModel) -> Larimar:
    return Larimar(SentenceEncoder.load(), tiny, slots=8, code=384).requires_grad_(False)


def features() -> FeatureAddressing:
    return FeatureAddressing(64, 384, seed=0)


def test_noise_is_on_the_weights_in_multiples_of_their_size(model: Larimar) -> None:
    prompts = [edit.prompt for edit in EDITS] * 2
    plain = LarimarEditor(model, addressing=features())
    plain.apply(EDITS)
    expected = plain.read(prompts)
    readings = {}
    for noise in (0.0, 0.5, 2.0):
        editor = NoisyReads(model, addressing=features(), noise=noise, seed=1)
        editor.apply(EDITS)
        assert editor.read([]) == []
        readings[noise] = editor.read(prompts)
        assert [reading.prompt for reading in readings[noise]] == prompts
    for quiet, loud, louder, wanted in zip(*readings.values(), expected, strict=True):
        torch.testing.assert_close(quiet.z, wanted.z)
        torch.testing.assert_close(louder.z - quiet.z, 4 * (loud.z - quiet.z), rtol=1e-3, atol=1e-4)  # the same draws
    memory = plain.memory.memory
    weights = memory.read_weights(model.encode(prompts[:6]))
    again = NoisyReads(model, addressing=features(), noise=1.0, seed=1)
    again.apply(EDITS)
    drawn = torch.randn(weights.shape, generator=torch.Generator().manual_seed(1))
    disturbed = weights + drawn * weights.square().mean().sqrt()
    for reading, row in zip(again.read(prompts[:6]), disturbed, strict=True):
        torch.testing.assert_close(reading.z, (row @ memory.addressing.contents(memory._state)).float())


class Mumbling(Notebook):
    """Gives each token of a text a tenth of a nat less for each edit, and goes on with the number of edits."""

    scope = None

    def __init__(self, before: Sequence[TargetScore]) -> None:
        super().__init__({})
        self.before = before

    def score(self, prompts: Sequence[str], targets: Sequence[str]) -> list[TargetScore]:
        less = 0.1 * len(self.told)
        return [
            TargetScore(one.token_ids, tuple(logprob - less for logprob in one.token_logprobs), one.greedy)
            for one in self.before
        ]

    def generate(self, prompts: Sequence[str], *, max_new_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        self.prompts += prompts
        return ["a b a b"[: 1 + 2 * len(self.told)] for _ in prompts]


def test_perplexity_and_entropy_beside_growing_memories(tiny: LanguageModel) -> None:
    beside = Beside.of(tiny, TEXTS, generated=2, max_new_tokens=4)
    assert beside.losses.equals(held_out_losses(NoEdit(tiny), beside.texts))
    by_itself = {row["measure"]: row for row in beside.rows(NoEdit(tiny))}
    assert [by_itself[PERPLEXITY][name] for name in ("value", "low", "high")] == [1, 1, 1]
    assert by_itself[PERPLEXITY]["n"] == beside.losses["tokens"].sum()
    assert by_itself[ENTROPY]["n"] == 2
    editor: Any = Mumbling(NoEdit(tiny).score(beside.texts.prompts, beside.texts.held_out))
    table = beside.by_number(editor, EDITS, [0, 1, 3]).set_index(["measure", "written"])["value"]
    assert table[PERPLEXITY].to_numpy() == pytest.approx(np.exp([0, 0.1, 0.3]))
    assert table[ENTROPY].to_numpy() == pytest.approx([0, ngram_entropy("a b"), ngram_entropy("a b a b")])
    assert editor.prompts == [*beside.texts.prompts[:2]] * 3
    assert editor.told == {}


class Detecting(Mumbling):
    """Notes the threshold of its detector whenever it is asked."""

    scope, threshold = "a detector", 0.0

    def score(self, prompts: Sequence[str], targets: Sequence[str]) -> list[TargetScore]:
        self.calls.append((str(self.threshold), []))
        return super().score(prompts, targets)


def test_at_each_number_the_threshold_is_the_one_for_it(tiny: LanguageModel) -> None:
    beside = Beside.of(tiny, TEXTS, generated=1, max_new_tokens=2)
    editor: Any = Detecting(NoEdit(tiny).score(beside.texts.prompts, beside.texts.held_out))
    beside.by_number(editor, EDITS, [1, 2], {1: 0.1, 2: 0.2})
    assert [name for name, _ in editor.calls if name not in ("apply", "reset")] == ["0.1", "0.2"]
