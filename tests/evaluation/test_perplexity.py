"""Perplexity by class of tokens, with losses chosen so that the answer is known."""

import numpy as np
import pytest

from palimpsest.evaluation.perplexity import document_losses, headline, table
from palimpsest.facts import Document, Entity, Mention
from palimpsest.lm.scoring import TextLosses
from palimpsest.memllm.targets import ReadTarget


def test_classes_by_hand() -> None:
    # "Dawn by Ann Lee.": tokens Dawn | by | Ann | Lee | . with losses log 2, log 2, log 8, log 8, log 2
    mention = Mention("Ann Lee", 0, 2, 4)
    page = Document(
        "t",
        (("Dawn", "by", "Ann", "Lee", "."),),
        (Entity((Mention("Dawn", 0, 0, 1),), "MISC"), Entity((mention,), "PER")),
    )
    assert page.text == "Dawn by Ann Lee."
    offsets = np.array([[0, 4], [4, 7], [7, 11], [11, 15], [15, 16]])
    losses = TextLosses(np.arange(5), np.log([2, 2, 8, 8, 2]), offsets)
    rows = document_losses([page], [losses], [[ReadTarget(1, mention, ())]]).assign(split="test")
    figures = headline(table(rows))
    assert figures["lm.ppl.target.test"].value == pytest.approx(8)
    assert figures["lm.ppl.entity.test"].value == pytest.approx(np.exp(np.log([2, 8, 8]).mean()))
    assert figures["lm.ppl.all.test"].value == pytest.approx(np.exp(np.log([2, 2, 8, 8, 2]).mean()))
    assert [figures[f"lm.ppl.{name}.test"].n for name in ("all", "target", "entity")] == [5, 2, 3]


def test_classes_without_tokens_are_left_out() -> None:
    page = Document("t", (("Hello", "."),))
    losses = TextLosses(np.arange(2), np.ones(2), np.array([[0, 5], [5, 6]]))
    figures = headline(table(document_losses([page], [losses], [[]]).assign(split="test")))
    assert set(figures) == {"lm.ppl.all.test"}
