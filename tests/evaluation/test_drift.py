"""Drift and fluency, by hand and on a tiny model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from palimpsest.editors.editor import Editor
from palimpsest.editors.none import NoEdit
from palimpsest.evaluation.drift import (
    BROKEN,
    DIVERGENCE,
    FLUENCY,
    PERPLEXITY,
    Drift,
    DriftTexts,
    divergences,
    drift_texts,
    fluency,
    held_out_losses,
    ngram_entropy,
    perplexity_ratio,
    summarize_drift,
)
from palimpsest.evaluation.statistics import ratio
from palimpsest.facts import Edit
from palimpsest.lm.load import LanguageModel
from palimpsest.lm.prompts import encode_targets
from palimpsest.lm.scoring import TargetScore, score_targets, token_losses
from palimpsest.lm.tokenizer import train_tokenizer
from palimpsest.lm.train import Architecture

TEXTS = ["Ann Lee was born in Oslo", "Oslo lies in Norway", "alone", "Glenda Adams wrote Dancing on Coral in 1987"]


@pytest.fixture(scope="module")
def tiny() -> LanguageModel:
    tokenizer = train_tokenizer(TEXTS, 300, 64)
    model = Architecture(layers=2, width=32, feedforward=32, heads=2, context_length=64).build(tokenizer, seed=0)
    with torch.no_grad():
        model.model.norm.weight.mul_(20)
    return LanguageModel(model, tokenizer)


def test_ngram_entropy_by_hand() -> None:
    # a b, b a, a b: frequencies 2/3 and 1/3. a b a, b a b: one bit.
    bigrams = -(2 / 3) * math.log2(2 / 3) - (1 / 3) * math.log2(1 / 3)
    assert ngram_entropy("a b a b") == pytest.approx((2 / 3 * bigrams + 4 / 3 * 1.0) / 2)
    assert ngram_entropy("a, b") == pytest.approx((2 / 3 * 1.0 + 4 / 3 * 0.0) / 2)  # a comma is a token
    assert ngram_entropy("word word word word") == ngram_entropy("word") == ngram_entropy("") == 0


class Constant(Editor):
    """Gives every token the same log-probability, by its target."""

    def __init__(self, logprobs: dict[str, tuple[float, ...]]) -> None:
        super().__init__(SimpleNamespace())  # type: ignore[arg-type]
        self.logprobs = logprobs

    def apply(self, edits: Sequence[Edit]) -> None:
        pass

    def reset(self) -> None:
        pass

    def score(self, prompts: Sequence[str], targets: Sequence[str]) -> list[TargetScore]:
        return [
            TargetScore((0,) * len(found), found, (True,) * len(found)) for found in map(self.logprobs.get, targets)
        ]

    def generate(self, prompts: Sequence[str], *, max_new_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        return [" a b a b"[: 2 * max_new_tokens] for _ in prompts]


def test_drift_by_hand() -> None:
    texts = DriftTexts(("p", "q"), ("held", "out"), ("p", "q"), ("s", "t"), ((-1.0, -2.0), (-0.5,)))
    editor = Constant({"held": (-1.0, -3.0), "out": (-2.0,), "s": (-1.0, -2.5), "t": (-0.1,)})
    losses, kl = held_out_losses(editor, texts), divergences(editor, texts)
    assert losses.to_numpy().tolist() == [[0, 4.0, 2], [1, 2.0, 1]]
    assert kl["tokens"].tolist() == [2, 1]
    assert kl["kl"].tolist() == pytest.approx([math.exp(-0.5) - 1 + 0.5, math.exp(0.4) - 1 - 0.4])
    assert ratio(losses["loss"], losses["tokens"], np.exp).value == pytest.approx(math.exp(2.0))


def test_the_unedited_model_has_not_drifted(tiny: LanguageModel) -> None:
    texts = drift_texts(tiny, TEXTS * 5, sampled_tokens=6, seed=0)
    assert texts.prompts[:3] == ("Ann Lee was", "Oslo lies", "Glenda Adams wrote Dancing")
    assert texts.held_out[:3] == ("born in Oslo", "in Norway", "on Coral in 1987")
    assert texts == drift_texts(tiny, TEXTS * 5, sampled_tokens=6, seed=0)
    assert texts.samples != drift_texts(tiny, TEXTS * 5, sampled_tokens=6, seed=1).samples
    assert divergences(NoEdit(tiny), texts)["kl"].max() == pytest.approx(0, abs=1e-6)
    expected = [-score.logprob for score in score_targets(tiny, texts.prompts, texts.held_out)]
    assert held_out_losses(NoEdit(tiny), texts)["loss"].tolist() == pytest.approx(expected, rel=1e-4)


def test_samples_are_read_as_the_tokens_that_were_drawn(tiny: LanguageModel) -> None:
    texts = drift_texts(tiny, TEXTS * 20, sampled_tokens=6, seed=0)
    lengths = [len(logprobs) for logprobs in texts.sample_logprobs]
    assert 6 in lengths
    assert min(lengths) < 6  # a random model says what no text is split into
    assert all(texts.samples)
    assert set(texts.sample_prompts) <= set(texts.prompts)


@torch.no_grad()
def test_the_estimate_is_the_divergence(tiny: LanguageModel) -> None:
    """Of the next token, against the sum over all tokens that can be read as such."""
    prompt, norm = "Oslo lies", tiny.model.model.norm.weight
    ids, kept = torch.tensor(tiny.encode_prompts([prompt])), norm.detach().clone()
    texts = drift_texts(tiny, [f"{prompt} in Norway"] * 2000, sampled_tokens=1, seed=0)
    before = tiny.model(input_ids=ids).logits[0, -1].log_softmax(0)
    norm.mul_(0.8)
    after = tiny.model(input_ids=ids).logits[0, -1].log_softmax(0)
    estimate = divergences(NoEdit(tiny), texts)["kl"].mean()
    norm.copy_(kept)
    pieces = {token: tiny.tokenizer.decode([token]) for token in range(len(tiny.tokenizer))}
    usual = [t for t, text in pieces.items() if text and encode_targets(tiny, [prompt], [text]) == [[t]]]
    weights = (before.exp() / before[usual].exp().sum())[usual]
    difference = (after - before)[usual]
    assert estimate == pytest.approx((weights * (difference.expm1() - difference)).sum().item(), rel=0.15)
    assert estimate > 0.01


def test_fluency_of_what_is_written_after_the_generation_prompts() -> None:
    edit = Edit("3", "S", "S is", "new", (), generation_prompts=("a b", "c"))
    rows = fluency(Constant({}), [edit, Edit("4", "T", "T is", "new", ())], max_new_tokens=4)
    assert [(row["case_id"], row["number"], row["generated"]) for row in rows] == [
        ("3", 0, " a b a b"),
        ("3", 1, " a b a b"),
    ]
    assert rows[0]["entropy"] == ngram_entropy("a b a b a b")


def test_the_ratio_of_perplexities(tiny: LanguageModel) -> None:
    same = perplexity_ratio(tiny, tiny, TEXTS)
    assert (same.value, same.low, same.high, same.n) == (1.0, 1.0, 1.0, sum(map(len, tiny.encode(TEXTS))))
    shape = Architecture(layers=2, width=32, feedforward=32, heads=2, context_length=64)
    other = LanguageModel(shape.build(tiny.tokenizer, seed=1), tiny.tokenizer)
    losses = [sum(loss.losses.sum() for loss in token_losses(lm, TEXTS)) for lm in (other, tiny)]
    assert perplexity_ratio(other, tiny, TEXTS).value == pytest.approx(math.exp((losses[0] - losses[1]) / same.n))
    assert perplexity_ratio(other, tiny, TEXTS).value < 1  # the loud one is the worse


def test_how_far_an_editor_has_moved_from_itself(tiny: LanguageModel) -> None:
    """Before an edit not at all; weights changed by hand are told as by the functions for one measure."""
    editor, edit = NoEdit(tiny), Edit("0", "Oslo", "Oslo is", "big", (), generation_prompts=("Oslo lies", "Ann Lee"))
    drift = Drift.of(editor, TEXTS * 5, sampled_tokens=6, seed=0)
    still = summarize_drift(drift.rows(editor, [edit], max_new_tokens=3)).set_index("measure")
    assert still.loc[PERPLEXITY, "value"] == pytest.approx(1, abs=1e-6)
    assert still.loc[DIVERGENCE, "value"] == pytest.approx(0, abs=1e-6)
    assert still.loc[FLUENCY, "n"] == 2
    norm = tiny.model.model.norm.weight
    kept = norm.detach().clone()
    with torch.no_grad():
        norm.mul_(0.5)
        moved = summarize_drift(drift.rows(editor, [edit], max_new_tokens=3)).set_index("measure")
        losses, kl = held_out_losses(editor, drift.texts), divergences(editor, drift.texts)
        norm.copy_(kept)
    more = (losses["loss"] - drift.losses["loss"]).sum() / losses["tokens"].sum()
    assert moved.loc[PERPLEXITY, "value"] == pytest.approx(math.exp(more))
    assert moved.loc[DIVERGENCE, "value"] == pytest.approx(kl["kl"].sum() / kl["tokens"].sum())


def test_a_model_that_gives_no_numbers_counts_as_far_away() -> None:
    texts = DriftTexts(("p",), ("held",), ("p",), ("s",), ((-1.0, -2.0),))
    before = Constant({"held": (-1.0, -3.0), "s": (-1.0, -2.0)})
    drift = Drift(texts, held_out_losses(before, texts))
    after = Constant({"held": (math.nan, math.nan), "s": (math.nan, -2.0)})
    found = {row["measure"]: row["total"] for row in drift.rows(after, [], max_new_tokens=1)}
    assert found == {PERPLEXITY: 2 * BROKEN, DIVERGENCE: 2 * BROKEN}


def test_of_a_text_that_does_not_fit_the_beginning_is_taken(tiny: LanguageModel) -> None:
    long = "It was born in Oslo and lived in Paris. " * tiny.context_length
    halves = drift_texts(tiny, [long], sampled_tokens=0, seed=0)
    assert long.startswith(halves.prompts[0])
    losses = held_out_losses(NoEdit(tiny), halves)  # which would raise if it did not fit
    assert 0.5 * tiny.context_length < 2 * losses["tokens"].iloc[0] < tiny.context_length
