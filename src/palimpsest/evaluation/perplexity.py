"""Perplexity of a language model on annotated documents: over all tokens, entities, and what could be looked up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from palimpsest.data.prepared import PreparedData
from palimpsest.evaluation.statistics import Interval, ratio
from palimpsest.facts import Document, Mention
from palimpsest.lm.load import LanguageModel
from palimpsest.lm.scoring import TextLosses, token_losses
from palimpsest.memllm.targets import AnswerCounts, ReadTarget, read_targets


def document_losses(
    documents: Sequence[Document], losses: Sequence[TextLosses], targets: Sequence[Iterable[ReadTarget]]
) -> pd.DataFrame:
    """One row a document and class of tokens.

    ``all`` are all tokens; ``entity`` those that touch a mention of any entity; ``target`` those that touch a mention
    that a read could supply (:func:`palimpsest.memllm.targets.read_targets`).

    Returns:
        Columns ``document`` (position), ``title``, ``tokens`` (the class), ``loss`` (nats, summed) and ``n`` (tokens).
    """
    rows = []
    for index, (document, loss, wanted) in enumerate(zip(documents, losses, targets, strict=True)):
        masks = {
            "all": np.ones(len(loss.losses), bool),
            "target": _touching(document, loss, (target.mention for target in wanted)),
            "entity": _touching(document, loss, (mention for _, mention in document.mentions())),
        }
        for name, mask in masks.items():
            row = {"document": index, "title": document.title, "tokens": name}
            rows.append({**row, "loss": float(loss.losses[mask].sum()), "n": int(mask.sum())})
    return pd.DataFrame(rows)


def measure(
    lm: LanguageModel, data: PreparedData, splits: Mapping[str, str], rules: Mapping[str, Any], window: int
) -> pd.DataFrame:
    """Losses of a language model on annotated documents, one row a split, document and class of tokens.

    Args:
        splits: the document split behind each reported name.
        rules: ``skip``, ``max_results`` and ``max_queries`` of :func:`palimpsest.memllm.targets.read_targets`; the
            memory that limits the results holds all triples of the split.
        window: how many tokens the model sees at a time.
    """
    parts = []
    for name, split in splits.items():
        documents = data.documents(split)
        results = AnswerCounts(documents, data.relations)
        targets = [list(read_targets(page, data.relations, results=results, **rules)) for page in documents]
        losses = token_losses(lm, [page.text for page in documents], window=window, progress=True)
        parts.append(document_losses(documents, losses, targets).assign(split=name))
    return pd.concat(parts, ignore_index=True)


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """Perplexities, ``exp(sum of losses / number of tokens)``, by split and class of tokens; documents are resampled.

    Returns:
        Columns ``split``, ``tokens`` (the class), ``value``, ``low``, ``high`` and ``n`` (tokens). Classes without a
        token are left out.
    """
    return pd.DataFrame(
        {"split": split, "tokens": tokens, **asdict(ratio(group["loss"], group["n"], np.exp))}
        for (split, tokens), group in rows.groupby(["split", "tokens"], sort=False)
        if group["n"].sum()
    )


def headline(perplexities: pd.DataFrame) -> dict[str, Interval]:
    """``lm.ppl.CLASS.SPLIT`` for each row of :func:`table`."""
    return {
        f"lm.ppl.{row['tokens']}.{row['split']}": Interval(row["value"], row["low"], row["high"], row["n"])
        for row in perplexities.to_dict("records")
    }


def _touching(document: Document, loss: TextLosses, mentions: Iterable[Mention]) -> np.ndarray:
    mask = np.zeros(len(loss.losses), bool)
    for mention in mentions:
        mask |= loss.overlapping(*document.span(mention))
    return mask
