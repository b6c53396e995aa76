"""Larimar's read-outs as editors, from the folder of its models, with scope detectors set on the dev split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from palimpsest.data.prepared import PreparedData
from palimpsest.editors.larimar import LarimarEditor
from palimpsest.editors.memory_sizes import sized_read_outs
from palimpsest.editors.read_outs import READ_OUTS
from palimpsest.evaluation.scope_thresholds import scope_thresholds
from palimpsest.larimar.opening import open_remembering


def open_larimar_editor(
    prepared: PreparedData,
    device: str,
    *,
    folder: str,
    read_out: str,
    slots: int,
    addressings: Mapping[str, Any],
    dev: int,
    counts: Sequence[int],
) -> LarimarEditor:
    """An editor with an empty memory.

    Args:
        prepared: of its dev split the first ``dev`` edits choose the detector's thresholds, one for each of ``counts``,
            the numbers of edits in memory up to which it holds. Larger memories are filled up with other edits.
        folder: of the models.
        read_out: a key of :data:`palimpsest.editors.read_outs.READ_OUTS`.
        slots: of the memory.
        addressings: as in the section ``larimar`` of the parameters.
    """
    models = open_remembering(Path(folder), list(READ_OUTS), device)
    editor = sized_read_outs(models, {"addressings": addressings}, slots, scoped=True)[READ_OUTS[read_out]]
    edits = prepared.edits("dev")
    others = [*edits[dev:], *prepared.edits("train")]
    editor.threshold = scope_thresholds(editor, edits[:dev], others, counts, prepared.recall("train"))
    return editor
