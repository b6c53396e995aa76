"""What edits do to the rest of a language model: perplexity, distance from the unedited model, and fluency.

Everything is asked through the editor's interface: a text is a prompt, by which an editor may decide whether any of its
edits is meant, and a continuation, whose probability counts. The unedited model's share is measured once.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from palimpsest.editors.editor import Editor
from palimpsest.evaluation.editing import Row
from palimpsest.evaluation.statistics import Interval, ratio
from palimpsest.facts import Edit
from palimpsest.lm.load import LanguageModel
from palimpsest.lm.prompts import encode_targets
from palimpsest.lm.rows import Rows, continue_greedily
from palimpsest.lm.scoring import score_targets, token_losses

TOKEN = re.compile(r"\w+|[^\w\s]")
ENTROPIES = {2: 2 / 3, 3: 4 / 3}  # weight of the entropy of n-grams, by n
TOGETHER = 64  # prompts sampled from at a time
PERPLEXITY, DIVERGENCE, FLUENCY = "perplexity ratio", "divergence", "fluency"
BROKEN = 100.0  # nats a token of a model whose weights are no numbers any more


@dataclass(frozen=True)
class DriftTexts:
    """What drift is measured on: held-out texts cut in two, and how the unedited model goes on after the first half."""

    prompts: tuple[str, ...]
    held_out: tuple[str, ...]
    """How each text goes on."""
    sample_prompts: tuple[str, ...]
    samples: tuple[str, ...]
    sample_logprobs: tuple[tuple[float, ...], ...]
    """Of each token of each sample, by the unedited model."""


def drift_texts(lm: LanguageModel, texts: Sequence[str], *, sampled_tokens: int, seed: int) -> DriftTexts:
    """Cut held-out texts in the middle, and sample from the unedited model after their first halves.

    Args:
        lm: the model without any edit.
        texts: of at least two words; others are left out. Of one that fills more than three quarters of the model's
            context the beginning is taken, so that there is room for what is written after its first half.
        sampled_tokens: the length of a sample. It ends earlier before an end of text, and before what would be read as
            other tokens than were sampled, once it is text. What is empty then is left out.
    """
    halves = [_halves(text) for text in _beginnings(lm, texts) if len(text.split()) > 1]
    prompts = [first for first, _ in halves]
    drawn = _readable(lm, prompts, _sample(lm, prompts, sampled_tokens, seed))
    kept = [(prompt, text) for prompt, text in zip(prompts, drawn, strict=True) if text]
    scores = score_targets(lm, [prompt for prompt, _ in kept], [text for _, text in kept])
    return DriftTexts(
        prompts=tuple(prompts),
        held_out=tuple(second for _, second in halves),
        sample_prompts=tuple(prompt for prompt, _ in kept),
        samples=tuple(text for _, text in kept),
        sample_logprobs=tuple(score.token_logprobs for score in scores),
    )


def held_out_losses(editor: Editor, texts: DriftTexts) -> pd.DataFrame:
    """How well an editor with its edits predicts held-out text.

    Returns:
        A row a text: ``text`` (position), ``loss`` (nats, summed) and ``tokens``, of which
        :func:`palimpsest.evaluation.statistics.ratio` with ``transform=np.exp`` makes a perplexity.
    """
    scores = editor.score(texts.prompts, texts.held_out)
    rows = [(number, -score.logprob, len(score.token_ids)) for number, score in enumerate(scores)]
    return pd.DataFrame(rows, columns=["text", "loss", "tokens"])


def divergences(editor: Editor, texts: DriftTexts) -> pd.DataFrame:
    """KL(unedited ‖ edited), estimated from the samples.

    Each token's share is r − 1 − log r, with r = p_edited / p_unedited, which is never negative and has the mean of
    −log r over what the unedited model can say (Schulman 2020, "Approximating KL divergence").

    Returns:
        A row a sample: ``sample`` (position), ``kl`` (nats, summed) and ``tokens``.
    """
    scores = editor.score(texts.sample_prompts, texts.samples)
    rows = []
    for number, (score, before) in enumerate(zip(scores, texts.sample_logprobs, strict=True)):
        differences = [new - old for new, old in zip(score.token_logprobs, before, strict=True)]
        rows.append((number, sum(math.expm1(difference) - difference for difference in differences), len(differences)))
    return pd.DataFrame(rows, columns=["sample", "kl", "tokens"])


def perplexity_ratio(lm: LanguageModel, base: LanguageModel, texts: Sequence[str]) -> Interval:
    """Perplexity of texts as a multiple of another model's with the same tokens; texts are resampled."""
    losses, before = (token_losses(model, texts) for model in (lm, base))
    more = [float(one.losses.sum() - other.losses.sum()) for one, other in zip(losses, before, strict=True)]
    return ratio(more, [len(one.losses) for one in losses], np.exp)


@dataclass(frozen=True)
class Drift:
    """What an editor with edits has moved away from: itself without any."""

    texts: DriftTexts
    losses: pd.DataFrame
    """Of :func:`held_out_losses` before any edit."""

    @classmethod
    def of(cls, editor: Editor, texts: Sequence[str], *, sampled_tokens: int, seed: int) -> Drift:
        """Of an editor that has no edits now; see :func:`drift_texts`."""
        found = drift_texts(editor.lm, texts, sampled_tokens=sampled_tokens, seed=seed)
        return cls(found, held_out_losses(editor, found))

    def rows(self, editor: Editor, edits: Sequence[Edit], *, max_new_tokens: int) -> list[Row]:
        """How far the editor is now.

        Args:
            edits: after whose generation prompts fluency is measured.

        Returns:
            A row a text, sample or prompt: ``measure``, ``number`` (which of them), ``total`` and ``count``. Of
            :data:`PERPLEXITY` and :data:`DIVERGENCE` the totals are nats, and more nats than before any edit; the
            counts are tokens. Of :data:`FLUENCY` a total is the entropy, in bits, of one text.
        """
        more = held_out_losses(editor, self.texts)
        more["loss"] -= self.losses["loss"]
        found = divergences(editor, self.texts)
        texts = fluency(editor, edits, max_new_tokens=max_new_tokens)
        counted = [
            *((PERPLEXITY, *row) for row in more.itertuples(index=False, name=None)),
            *((DIVERGENCE, *row) for row in found.itertuples(index=False, name=None)),
            *((FLUENCY, number, row["entropy"], 1) for number, row in enumerate(texts)),
        ]
        return [
            {"measure": measure, "number": number, "total": total if math.isfinite(total) else BROKEN * count}
            | {"count": count}
            for measure, number, total, count in counted
        ]


def summarize_drift(rows: Sequence[Row]) -> pd.DataFrame:
    """Averages over texts.

    Returns:
        Columns ``measure``, ``value``, ``low``, ``high`` and ``n``: of :data:`PERPLEXITY` the ratio to that before any
        edit, of :data:`DIVERGENCE` nats a token, of :data:`FLUENCY` bits.
    """
    table: list[Row] = []
    for measure, group in pd.DataFrame(rows, columns=["measure", "number", "total", "count"]).groupby("measure"):
        sums = group.groupby("number")[["total", "count"]].sum()
        figure = ratio(sums["total"], sums["count"], np.exp if measure == PERPLEXITY else lambda value: value)
        table.append({"measure": measure, **asdict(figure)})
    return pd.DataFrame(table, columns=["measure", "value", "low", "high", "n"])


def fluency(editor: Editor, edits: Sequence[Edit], *, max_new_tokens: int = 100) -> list[Row]:
    """Entropy of what is written after the edits' generation prompts: text that repeats itself has little.

    ROME samples these texts; here they are greedy, as an editor's interface has it, so figures compare with one another
    and not with the paper's.

    Returns:
        A row a prompt: ``case_id``, ``number``, ``entropy`` (bits) and ``generated``.
    """
    asked = [(edit.case_id, number, text) for edit in edits for number, text in enumerate(edit.generation_prompts)]
    texts = editor.generate([prompt for *_, prompt in asked], max_new_tokens=max_new_tokens)
    return [
        {"case_id": case, "number": number, "entropy": ngram_entropy(prompt + text), "generated": text}
        for (case, number, prompt), text in zip(asked, texts, strict=True)
    ]


def ngram_entropy(text: str) -> float:
    """ROME's generation entropy, in bits: the mean of 2/3 of the bigrams' and 4/3 of the trigrams' entropy."""
    tokens = TOKEN.findall(text)
    weighted = []
    for n, weight in ENTROPIES.items():
        counts = Counter(zip(*(tokens[start:] for start in range(n)), strict=False))
        total = counts.total()
        weighted.append(-weight * sum(count / total * math.log2(count / total) for count in counts.values()))
    return sum(weighted) / len(weighted)


def _beginnings(lm: LanguageModel, texts: Sequence[str]) -> list[str]:
    """Each text, as far as it fills no more than three quarters of the model's context."""
    room = lm.context_length * 3 // 4
    encoded = zip(texts, lm.encode(texts), strict=True)
    return [text if len(ids) <= room else lm.decode([ids[:room]])[0] for text, ids in encoded]


def _halves(text: str) -> tuple[str, str]:
    words = text.split()
    middle = len(words) // 2
    return " ".join(words[:middle]), " ".join(words[middle:])


def _sample(lm: LanguageModel, prompts: Sequence[str], tokens: int, seed: int) -> list[list[int]]:
    """Tokens drawn from the model after each prompt, without an end of text."""
    generator = torch.Generator().manual_seed(seed)

    def draw(_: list[int], logits: Tensor) -> Tensor:
        probabilities = logits.float().softmax(1).cpu()
        return torch.multinomial(probabilities, 1, generator=generator)[:, 0].to(logits.device)

    samples: list[list[int]] = []
    end = {lm.eos_id} if lm.eos_id is not None else set()
    for start in range(0, len(prompts), TOGETHER):
        encoded = lm.encode_prompts(prompts[start : start + TOGETHER])
        rows = Rows(lm, len(encoded))
        last = torch.tensor([len(ids) for ids in encoded], device=lm.device).cumsum(0) - 1
        logits = rows.read(encoded)[last]
        drawn = continue_greedily(rows, logits, stop=end, max_new_tokens=tokens, choose=draw, keep=False)
        samples += [ids[:-1] if ids and ids[-1] in end else ids for ids in drawn]
    return samples


def _readable(lm: LanguageModel, prompts: Sequence[str], samples: Sequence[list[int]]) -> list[str]:
    """The longest beginning of each sample that is read, as text after its prompt, as the tokens that were drawn."""
    last = [ids[-1:] for ids in lm.encode_prompts(prompts)]
    heads = lm.decode(last)
    left, texts = list(samples), [""] * len(samples)
    going = [place for place, sample in enumerate(left) if sample]
    while going:
        whole = lm.decode([[*last[place], *left[place]] for place in going])
        for place, text in zip(going, whole, strict=True):
            texts[place] = text[len(heads[place]) :]
        going = [place for place in going if not _said(lm, prompts[place], texts[place], left[place])]
        for place in going:
            left[place], texts[place] = left[place][:-1], ""
        going = [place for place in going if left[place]]
    return texts


def _said(lm: LanguageModel, prompt: str, text: str, ids: list[int]) -> bool:
    return bool(text) and encode_targets(lm, [prompt], [text]) == [ids]
