"""Recall over input length: facts of a long document, written chunk by chunk, and asked back at its end.

A chunk is a sentence that states a fact; each is about another subject. What is compared are editors that have made the
chunks one after the other, and the language model that has them in its context (:class:`TextInContext`), as far as they
fit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import pandas as pd
from tqdm import tqdm

from palimpsest.editors.editor import Editor, ReadingEditor, statement
from palimpsest.evaluation.editing import Probing, Question, Row, probe, questions, summarize
from palimpsest.evaluation.editing_runs import AFTER_LAST
from palimpsest.evaluation.rows import FORGETFUL, Sink
from palimpsest.evaluation.selection import interval_of
from palimpsest.evaluation.statistics import Interval
from palimpsest.facts import Edit
from palimpsest.lm.generation import generate_greedy
from palimpsest.lm.load import LanguageModel
from palimpsest.lm.scoring import TargetScore, score_targets


@dataclass(frozen=True)
class LongDocument:
    """The facts that its chunks state, in order, and the places of those that are asked."""

    facts: tuple[Edit, ...]
    asked: tuple[int, ...]


def long_documents(facts: Sequence[Edit], chunks: int, *, asked: int, seed: int) -> Iterator[LongDocument]:
    """As many documents of so many chunks as it takes to ask so many facts; no two share a fact.

    Args:
        facts: what can be stated (``target_new``); of several about one subject only the first is.
        asked: facts in all; documents are asked whole, but for the last, or a single longer one, at random places.

    Raises:
        ValueError: there are too few subjects.
    """
    distinct: dict[str, Edit] = {}
    for fact in facts:
        distinct.setdefault(fact.subject, fact)
    count = -(-asked // chunks)
    if count * chunks > len(distinct):
        raise ValueError(f"{count} documents of {chunks} chunks, but there are facts about {len(distinct)} subjects")
    rng = Random(f"{seed}/{chunks}")
    chosen = rng.sample(list(distinct.values()), count * chunks)
    for start in range(0, len(chosen), chunks):
        places = rng.sample(range(chunks), min(chunks, asked - start))
        yield LongDocument(tuple(chosen[start : start + chunks]), tuple(sorted(places)))


def recall_by_length(
    editor: Editor,
    facts: Sequence[Edit],
    lengths: Sequence[int],
    probing: Probing,
    *,
    asked: int,
    seed: int,
    together: int = 1,
    sink: Sink = FORGETFUL,
    progress: bool = False,
) -> list[Row]:
    """Write documents of growing length, each into an editor without edits, and ask for their facts.

    Args:
        facts: see :func:`long_documents`.
        lengths: numbers of chunks.
        probing: its kinds may be ``edit``, the sentence that was written, and ``paraphrase``.
        asked: how many facts are asked at each length. Of a :class:`~palimpsest.editors.editor.ReadingEditor` all
            documents of a length are asked about in one pass.
        together: how many chunks are written in one call. An editor for which neither order nor company matters is
            spared time.

    Returns:
        Rows as of :func:`palimpsest.evaluation.editing.probe`, with ``phase``, ``edits`` (the number of chunks),
        ``document`` and ``position``, the place of the chunk that states the fact, from 0.
    """
    rows: list[Row] = []
    bar = tqdm(lengths, desc="input lengths", disable=not progress)
    try:
        for chunks in bar:
            name = f"length-{chunks}"
            found = sink.load(name)
            if found is None:
                documents = list(long_documents(facts, chunks, asked=asked, seed=seed))
                found = _read_and_ask(editor, documents, probing, together)
                found = [row | {"phase": AFTER_LAST, "edits": chunks} for row in found]
                sink.save(name, found)
            rows += found
    finally:
        editor.reset()
    return rows


def _read_and_ask(editor: Editor, documents: Sequence[LongDocument], probing: Probing, together: int) -> list[Row]:
    """Rows with ``document`` and ``position``."""
    rows: list[Row] = []
    asked: list[Question] = []
    places: list[Row] = []
    readings: list[Any] = []
    for number, document in enumerate(documents):
        editor.reset()
        for start in range(0, len(document.facts), together):
            editor.apply(document.facts[start : start + together])
        positions = {document.facts[place].case_id: place for place in document.asked}
        own = questions([document.facts[place] for place in document.asked], probing.kinds)
        places += [{"document": number, "position": positions[question.case_id]} for question in own]
        asked += own
        if isinstance(editor, ReadingEditor):
            readings += editor.read([question.prompt for question in own])
        else:
            rows += probe(editor, own, probing, {})
    if isinstance(editor, ReadingEditor):
        rows = probe(editor, asked, probing, {}, readings)
    return [row | place for row, place in zip(rows, places, strict=True)]


def summarize_lengths(rows: Sequence[Row]) -> pd.DataFrame:
    """Averages by number of chunks: columns ``chunks``, ``kind``, ``protocol``, ``value``, ``low``, ``high``, ``n``."""
    return summarize(rows).rename(columns={"edits": "chunks"}).drop(columns="phase")


def headline(table: pd.DataFrame, lengths: Iterable[int]) -> dict[int, Interval]:
    """Share of facts said to the prompts with which they were written, by number of chunks.

    Args:
        table: of :func:`summarize_lengths`, of one editor.
    """
    return {chunks: interval_of(table, chunks=chunks, kind="edit", protocol="exact") for chunks in lengths}


class TextInContext(ReadingEditor[str]):
    """The language model with what was written before the prompt, of which the oldest is dropped where it does not fit.

    Args:
        window: tokens that the model sees, prompt and answer among them; as many as it can if not given. A model
            trained on shorter texts than it can take in is at a loss beyond their length.
    """

    def __init__(self, lm: LanguageModel, window: int | None = None) -> None:
        super().__init__(lm if window is None else replace(lm, context_limit=window))
        self._chunks: list[tuple[str, int]] = []  # each sentence and how many tokens it has

    def apply(self, edits: Sequence[Edit]) -> None:
        chunks = [statement(edit) for edit in edits]
        lengths = [len(ids) for ids in self.lm.encode([f" {chunk}" for chunk in chunks])]
        self._chunks += zip(chunks, lengths, strict=True)

    def reset(self) -> None:
        self._chunks = []

    def read(self, prompts: Sequence[str]) -> list[str]:
        """Each prompt after the last chunks, one more than fit at the most; what is too much is cut by token."""
        taken: list[str] = []
        room = self.lm.context_length
        for chunk, length in self._chunks[::-1]:
            if room <= 0:
                break
            taken.append(chunk)
            room -= length
        return [" ".join([*taken[::-1], prompt]) for prompt in prompts]

    def score_read(self, readings: Sequence[str], targets: Sequence[str]) -> list[TargetScore]:
        return score_targets(self.lm, readings, targets, overflow="left")

    def generate_read(self, readings: Sequence[str], *, max_new_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        return generate_greedy(self.lm, readings, max_new_tokens=max_new_tokens, stop=stop, overflow="left")
