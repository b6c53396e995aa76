"""Prompts that ask for one fact, from which keys are learnt and by which they are judged.

What is learnt from has the forms of prompts of the training split alone. The paraphrases of an edit, of whatever split,
have the very wordings in which edits are judged: they are for judging.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from random import Random
from typing import NamedTuple

from palimpsest.facts import Edit
from palimpsest.rephrasing import Rephrasing


class Wordings(NamedTuple):
    """Prompts that ask for one fact: the one that is written, and others."""

    written: str
    others: tuple[str, ...]


def judged_wordings(edits: Iterable[Edit]) -> list[Wordings]:
    """The prompt and the paraphrases of each edit."""
    return [Wordings(edit.prompt, edit.paraphrases) for edit in edits]


def learnt_wordings(edits: Sequence[Edit], questions: Sequence[Edit], *, each: int, seed: int) -> Iterator[Wordings]:
    """Prompts for each fact that an edit or a question is about: its own, and forms that others of its relation have.

    Any of them may be the one that is written, so that questions and statements find one another.

    Args:
        edits, questions: of the training split, with their relations.
        each: how many forms of statements, and as many of questions, are drawn for a fact.
    """
    rephrasings = [Rephrasing(asked, each, seed) for asked in (edits, questions)]
    facts = {(fact.subject, fact.relation): fact for fact in (*questions, *edits)}
    for fact in facts.values():
        prompts = [fact.prompt, *(prompt for rephrase in rephrasings for prompt in rephrase(fact))]
        Random(f"{seed}/{fact.prompt}").shuffle(prompts)
        written, *others = prompts
        yield Wordings(written, tuple(others))
