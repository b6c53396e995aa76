"""The distracting prefix: CounterFact's paraphrases have an unrelated sentence before them (ROME, arXiv 2202.05262).

A prompt so prefixed asks whether an edit is found among other things. Here the sentences are given, so that generated
edits are measured with and without it, on the same paraphrases.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from palimpsest.evaluation.editing import Row
from palimpsest.facts import Edit
from palimpsest.rephrasing import prefixed

PREFIXED = "prefixed"
"""The kind of a question that is a paraphrase after an unrelated sentence."""


def with_prefixed(edits: Iterable[Edit], sentences: Sequence[str], seed: int) -> list[Edit]:
    """The edits, each with its paraphrases and after them the same paraphrases prefixed.

    So an edit is made once for both; :func:`label_prefixed` tells the rows apart.
    """
    return [
        replace(
            edit,
            paraphrases=(
                *edit.paraphrases,
                *(prefixed(edit, prompt, sentences, str(seed)) for prompt in edit.paraphrases),
            ),
        )
        for edit in edits
    ]


def label_prefixed(rows: Iterable[Row], edits: Iterable[Edit]) -> list[Row]:
    """Rows about edits from :func:`with_prefixed`, those of prefixed paraphrases as a kind of their own.

    Args:
        rows: as :func:`palimpsest.evaluation.editing.probe` gives them.
        edits: as they were before, without prefixed paraphrases.

    Returns:
        The rows, with ``kind`` :data:`PREFIXED` where it applies and ``number`` then that of the plain paraphrase.
    """
    plain = {edit.case_id: len(edit.paraphrases) for edit in edits}
    labelled = []
    for row in rows:
        number = row["number"] - plain[row["case_id"]]
        moved = row["kind"] == "paraphrase" and number >= 0
        labelled.append(row | {"kind": PREFIXED, "number": number} if moved else row)
    return labelled
