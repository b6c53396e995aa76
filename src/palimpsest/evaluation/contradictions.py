"""What is left of an edit that a later one contradicts: the later answer should win, however either is asked for.

First all edits are made, one after the other, then for each a second one that gives the same fact another answer: in
the same words, or in other words (the first paraphrase), by which an editor may not recognise it as the same fact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from random import Random

import pandas as pd

from palimpsest.editors.editor import Editor
from palimpsest.evaluation.editing import Probing, Question, Row, greedy_answers
from palimpsest.evaluation.recall import begins_with
from palimpsest.evaluation.statistics import share
from palimpsest.facts import Edit

SAME, OTHER = "in the same words", "in other words"
LATER, EARLIER, ORIGINAL, ELSE = "later edit", "earlier edit", "before any edit", "something else"
OUTCOMES = (LATER, EARLIER, ORIGINAL, ELSE)
PLACES = {"first": "in the words of the earlier edit", "second": "in those of the later", "third": "in yet others"}


@dataclass(frozen=True)
class Contradiction:
    """Two edits of one fact, and in which words the second is."""

    first: Edit
    second: Edit
    wording: str


def contradictions(edits: Sequence[Edit], pool: Sequence[Edit], count: int, seed: int) -> list[Contradiction]:
    """The first ``count`` edits that have a paraphrase, each with a later edit, in the same and in other words in turn.

    Args:
        pool: edits of whose answers one of the same relation becomes the later answer.
    """
    answers: dict[str | None, dict[str, None]] = {}
    for edit in pool:
        answers.setdefault(edit.relation, {})[edit.target_new] = None
    made: list[Contradiction] = []
    for edit in edits:
        others = [
            answer for answer in answers.get(edit.relation, ()) if answer not in (edit.target_new, *edit.target_true)
        ]
        if edit.paraphrases and others and len(made) < count:
            wording = (SAME, OTHER)[len(made) % 2]
            prompt = edit.prompt if wording == SAME else edit.paraphrases[0]
            answer = Random(f"{seed}/{edit.case_id}").choice(others)
            made.append(Contradiction(edit, replace(edit, prompt=prompt, target_new=answer), wording))
    return made


def contradict(editor: Editor, pairs: Sequence[Contradiction], probing: Probing) -> list[Row]:
    """Make all first edits, then all second ones, each alone, and ask freely.

    Returns:
        A row a pair and way of asking: ``case_id``, ``wording``, ``asked`` (a key of :data:`PLACES`), ``says`` (one of
        :data:`OUTCOMES`) and ``generated``.
    """
    editor.reset()
    try:
        for edit in [*(pair.first for pair in pairs), *(pair.second for pair in pairs)]:
            editor.apply([edit])
        # What ends an answer must not be part of any that could be given.
        stop = tuple(
            string
            for string in probing.stop
            if not any(string in answer for pair in pairs for answer in _answers(pair))
        )
        asked = [
            Question(pair.first.case_id, "edit", number, prompt, "")
            for pair in pairs
            for number, prompt in enumerate(_prompts(pair).values())
        ]
        said = greedy_answers(editor, asked, replace(probing, stop=stop))
    finally:
        editor.reset()
    texts = iter([said[question] for question in asked])
    rows = []
    for pair in pairs:
        for place in _prompts(pair):
            text = next(texts)
            row = {"case_id": pair.first.case_id, "wording": pair.wording, "asked": place}
            rows.append(row | {"says": _outcome(text, pair), "generated": text})
    return rows


def summarize_contradictions(rows: Sequence[Row]) -> pd.DataFrame:
    """Share of each outcome by wording and way of asking.

    Returns:
        Columns ``wording``, ``asked``, ``says``, ``value``, ``low``, ``high`` and ``n`` (cases).
    """
    table: list[Row] = []
    frame = pd.DataFrame(rows, columns=["case_id", "wording", "asked", "says"])
    for (wording, asked), group in frame.groupby(["wording", "asked"], sort=False):
        for outcome in OUTCOMES:
            figure = share(group["says"] == outcome, group["case_id"])
            table.append({"wording": wording, "asked": asked, "says": outcome, **asdict(figure)})
    return pd.DataFrame(table, columns=["wording", "asked", "says", "value", "low", "high", "n"])


def _prompts(pair: Contradiction) -> dict[str, str]:
    """By which words the fact is asked for: those of the edits, and of a paraphrase that neither was made in."""
    prompts = {"first": pair.first.prompt}
    if pair.second.prompt != pair.first.prompt:
        prompts["second"] = pair.second.prompt
    unused = [prompt for prompt in pair.first.paraphrases if prompt not in prompts.values()]
    return prompts | ({"third": unused[-1]} if unused else {})


def _answers(pair: Contradiction) -> tuple[str, ...]:
    return pair.second.target_new, pair.first.target_new, *pair.first.target_true


def _outcome(text: str, pair: Contradiction) -> str:
    later, earlier, *original = _answers(pair)
    for outcome, answers in ((LATER, [later]), (EARLIER, [earlier]), (ORIGINAL, original)):
        if begins_with(text, answers):
            return outcome
    return ELSE
