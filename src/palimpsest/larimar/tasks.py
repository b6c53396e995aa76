"""What Larimar is trained on, from prepared data: texts to say again, and answers to give to prompts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice
from random import Random

from palimpsest.data.prepared import PreparedData
from palimpsest.facts import Edit
from palimpsest.larimar.examples import answer_examples, text_examples
from palimpsest.larimar.model import Larimar
from palimpsest.larimar.sources import Codes, Episodes, NoisyValues
from palimpsest.larimar.training import Task

Pair = tuple[str, str]
"""A prompt and the answer to it."""


def episode_task(
    model: Larimar, pairs: Sequence[Pair], plain: Sequence[str], *, sizes: Sequence[int], max_tokens: int
) -> Task:
    """The published objective: statements are written in episodes, read back and said again (Larimar, section 3).

    Args:
        pairs: what is stated, see :func:`statements`.
        plain: texts that are said without memory.
        sizes: of episodes.
        max_tokens: of a text, the rest is left out.
    """
    texts = statements(pairs)
    return Task(
        text_examples(model.lm, texts, max_tokens=max_tokens),
        Episodes(Codes(model, texts), tuple(sizes)),
        text_examples(model.lm, plain, max_tokens=max_tokens),
    )


def answer_task(
    model: Larimar,
    pairs: Sequence[Pair],
    plain: Sequence[str],
    *,
    noise: Sequence[float],
    scale: Sequence[float],
    max_tokens: int,
) -> Task:
    """For memories that keep keys and values apart: given a prompt and the noisy value of an answer, give the answer.

    Args:
        plain: texts that are said without memory; ``max_tokens`` of each.
        noise, scale: the least and the most, see :class:`palimpsest.larimar.sources.NoisyValues`.
    """
    prompts, answers = zip(*pairs, strict=True)
    (quiet, loud), (weak, whole) = noise, scale
    return Task(
        answer_examples(model.lm, prompts, answers),
        NoisyValues(Codes(model, answers), (quiet, loud), (weak, whole)),
        text_examples(model.lm, plain, max_tokens=max_tokens),
    )


def statements(pairs: Sequence[Pair]) -> list[str]:
    """Prompts with their answers, as sentences."""
    return [f"{prompt} {answer}." for prompt, answer in pairs]


def edit_pairs(edits: Sequence[Edit], others: int, seed: int) -> Iterator[Pair]:
    """Each edit's prompt with its new answer, its old ones, and ``others`` random answers to prompts of its relation:
    which of them is wanted, only a value tells."""
    answers: dict[str | None, dict[str, None]] = defaultdict(dict)
    for edit in edits:
        answers[edit.relation].update(dict.fromkeys([edit.target_new, *edit.target_true]))
    pools, rng = {relation: list(names) for relation, names in answers.items()}, Random(seed)
    for edit in edits:
        drawn = rng.choices(pools[edit.relation], k=others)
        yield from ((edit.prompt, answer) for answer in (edit.target_new, *edit.target_true, *drawn))


def chunks(prepared: PreparedData, split: str, count: int) -> list[str]:
    """The first texts of a split."""
    return list(islice(prepared.text(split), count))
