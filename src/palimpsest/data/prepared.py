"""Where prepared data lie, whether generated or real: one folder, one set of files, one way to read them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from palimpsest.data import counterfact, docred, text, zsre
from palimpsest.facts import DataError, Document, Edit


@dataclass(frozen=True)
class PreparedData:
    """A folder of prepared data.

    ========================  =================  ==============================================================
    file                      format             content
    ========================  =================  ==============================================================
    ``relations.json``        ``{P-id: label}``  names of the relation types
    ``text/SPLIT.txt``        text               ``train``: what the base LM reads; ``dev``: the same kind, unread
    ``documents/SPLIT.json``  DocRED             ``train``, ``dev``, ``test``; ``seen``: unread documents about
                                                 entities that the training text often mentions
    ``edits/SPLIT.json``      CounterFact        ``train``, ``dev``, ``test``: counterfactual edits
    ``questions/SPLIT.json``  ZsRE               ``dev``, ``test``, in the world also ``train``: questions
    ``recall/SPLIT.json``     CounterFact        facts to ask before any edit: ``train`` is about entities of the
                                                 training text, ``test`` about entities that it does not mention
    ========================  =================  ==============================================================

    A data set that lacks a file of a kind (Re-DocRED has no ``seen``) simply has no such split.
    """

    folder: Path

    @cached_property
    def relations(self) -> dict[str, str]:
        return docred.read_relations(self.folder / "relations.json")

    def documents(self, split: str) -> list[Document]:
        return docred.read_documents(self._existing("documents", split), self.relations)

    def edits(self, split: str) -> list[Edit]:
        return counterfact.read_edits(self._existing("edits", split))

    def questions(self, split: str) -> list[Edit]:
        return zsre.read_questions(self._existing("questions", split))

    def recall(self, split: str) -> list[Edit]:
        return counterfact.read_edits(self._existing("recall", split))

    def text(self, split: str) -> Iterator[str]:
        return text.read_chunks(self._existing("text", split))

    def path(self, kind: str, split: str) -> Path:
        """Where a split of a kind lies, or would lie."""
        return self.folder / kind / f"{split}{'.txt' if kind == 'text' else '.json'}"

    def splits(self, kind: str) -> list[str]:
        """The splits of a kind that there are: train first, the others by name."""
        names = (path.stem for path in (self.folder / kind).glob("[!.]*"))
        return sorted(names, key=lambda name: (name != "train", name))

    def _existing(self, kind: str, split: str) -> Path:
        path = self.path(kind, split)
        if not path.exists():
            raise DataError(f"{path} does not exist; the {kind} here have the splits {self.splits(kind)}")
        return path
