"""Perplexity of a model that looks things up, in the settings of MemLLM's experiments (section 4.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from palimpsest.evaluation.perplexity import document_losses
from palimpsest.evaluation.statistics import Interval, ratio
from palimpsest.facts import Document, Query
from palimpsest.lm.load import LanguageModel
from palimpsest.lm.scoring import TextLosses, token_losses
from palimpsest.memllm.examples import PlannedCall, planned_calls
from palimpsest.memllm.perplexity import Gold, Reading, ScoredCall, read_losses
from palimpsest.memllm.targets import AnswerCounts, ReadTarget, read_targets
from palimpsest.memllm.tokens import CallTokens, TextTokens

NO_MEMORY, FINETUNED, OWN_WRITES, GOLD_WRITES = "no memory", "finetuned no memory", "own writes", "gold writes"
# What is given in each setting; the memory holds the gold writes in all but the first.
READS: dict[str, Gold] = {
    OWN_WRITES: Gold(),
    GOLD_WRITES: Gold(),
    "gold position": Gold(position=True),
    "gold query": Gold(query=True),
    "gold result": Gold(result=True),
    "gold position and query": Gold(position=True, query=True),
    "gold all": Gold(position=True, query=True, result=True),
}
SETTINGS = (NO_MEMORY, FINETUNED, *READS)


@dataclass(frozen=True)
class Pages:
    """Documents prepared for reading: their tokens, what could be looked up, and where calls belong."""

    documents: Sequence[Document]
    texts: Sequence[TextTokens]
    targets: Sequence[Sequence[ReadTarget]]
    calls: Sequence[Sequence[PlannedCall]]

    @classmethod
    def prepare(
        cls, documents: Sequence[Document], labels: Mapping[str, str], rules: Mapping[str, Any], tokens: CallTokens
    ) -> Pages:
        """Find the targets by the rules of :func:`palimpsest.memllm.targets.read_targets`."""
        results = AnswerCounts(documents, labels)
        targets = [list(read_targets(page, labels, results=results, **rules)) for page in documents]
        texts = [tokens.text(page.text) for page in documents]
        calls = [planned_calls(*item) for item in zip(documents, targets, texts, strict=True)]
        return cls(documents, texts, targets, calls)

    def rows(self, losses: Sequence[TextLosses], setting: str) -> pd.DataFrame:
        """Losses by document and class of tokens (see :func:`palimpsest.evaluation.perplexity.document_losses`)."""
        return document_losses(self.documents, losses, self.targets).assign(split=setting)


def without_memory(lm: LanguageModel, pages: Pages, setting: str, window: int) -> pd.DataFrame:
    """Losses of a model that knows no calls."""
    losses = token_losses(lm, [page.text for page in pages.documents], window=window, progress=True)
    return pages.rows(losses, setting)


def with_memory(
    lm: LanguageModel,
    tokens: CallTokens,
    pages: Pages,
    readings: Mapping[str, Reading],
    window: int,
    copied: bool = False,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Losses of a model that reads, in each of several settings; and its calls (see :func:`call_table`).

    ``copied`` says whether it asks in words of the text alone (see :mod:`palimpsest.memllm.copying`).
    """
    ways = list(readings.values())
    scored = read_losses(lm, tokens, pages.texts, pages.calls, ways, window=window, copied=copied, progress=True)
    losses = [pages.rows(texts, setting) for setting, (texts, _) in zip(readings, scored, strict=True)]
    calls = [call_table(made).assign(setting=setting) for setting, (_, made) in zip(readings, scored, strict=True)]
    return pd.concat(losses, ignore_index=True), pd.concat(calls, ignore_index=True)


def own_questions(
    lm: LanguageModel, tokens: CallTokens, pages: Pages, window: int, copied: bool = False
) -> list[tuple[Query, ...]]:
    """What the model asks as it reads, each call once. It asks the same whatever comes back."""
    asked: dict[tuple[Query, ...], None] = {}

    def note(calls: Sequence[Sequence[Query]]) -> list[list[str]]:
        asked.update(dict.fromkeys(map(tuple, calls)))
        return [[] for _ in calls]

    with_memory(lm, tokens, pages, {"asked": Reading(note)}, window, copied)
    return list(asked)


def call_table(calls: Sequence[Sequence[ScoredCall]]) -> pd.DataFrame:
    """One row a planned call.

    Returns:
        Columns ``document``, ``probability`` (of calling there), ``asked`` (a well-formed question was), ``right`` (one
        of its queries is among those planned), ``answered`` (something came back), ``hit`` (the mention is among it)
        and ``results`` (how many).
    """
    rows = [
        {
            "document": index,
            "probability": call.probability,
            "asked": bool(call.queries),
            "right": not set(call.queries).isdisjoint(call.plan.queries),
            "answered": bool(call.results),
            "hit": call.plan.mention.name in call.results,
            "results": len(call.results),
        }
        for index, made in enumerate(calls)
        for call in made
    ]
    columns = ["document", "probability", "asked", "right", "answered", "hit", "results"]
    return pd.DataFrame(rows, columns=columns)


def call_quality(calls: pd.DataFrame) -> pd.DataFrame:
    """Mean probability of calling where a call belongs, and shares of calls, by setting; documents are resampled."""
    rows = []
    for setting, group in calls.groupby("setting", sort=False):
        by_page = group.groupby("document")
        for metric in ("probability", "asked", "right", "answered", "hit"):
            figure = ratio(by_page[metric].sum(), by_page.size())
            rows.append({"setting": setting, "metric": metric, "value": figure.value, "low": figure.low})
            rows[-1] |= {"high": figure.high, "n": figure.n}
    return pd.DataFrame(rows)


def headline(perplexities: pd.DataFrame) -> dict[str, Interval]:
    """``CLASS.SETTING`` for each row of :func:`palimpsest.evaluation.perplexity.table`."""
    return {
        f"{row['tokens']}.{row['split'].replace(' ', '_')}": Interval(row["value"], row["low"], row["high"], row["n"])
        for row in perplexities.to_dict("records")
    }
