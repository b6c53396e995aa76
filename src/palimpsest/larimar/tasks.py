"""What Larimar is trained on, from prepared data: texts to say again, and answers to give to prompts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from palimpsest.data.prepared import PreparedData
from palimpsest.facts import Document, Edit
from palimpsest.larimar.examples import answer_examples, text_examples
from palimpsest.larimar.model import Larimar
from palimpsest.larimar.sources import Codes, Episodes, NoisyValues
from palimpsest.larimar.training import LANGUAGE, Task

Pair = tuple[str, str]
"""A prompt and the answer to it."""


def episode_task(
    model: Larimar, texts: Sequence[str], plain: Sequence[str], *, sizes: Sequence[int], max_tokens: int
) -> Task:
    """The published objective: texts are written in episodes, read back and said again (Larimar, section 3).

    Args:
        texts: chunks; ``plain`` are said without memory.
        sizes: of episodes.
        max_tokens: of a chunk, the rest is left out.
    """
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
    noise: tuple[float, float],
    max_tokens: int,
    language: float,
) -> Task:
    """For memories that keep keys and values apart: given a prompt and the noisy value of an answer, give the answer.

    Args:
        plain: texts that are said without memory, with weight ``language``.
        noise: see :class:`palimpsest.larimar.sources.NoisyValues`.
        max_tokens: of a plain text.
    """
    prompts, answers = zip(*pairs, strict=True)
    return Task(
        answer_examples(model.lm, prompts, answers),
        NoisyValues(Codes(model, answers), noise),
        text_examples(model.lm, plain, max_tokens=max_tokens),
        {LANGUAGE: language},
    )


def edit_pairs(edits: Iterable[Edit]) -> Iterator[Pair]:
    """Each edit's prompt with its new answer, and with its old one: which of the two is right, only a value tells."""
    for edit in edits:
        yield edit.prompt, edit.target_new
        yield from ((edit.prompt, answer) for answer in edit.target_true)


def mention_pairs(documents: Iterable[Document]) -> Iterator[Pair]:
    """Sentences up to the last name in them, and that name, where something stands before it."""
    for document in documents:
        text = document.text
        last = {mention.sentence: mention for _, mention in document.mentions()}
        for sentence, (start, _) in enumerate(document.sentence_spans()):
            if sentence in last:
                begin, _ = document.span(last[sentence])
                if prompt := text[start:begin].strip():
                    yield prompt, last[sentence].name


def chunks(prepared: PreparedData, split: str, count: int) -> list[str]:
    """The first texts of a split."""
    return list(islice(prepared.text(split), count))
