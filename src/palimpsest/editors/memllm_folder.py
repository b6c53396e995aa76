"""MemLLM as an editor, from the folder of its adapters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from palimpsest.editors.memllm import MemLlmEditor, MemLlmSettings
from palimpsest.lm.load import LanguageModel
from palimpsest.memllm.adapters import load_adapters, merge_adapter
from palimpsest.memllm.tokens import CallTokens
from palimpsest.memory import Embedder, TripleMemory


def open_memllm_editor(
    lm: LanguageModel,
    *,
    new_lm: Callable[[], LanguageModel],
    encoder: Embedder,
    folder: str,
    spaced: bool,
    settings: MemLlmSettings,
) -> MemLlmEditor:
    """An editor with an empty memory.

    Args:
        lm: the base language model, which speaks where nothing is found.
        new_lm: opens copies of it, into which the adapters are merged.
        encoder: of the memory's names.
        folder: of the adapters ``edit_read`` and ``edit_write``.
        spaced: as they were trained.

    Raises what :func:`palimpsest.memllm.adapters.load_adapters` raises.
    """

    def calls(adapter: str) -> CallTokens:
        return CallTokens(merge_adapter(load_adapters(new_lm(), {adapter: Path(folder, adapter)})), spaced=spaced)

    memory = TripleMemory.open(":memory:", encoder)
    return MemLlmEditor(lm, reader=calls("edit_read"), writer=calls("edit_write"), memory=memory, settings=settings)
