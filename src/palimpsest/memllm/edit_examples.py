"""Finetuning examples from edits: what an edit's statement stores, and what to ask where an answer would begin.

Adapters that learnt from documents know sentences in the midst of others, and calls before mentions there. Edits come
as a single sentence, and questions as a prompt that ends where the answer would begin. The examples are from edits of
the training split: of their own prompts only, never of the other words in which edits are judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Literal, get_args

from palimpsest.data.prepared import PreparedData
from palimpsest.facts import Edit, Query, Triple
from palimpsest.memllm.examples import Example
from palimpsest.memllm.tokens import CallTokens
from palimpsest.rephrasing import with_relations

EditAdapter = Literal["edit_write", "edit_read"]
"""Adapters for editing, which go on from those that learnt from documents."""
EDIT_ADAPTERS: tuple[EditAdapter, ...] = get_args(EditAdapter)


def examples_from_edits(
    prepared: PreparedData, settings: Mapping[str, Any], adapter: EditAdapter, tokens: CallTokens
) -> tuple[list[Example], list[Example]]:
    """Training and dev examples of an adapter for editing.

    Args:
        settings: the section ``memllm`` of the parameters. Of ``adapters.ADAPTER``: from how many ``edits`` and
            ``questions`` of the training split is learnt (``null``: all; data may have no questions to learn from);
            and ``dev_edits``: on how many edits of dev it is watched.
    """
    own, train = settings["adapters"][adapter], prepared.edits("train")
    questions = prepared.questions("train") if "train" in prepared.splits("questions") else []
    learnt = [*train[: own["edits"]], *with_relations(questions, train)[: own["questions"]]]
    watched = prepared.edits("dev")[: settings["dev_edits"]]
    make = partial(
        edit_write_examples if adapter == "edit_write" else edit_read_examples,
        labels=prepared.relations,
        tokens=tokens,
        max_tokens=settings["max_tokens"],
    )
    return list(make(learnt)), list(make(watched))


def edit_write_examples(
    edits: Iterable[Edit], labels: Mapping[str, str], tokens: CallTokens, *, max_tokens: int
) -> Iterator[Example]:
    """One example an edit: its statement, marked, and the call that writes its triple; the call is learnt.

    Edits without a relation, or with one that has no label (``labels``: P-id to label), are passed over.
    """
    for edit, label in _labelled(edits, labels):
        text = tokens.text(f"{edit.prompt} {edit.target_new}.").ids
        call = [*tokens.write([Triple(edit.subject, label, edit.target_new)]), tokens.end]
        prompt = [*tokens.focus_start, *text, *tokens.focus_end]
        yield Example.of(tokens.start, (prompt, False), (call, True), max_tokens=max_tokens)


def edit_read_examples(
    edits: Iterable[Edit], labels: Mapping[str, str], tokens: CallTokens, *, max_tokens: int
) -> Iterator[Example]:
    """One example an edit: its prompt, the call that asks for its answer, the result, and the answer as text.

    Call and answer are learnt, the prompt and the result are not. Which edits are passed over is told by
    :func:`edit_write_examples`.
    """
    for edit, label in _labelled(edits, labels):
        text = tokens.text(f"{edit.prompt} {edit.target_new}.")
        place = text.first(len(edit.prompt))
        yield Example.of(
            tokens.start,
            (text.ids[:place], False),
            (tokens.queries([Query(label, subject=edit.subject)]), True),
            (tokens.answer([edit.target_new]), False),
            ([*text.ids[place:], tokens.end], True),
            max_tokens=max_tokens,
        )


def _labelled(edits: Iterable[Edit], labels: Mapping[str, str]) -> Iterator[tuple[Edit, str]]:
    return ((edit, labels[edit.relation]) for edit in edits if edit.relation is not None and edit.relation in labels)
