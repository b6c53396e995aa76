"""Examples from edits: what they say as text, what of it is learnt, and which edits give one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import pytest

from palimpsest.data.prepared import PreparedData
from palimpsest.facts import Edit, Probe, Query, Triple
from palimpsest.memllm.calls import parse_read, parse_write
from palimpsest.memllm.edit_examples import (
    EDIT_ADAPTERS,
    edit_read_examples,
    edit_write_examples,
    examples_from_edits,
)
from palimpsest.memllm.examples import Example
from palimpsest.memllm.tokens import CallTokens

LABELS = {"P50": "author", "P19": "place of birth"}
EDIT = Edit("0", "Dawn", "The author of Dawn is", "Bo Tan", ("Ann Lee",), "P50",
            paraphrases=("Dawn was penned by",), neighbors=(Probe("Dusk was written by", "Ann Lee"),))  # fmt: skip


def parts(tokens: CallTokens, example: Example) -> list[tuple[str, bool]]:
    """Stretches of text that are learnt, or not."""
    pairs = zip(example.ids, example.learnt, strict=True)
    stretches = ((learnt, [token for token, _ in group]) for learnt, group in groupby(pairs, key=lambda pair: pair[1]))
    return [(tokens.decode(ids), learnt) for learnt, ids in stretches]


def test_a_statement_is_written_as_its_triple(call_tokens: Callable[..., CallTokens]) -> None:
    tokens = call_tokens("byte-level")
    (example,) = edit_write_examples([EDIT], LABELS, tokens, max_tokens=500)
    start, end = tokens.decode([tokens.start]), tokens.decode([tokens.end])
    assert parts(tokens, example) == [
        (f"{start}({{USER_ST}})The author of Dawn is Bo Tan.({{USER_END}})", False),
        (f"({{MEM_WRITE--> Dawn>> author>> Bo Tan}}){end}", True),
    ]


def test_a_call_stands_where_the_answer_begins_and_its_result_is_not_learnt(
    call_tokens: Callable[..., CallTokens],
) -> None:
    tokens = call_tokens("byte-level")
    (example,) = edit_read_examples([EDIT], LABELS, tokens, max_tokens=500)
    start, end = tokens.decode([tokens.start]), tokens.decode([tokens.end])
    assert parts(tokens, example) == [
        (f"{start}The author of Dawn is", False),
        ("({MEM_READ( Dawn>> author>>)-->", True),
        (" Bo Tan})", False),
        (f" Bo Tan.{end}", True),
    ]


@pytest.mark.parametrize("kind", ["own", "byte-level, code", "llama"])
def test_whatever_the_tokenizer_the_calls_say_the_edit(kind: str, call_tokens: Callable[..., CallTokens]) -> None:
    tokens = call_tokens(kind)
    (write,) = edit_write_examples([EDIT], LABELS, tokens, max_tokens=500)
    (read,) = edit_read_examples([EDIT], LABELS, tokens, max_tokens=500)
    written = write.ids[write.ids.index(tokens.results) - len(tokens.write_prefix) + 1 : -1]
    assert parse_write(tokens.decode(written)) == ([Triple("Dawn", "author", "Bo Tan")], [])
    asked = read.ids[read.ids.index(tokens.open) : read.ids.index(tokens.results) + 1]
    call = parse_read(tokens.decode(asked))
    assert getattr(call, "queries", None) == (Query("author", subject="Dawn"),)


def test_how_an_edit_is_judged_is_never_learnt(call_tokens: Callable[..., CallTokens]) -> None:
    tokens = call_tokens("byte-level")
    blind = replace(EDIT, paraphrases=(), neighbors=(), target_true=())
    for examples in (edit_write_examples, edit_read_examples):
        assert list(examples([EDIT], LABELS, tokens, max_tokens=500)) == list(
            examples([blind], LABELS, tokens, max_tokens=500)
        )


def test_edits_whose_relation_has_no_name_are_passed_over(call_tokens: Callable[..., CallTokens]) -> None:
    edits = [replace(EDIT, relation=None), EDIT, replace(EDIT, relation="P0")]
    for examples in (edit_write_examples, edit_read_examples):
        assert len(list(examples(edits, LABELS, call_tokens("byte-level"), max_tokens=500))) == 1


def test_adapters_learn_from_the_training_split_and_are_watched_on_dev(call_tokens: Callable[..., CallTokens]) -> None:
    class Prepared(PreparedData):
        relations = LABELS

        def edits(self, split: str) -> list[Edit]:
            return [replace(EDIT, subject=f"{split} {number}", prompt=f"{split} {number} is by") for number in range(5)]

        def splits(self, kind: str) -> list[str]:
            return ["train", "dev"]

        def questions(self, split: str) -> list[Edit]:
            return [replace(edit, prompt=f"Who wrote {edit.subject}?", relation=None) for edit in self.edits(split)]

    tokens = call_tokens("byte-level")
    settings = {
        "max_tokens": 500,
        "dev_edits": 2,
        "adapters": {"edit_write": {"edits": 3, "questions": 0}, "edit_read": {"edits": 1, "questions": 2}},
    }
    prompts = {"edit_write": ["train 0 is", "train 1 is", "train 2 is"],
               "edit_read": ["train 0 is", "Who wrote train 0", "Who wrote train 1"]}  # fmt: skip
    for adapter in EDIT_ADAPTERS:
        train, dev = examples_from_edits(Prepared(Path("nowhere")), settings, adapter, tokens)
        for example, prompt in zip(train, prompts[adapter], strict=True):
            assert prompt in tokens.decode(example.ids)
        assert ["dev 0 is" in tokens.decode(dev[0].ids), len(dev)] == [True, 2]
