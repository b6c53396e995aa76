"""Other facts about the subject of an edit: what it must leave alone, and what it is likeliest to spoil."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

from palimpsest.facts import Edit, Probe

SAME_SUBJECT = "same subject"
"""The kind of a question about another fact of an edit's subject."""


def with_same_subject(edits: Iterable[Edit], facts: Iterable[Edit], limit: int = 2) -> list[Edit]:
    """The edits that have other facts about their own subjects, with these in the place of their neighbours.

    Harder than neighbours, whose prompts never name the edit's subject.

    Args:
        facts: true ones (``target_true``), of which those of other relations are taken, at most ``limit`` an edit.
    """
    return [replace(edit, neighbors=probes_of(others)) for edit, others in other_facts(edits, facts, limit) if others]


def other_facts(edits: Iterable[Edit], facts: Iterable[Edit], limit: int = 2) -> list[tuple[Edit, list[Edit]]]:
    """For each edit the facts of other relations about its subject, at most ``limit`` of those with a true answer."""
    about: dict[str, list[Edit]] = defaultdict(list)
    for fact in facts:
        if fact.target_true:
            about[fact.subject].append(fact)
    return [
        (edit, [fact for fact in about.get(edit.subject, ()) if fact.relation != edit.relation][:limit])
        for edit in edits
    ]


def probes_of(facts: Iterable[Edit]) -> tuple[Probe, ...]:
    """Questions about facts that should stay as they are."""
    return tuple(Probe(fact.prompt, fact.target_true[0]) for fact in facts)
