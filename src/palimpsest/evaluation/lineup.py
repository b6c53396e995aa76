"""What editing methods ask for by name, opened when the first of them does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from palimpsest.data.prepared import PreparedData
from palimpsest.lm.base import open_base_lm
from palimpsest.lm.encoder import SentenceEncoder
from palimpsest.lm.encoder_cache import RememberingEncoder
from palimpsest.lm.load import LanguageModel


class Resources(Mapping[str, Any]):
    """For :func:`palimpsest.editors.registry.build_editor`; editors that are built with one share what they ask for.

    ================  =====================================================================================
    ``lm``            the base language model
    ``new_lm``        a function that opens another copy of it, for a method that adds to it
    ``encoder``       the sentence encoder, which remembers what it has encoded
    ``corpus``        texts that the model has learnt from
    ``irrelevant``    prompts like those of edits, statements and questions, but of none that is evaluated
    ``prepared``      the prepared data, from which settings may be chosen on dev
    ``device``        where models compute
    ================  =====================================================================================

    Args:
        base_lm: folder of the base language model.
        hardware: the section of the parameters: ``device`` and ``dtype``.
    """

    def __init__(self, prepared: PreparedData, base_lm: Path, hardware: Mapping[str, str]) -> None:
        self.prepared, self._base_lm, self._hardware = prepared, base_lm, hardware

    @cached_property
    def lm(self) -> LanguageModel:
        return self.new_lm()

    @property
    def new_lm(self) -> Callable[[], LanguageModel]:
        return lambda: open_base_lm(self._base_lm, **self._hardware)

    @cached_property
    def encoder(self) -> RememberingEncoder:
        return RememberingEncoder.of(SentenceEncoder.load(device=self.device))

    @cached_property
    def corpus(self) -> list[str]:
        return list(self.prepared.text("train"))

    @cached_property
    def irrelevant(self) -> list[str]:
        edits = self.prepared.edits("train")
        questions = self.prepared.questions("train") if "train" in self.prepared.splits("questions") else []
        return [edit.prompt for edit in (*edits, *questions)]

    @property
    def device(self) -> str:
        return self._hardware["device"]

    def __getitem__(self, name: str) -> Any:
        if name not in NAMES:
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(NAMES)

    def __len__(self) -> int:
        return len(NAMES)


NAMES = ("lm", "new_lm", "encoder", "corpus", "irrelevant", "prepared", "device")
