"""Facts of long documents: how they are dealt out and asked, and what fits into a context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fake_editors import Notebook

from palimpsest.editors.editor import ReadingEditor
from palimpsest.evaluation.editing import Probing
from palimpsest.evaluation.input_length import (
    TextInContext,
    headline,
    long_documents,
    recall_by_length,
    summarize_lengths,
)
from palimpsest.evaluation.rows import RowFiles
from palimpsest.facts import Edit
from palimpsest.lm.generation import generate_greedy
from palimpsest.lm.load import LanguageModel
from palimpsest.lm.scoring import TargetScore, score_targets
from palimpsest.lm.tokenizer import train_tokenizer
from palimpsest.lm.train import Architecture

FACTS = [
    Edit(str(n), f"S{n:02}", f"S{n:02} is", f"new{n}", (f"old{n}",), paraphrases=(f"Is S{n:02}",)) for n in range(40)
]
PROBING = Probing(kinds=("edit", "paraphrase"))


@pytest.mark.parametrize(("chunks", "documents", "asked"), [(1, 6, [1] * 6), (4, 2, [4, 2]), (6, 1, [6]), (32, 1, [6])])
def test_as_many_documents_as_it_takes_to_ask_so_many_facts(chunks: int, documents: int, asked: list[int]) -> None:
    found = list(long_documents(FACTS, chunks, asked=6, seed=0))
    assert [len(document.facts) for document in found] == [chunks] * documents
    assert [len(document.asked) for document in found] == asked
    stated = [fact.case_id for document in found for fact in document.facts]
    assert len(set(stated)) == len(stated)
    for document in found:
        assert list(document.asked) == sorted(set(document.asked))
        assert max(document.asked) < chunks
    assert found == list(long_documents(FACTS, chunks, asked=6, seed=0))
    assert found != list(long_documents(FACTS, chunks, asked=6, seed=1))


def test_each_chunk_is_about_another_subject() -> None:
    twice = [*FACTS[:3], Edit("99", "S00", "S00 was", "x", ())]
    [document] = long_documents(twice, 3, asked=1, seed=0)
    assert {fact.case_id for fact in document.facts} == {"0", "1", "2"}
    with pytest.raises(ValueError, match="1 documents of 4 chunks, but there are facts about 3 subjects"):
        list(long_documents(twice, 4, asked=1, seed=0))


def test_recall_and_positions_by_length() -> None:
    editor = Notebook({}, capacity=8)
    rows = recall_by_length(editor, FACTS, (1, 4, 32), PROBING, asked=32, seed=0)
    assert {len(cases) for name, cases in editor.calls if name == "apply"} == {1}  # chunk by chunk
    assert sum(name == "reset" for name, _ in editor.calls) == 32 + 8 + 1 + 1
    longest = [row for row in rows if row["edits"] == 32]
    assert sorted(row["position"] for row in longest if row["kind"] == "edit") == list(range(32))
    assert {row["position"] for row in longest if row["exact"]} == set(range(24, 32))  # it remembers the last eight
    assert {(row["document"], row["position"]) for row in rows if row["edits"] == 4} == {
        (document, place) for document in range(8) for place in range(4)
    }
    table = summarize_lengths(rows)
    assert list(table.columns) == ["chunks", "kind", "protocol", "value", "low", "high", "n"]
    exact = table[table["protocol"] == "exact"].set_index(["chunks", "kind"])[["value", "n"]]
    for kind in PROBING.kinds:
        assert [tuple(exact.loc[(chunks, kind)]) for chunks in (1, 4, 32)] == [(1, 32), (1, 32), (0.25, 32)]
    assert {chunks: (figure.value, figure.n) for chunks, figure in headline(table, (1, 32)).items()} == {
        1: (1.0, 32), 32: (0.25, 32)
    }  # fmt: skip


class ReadingNotebook(Notebook, ReadingEditor[str]):
    """The same answers, read before they are asked for."""

    def read(self, prompts: Sequence[str]) -> list[str]:
        return [self.answer(prompt) for prompt in prompts]

    def score_read(self, readings: Sequence[str], targets: Sequence[str]) -> list[TargetScore]:
        right = [said == target for said, target in zip(readings, targets, strict=True)]
        return [TargetScore((0,), (-0.1 if it_is else -3.0,), (it_is,)) for it_is in right]

    def generate_read(self, readings: Sequence[str], *, max_new_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        self.prompts.append("all at once")
        return [f" {said}" for said in readings]


def test_documents_that_were_read_are_asked_about_at_once_with_the_same_outcome() -> None:
    lengths, given = (1, 4, 32), {"asked": 32, "seed": 0}
    expected = recall_by_length(Notebook({}, capacity=8), FACTS, lengths, PROBING, **given)
    editor = ReadingNotebook({}, capacity=8)
    assert recall_by_length(editor, FACTS, lengths, PROBING, together=3, **given) == expected
    assert editor.prompts == ["all at once"] * 3
    assert {len(cases) for name, cases in editor.calls if name == "apply"} == {1, 2, 3}
    assert editor.told == {}


def test_a_length_that_is_kept_is_not_read_again(tmp_path: Path) -> None:
    sink = RowFiles(tmp_path, {})
    first = recall_by_length(Notebook({}), FACTS, (1, 4), PROBING, asked=4, seed=0, sink=sink)
    editor = Notebook({})
    assert recall_by_length(editor, FACTS, (1, 4), PROBING, asked=4, seed=0, sink=sink) == first
    assert editor.calls == [("reset", [])]


TEXT = [f"{fact.prompt} {fact.target_new}." for fact in FACTS]
LAST = " ".join(TEXT[38:])


@pytest.fixture(scope="module")
def tiny() -> LanguageModel:
    tokenizer = train_tokenizer([*TEXT, "old new"], 300, 64)
    shape = Architecture(layers=1, width=16, feedforward=16, heads=2, context_length=64, induction=False)
    model = shape.build(tokenizer, seed=0)
    with torch.no_grad():
        model.model.norm.weight.mul_(20)
    return LanguageModel(model, tokenizer)


def test_the_context_holds_what_was_written_before_the_prompt(tiny: LanguageModel) -> None:
    editor = TextInContext(tiny)
    prompts, targets = ["S38 is", "S39 is"], ["new38", "old39"]
    assert editor.score(prompts, targets) == score_targets(tiny, prompts, targets)
    editor.apply(FACTS[38:39])
    editor.apply(FACTS[39:])
    inside = [f"{LAST} {prompt}" for prompt in prompts]
    assert editor.score(prompts, targets) == score_targets(tiny, inside, targets)
    assert editor.score(prompts, targets) != score_targets(tiny, prompts, targets)
    assert editor.generate(prompts, max_new_tokens=4) == generate_greedy(tiny, inside, max_new_tokens=4)
    editor.reset()
    assert editor.score(prompts, targets) == score_targets(tiny, prompts, targets)


@pytest.mark.parametrize("window", [None, 32])
def test_of_what_does_not_fit_the_oldest_is_dropped(tiny: LanguageModel, window: int | None) -> None:
    editor = TextInContext(tiny, window)
    editor.apply(FACTS)
    whole, narrow = [f"{' '.join(TEXT)} S39 is"], replace(tiny, context_limit=window)
    assert len(tiny.encode(whole)[0]) > 64
    assert editor.score(["S39 is"], ["new39"]) == score_targets(narrow, whole, ["new39"], overflow="left")
    expected = generate_greedy(narrow, whole, max_new_tokens=3, overflow="left")
    assert editor.generate(["S39 is"], max_new_tokens=3) == expected
    assert len(editor.read([""])[0]) < len(whole[0]) / 2  # what is far out of sight is not even encoded
