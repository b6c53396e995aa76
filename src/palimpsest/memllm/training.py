"""From prepared data to a trained adapter: what each of them learns from, and where it is kept."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd
from accelerate import PartialState
from hydra.utils import instantiate
from tqdm import tqdm

from palimpsest.data.prepared import PreparedData
from palimpsest.facts import Document
from palimpsest.lm.base import open_base_lm
from palimpsest.lm.descent import Log
from palimpsest.lm.load import LanguageModel
from palimpsest.memllm.adapters import Lora, attach_adapter, load_adapters, save_adapter
from palimpsest.memllm.counterfactual import augment
from palimpsest.memllm.edit_examples import EDIT_ADAPTERS, EditAdapter, examples_from_edits
from palimpsest.memllm.examples import Example, Learnt, plain_example, read_examples, write_examples
from palimpsest.memllm.filtering import LanguageModelJudge, filter_documents
from palimpsest.memllm.finetune import Finetuning, finetune
from palimpsest.memllm.targets import AnswerCounts, read_targets
from palimpsest.memllm.tokens import CallTokens

DocumentAdapter = Literal["write", "read", "plain"]
"""Adapters that learn from documents. ``plain`` is finetuned on the same text without any memory: what the others are
compared with."""
DOCUMENT_ADAPTERS: tuple[DocumentAdapter, ...] = get_args(DocumentAdapter)
Adapter = DocumentAdapter | EditAdapter
ADAPTERS: tuple[Adapter, ...] = (*DOCUMENT_ADAPTERS, *EDIT_ADAPTERS)
"""In the order of their training, as one may go on from another that was trained before."""
HISTORY = ["adapter", "step", "tokens", "seconds", "loss", "learning_rate", "gradient_norm", "dev_loss"]


@dataclass(frozen=True, kw_only=True)
class ExampleMaker:
    """Turns annotated documents into the examples of an adapter.

    Args:
        labels: relation names by P-id.
        targets: the rules of :func:`palimpsest.memllm.targets.read_targets`.
        max_tokens: longer examples lose their oldest text.
        learnt: which tokens of read examples count.
    """

    tokens: CallTokens
    labels: Mapping[str, str]
    targets: Mapping[str, Any]
    max_tokens: int
    learnt: Learnt = "text and calls"

    def __call__(
        self, adapter: DocumentAdapter, documents: Sequence[Document], stored: Iterable[Document]
    ) -> list[Example]:
        """All examples of the documents; reads are answered by a memory that holds the triples of ``stored``."""
        answers = AnswerCounts(stored if adapter == "read" else (), self.labels)
        pages = tqdm(documents, desc=f"{adapter} examples", unit=" documents", mininterval=1)
        return [example for page in pages for example in self._examples(adapter, page, answers)]

    def _examples(self, adapter: DocumentAdapter, document: Document, answers: AnswerCounts) -> Iterator[Example]:
        if adapter == "plain":
            yield plain_example(document, self.tokens, max_tokens=self.max_tokens)
        elif adapter == "write":
            yield from write_examples(document, self.labels, self.tokens, max_tokens=self.max_tokens)
        else:
            targets = list(read_targets(document, self.labels, results=answers, **self.targets))
            yield from read_examples(
                document, targets, self.tokens, self._limited(answers), max_tokens=self.max_tokens, learnt=self.learnt
            )

    def _limited(self, answers: AnswerCounts) -> Any:
        return lambda queries: answers.answers(queries)[: self.targets["max_results"]]


@dataclass(frozen=True)
class FinetuningData:
    """What adapters learn from, and what they are watched on, as the parameters say.

    Args:
        prepared: its documents, edits and questions are used, ``train`` and ``dev``.
        settings: the section ``memllm`` of the parameters. Of ``curation``: ``judge``, a language model by name or
            folder, says which sentences support a fact, and facts that none supports are dropped (``null`` keeps all,
            for annotations by people); ``threshold`` is of its probability; ``copies`` counterfactual copies follow
            each document.
        targets: the section ``targets``.
        hardware: where the judge runs.
    """

    prepared: PreparedData
    settings: Mapping[str, Any]
    targets: Mapping[str, Any]
    hardware: Mapping[str, Any]

    @cached_property
    def train(self) -> list[Document]:
        """All annotated documents of the training split."""
        return self.prepared.documents("train")

    @cached_property
    def dev(self) -> list[Document]:
        """All of the dev split."""
        return self.prepared.documents("dev")

    @property
    def most(self) -> int:
        """How many training documents the adapter that learns from most is given."""
        return max(map(self._count, DOCUMENT_ADAPTERS))

    @cached_property
    def chosen(self) -> list[Document]:
        """So many, curated."""
        return self._curated(self.train[: self.most])

    def examples(self, adapter: Adapter, tokens: CallTokens) -> tuple[list[Example], list[Example]]:
        """Training and dev examples of an adapter."""
        if adapter == "edit_write" or adapter == "edit_read":
            return examples_from_edits(self.prepared, self.settings, adapter, tokens)
        make = ExampleMaker(
            tokens=tokens,
            labels=self.prepared.relations,
            targets=self.targets,
            max_tokens=self.settings["max_tokens"],
            learnt=self.settings["learnt"],
        )
        count = self._count(adapter) * (1 + self.settings["curation"]["copies"])
        chosen, watched = self.chosen[:count], self.dev[: self.settings["dev_documents"]]
        return make(adapter, chosen, [*self.chosen, *self.train[self.most :]]), make(adapter, watched, self.dev)

    def _count(self, adapter: DocumentAdapter) -> int:
        wanted = self.settings["adapters"][adapter]["documents"]
        return len(self.train) if wanted is None else int(wanted)

    def _curated(self, documents: list[Document]) -> list[Document]:
        rules = self.settings["curation"]
        if rules["judge"] is not None:
            judge = LanguageModelJudge(open_base_lm(rules["judge"], **self.hardware))
            pages = tqdm(documents, desc="judging", unit=" documents", mininterval=1)
            labels, threshold = self.prepared.relations, rules["threshold"]
            documents = filter_documents(pages, labels, judge, threshold=threshold).documents
        copies = rules["copies"]
        changed = list(augment(documents, copies, self.settings["finetuning"]["seed"]))
        return [page for at, own in enumerate(documents) for page in (own, *changed[at * copies :][:copies])]


def options(settings: Mapping[str, Any], adapter: Adapter) -> dict[str, Any]:
    """How an adapter is trained by the section ``memllm`` of the parameters: what :func:`train_adapter` takes by name.

    Of ``adapters.ADAPTER``: ``documents`` to learn from (``null``: all), or ``edits`` and ``questions``; ``start``, and
    its ``learning_rate``.
    """
    own = settings["adapters"][adapter]
    return {
        "lora": instantiate(settings["lora"]),
        "schedule": instantiate(settings["finetuning"], learning_rate=own["learning_rate"]),
        "start": own["start"],
    }


def train_adapter(
    lm: LanguageModel,
    adapter: Adapter,
    train: Sequence[Example],
    dev: Sequence[Example],
    folder: Path,
    *,
    lora: Lora,
    schedule: Finetuning,
    start: Adapter | None = None,
    log: Log = lambda row, step: None,
) -> pd.DataFrame:
    """Train an adapter and save it as ``folder/adapter``; one that was interrupted goes on from its last checkpoint.

    It begins as the adapter ``start`` that is in ``folder``, or as none. Where the data hold no example for it (edits
    that do not say their relation), it stays what it began as. Of several processes that train together the main one
    saves. Returns the history of :func:`palimpsest.memllm.finetune.finetune` as a table.
    """
    checkpoints = folder / f".{adapter}.checkpoints"
    lm = attach_adapter(lm, adapter, lora, schedule.seed, start=folder / start if start else None)
    history = finetune(lm, train, dev, schedule, checkpoints=checkpoints, log=log) if train or start is None else []
    if PartialState().is_main_process:
        save_adapter(lm, adapter, folder / adapter)
        shutil.rmtree(checkpoints, ignore_errors=True)
    PartialState().wait_for_everyone()
    return pd.DataFrame(history).assign(adapter=adapter).reindex(columns=HISTORY)


def open_adapters(lm: LanguageModel, folder: Path, adapters: Sequence[Adapter] = ADAPTERS) -> LanguageModel:
    """A language model with adapters that :func:`train_adapter` left in ``folder``; the first is in use."""
    return load_adapters(lm, {adapter: folder / adapter for adapter in adapters})
