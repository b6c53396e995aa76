"""What an edit costs: time until it is made and until it is answered from, memory, and what later prompts pay for it.

All methods are measured in turn, edit by edit, in one run: where the machine slows down it does so for all of them, and
what is reported are ratios within one edit. Sentence encoders remember nothing meanwhile: what an edit has encoded, its
first answer encodes again.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from tqdm import tqdm

from palimpsest.editors.editor import Editor
from palimpsest.editors.larimar import LarimarEditor
from palimpsest.evaluation.editing import Row
from palimpsest.evaluation.selection import interval_of
from palimpsest.evaluation.statistics import LEVEL, RESAMPLES, Interval
from palimpsest.facts import Edit
from palimpsest.lm.encoder_cache import remembering_nothing

EDIT, ANSWER, LATER, PEAK = "edit", "first answer", "later prompt", "peak memory"
ANSWERED, ADDED = "edit and first answer", "added to a later prompt"
ENCODING, MEMORY, DECODING = "encoding", "memory", "decoding"  # of Larimar's edits with their first answers
Part = tuple[Any, str]
"""An object and the name of a method of it, whose time is a part of an edit's."""


def measure_costs(
    editors: Mapping[str, Editor],
    edits: Sequence[Edit],
    *,
    warm: int,
    weighed: int,
    answer_tokens: int,
    parts: Mapping[str, Mapping[str, Sequence[Part]]] | None = None,
    progress: bool = False,
) -> list[Row]:
    """Make each edit alone with each editor in turn, answer its prompt, and one that it is not about.

    Args:
        editors: those of one language model may share it, for each takes its edit back before the next begins.
        edits: each with a neighbour, whose prompt is the later one.
        warm: how many of the edits, the first, are made for nothing but to warm up.
        weighed: how many of the others, the first, are made again to see how much memory they take.
        answer_tokens: the most that are generated for a prompt.
        parts: of an editor by name, what of the time between the edit and the end of its first answer is reported
            apart, by the part's name.

    Returns:
        A row an edit, method and measure: ``case_id``, ``method``, ``measure`` (:data:`EDIT`, :data:`ANSWER`,
        :data:`LATER`, :data:`PEAK`, or a part's name) and ``value``, seconds or bytes.
    """
    rows = []
    with remembering_nothing():
        for number, edit in enumerate(tqdm(edits, desc="costs", disable=not progress)):
            for method, editor in editors.items():
                found = _measured(editor, edit, answer_tokens, (parts or {}).get(method, {}))
                if warm <= number < warm + weighed:
                    found[PEAK] = _peak(editor, edit)
                if number >= warm:
                    rows += [
                        {"case_id": edit.case_id, "method": method, "measure": measure, "value": value}
                        for measure, value in found.items()
                    ]
    return rows


def _measured(editor: Editor, edit: Edit, tokens: int, parts: Mapping[str, Sequence[Part]]) -> dict[str, float]:
    watch = Stopwatch(editor.lm.device)
    editor.reset()
    try:
        with watch.splitting(parts):
            watch.time(EDIT, lambda: editor.apply([edit]))
            watch.time(ANSWER, lambda: editor.generate([edit.prompt], max_new_tokens=tokens))
        watch.time(LATER, lambda: editor.generate([edit.neighbors[0].prompt], max_new_tokens=tokens))
    finally:
        editor.reset()
    return watch.seconds


def _peak(editor: Editor, edit: Edit) -> float:
    """Bytes at the most while an edit is made."""
    try:
        with PeakMemory() as memory:
            editor.apply([edit])
    finally:
        editor.reset()
    return float(memory.peak)


def parts_of(editor: LarimarEditor) -> dict[str, list[Part]]:
    """What of the time of Larimar's edits is reported apart; the rest is :data:`MEMORY`."""
    return {ENCODING: [(editor.model.encoder, "encode")], DECODING: [(editor.model.decoder, "generate")]}


def cost_table(rows: Sequence[Row], unedited: str) -> pd.DataFrame:
    """The median edit of each method.

    Args:
        rows: of :func:`measure_costs`.
        unedited: the method that does nothing, beside which :data:`ADDED` is reckoned, edit by edit.

    Returns:
        Columns ``method``, ``measure`` (those of the rows, :data:`ANSWERED`, :data:`ADDED`, of Larimar
        :data:`MEMORY`), ``value``, ``low``, ``high`` and ``n`` (edits).
    """
    table: list[Row] = []
    by_edit = _by_edit(rows)
    for method, found in by_edit.items():
        measures = {name: found[name] for name in found}
        measures[ANSWERED] = found[EDIT] + found[ANSWER]
        measures[ADDED] = found[LATER] - by_edit[unedited][LATER]
        if ENCODING in found:
            measures[MEMORY] = measures[ANSWERED] - found[ENCODING] - found[DECODING]
        table += [
            {"method": method, "measure": name, **asdict(median(values.dropna()))} for name, values in measures.items()
        ]
    return pd.DataFrame(table, columns=["method", "measure", "value", "low", "high", "n"])


def speedups(rows: Sequence[Row], method: str, others: Sequence[str]) -> dict[str, dict[str, Interval]]:
    """How many times as long as a method's the edit of each of some others takes, alone and with its first answer:
    the median over edits of the ratio."""
    by_edit = _by_edit(rows)
    own = by_edit[method]
    return {
        other: {
            "edit": median(by_edit[other][EDIT] / own[EDIT]),
            "answered": median((by_edit[other][EDIT] + by_edit[other][ANSWER]) / (own[EDIT] + own[ANSWER])),
        }
        for other in others
    }


def figures_of(
    table: pd.DataFrame, ratios: Mapping[str, Mapping[str, Mapping[str, Interval]]]
) -> dict[str, dict[str, object]]:
    """Headline figures by method: ``seconds_per_edit``, ``seconds.MEASURE``, ``peak_bytes``, ``speedup.OTHER.TIME``.

    Args:
        table: of :func:`cost_table`.
        ratios: by method what :func:`speedups` gives.
    """
    figures: dict[str, dict[str, object]] = {}
    for method, rows in table.groupby("method", sort=False):
        found = {str(measure): interval_of(rows, measure=measure) for measure in rows["measure"]}
        named = {name.replace(" ", "_"): figure for name, figure in found.items() if name not in (EDIT, PEAK)}
        figures[str(method)] = {"seconds_per_edit": found[EDIT], "seconds": named}
        figures[str(method)] |= {"peak_bytes": found[PEAK]} if PEAK in found else {}
        figures[str(method)] |= {"speedup": ratios[str(method)]} if method in ratios else {}
    return figures


def _by_edit(rows: Sequence[Row]) -> dict[str, pd.DataFrame]:
    """For each method a row an edit and a column a measure."""
    frame = pd.DataFrame(rows)
    return {
        str(method): group.pivot_table(index="case_id", columns="measure", values="value", sort=False)
        for method, group in frame.groupby("method", sort=False)
    }


def median(values: pd.Series, seed: int = 0) -> Interval:
    """The median, with a bootstrap interval. Raises ValueError for no values."""
    found = values.to_numpy(float)
    if not len(found):
        raise ValueError("the median of nothing")
    draws = np.random.default_rng(seed).integers(len(found), size=(RESAMPLES, len(found)))
    low, high = np.quantile(np.median(found[draws], axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(np.median(found)), float(low), float(high), len(found))


class Stopwatch:
    """Adds up seconds by name; what the device has still to do is waited for.

    Args:
        clock: ``time.process_time`` counts the processors' time instead, which other work beside does not lengthen.
    """

    def __init__(self, device: torch.device, clock: Callable[[], float] = time.perf_counter) -> None:
        self.device, self.clock = device, clock
        self.seconds: dict[str, float] = {}

    def time(self, name: str, do: Callable[[], object]) -> object:
        """What a call returns."""
        started = self._now()
        try:
            return do()
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + self._now() - started

    @contextmanager
    def splitting(self, parts: Mapping[str, Sequence[Part]]) -> Iterator[None]:
        """Count calls of some methods as parts, inside the block."""
        with ExitStack() as patches:
            for name, methods in parts.items():
                self.seconds.setdefault(name, 0.0)
                for owner, method in methods:
                    patches.enter_context(_replaced(owner, method, self._timed(name, getattr(owner, method))))
            yield

    def _timed(self, name: str, call: Callable[..., object]) -> Callable[..., object]:
        return lambda *arguments, **named: self.time(name, lambda: call(*arguments, **named))

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return self.clock()


@contextmanager
def _replaced(owner: Any, name: str, method: Callable[..., object]) -> Iterator[None]:
    """Another method of one object, also of a frozen dataclass."""
    object.__setattr__(owner, name, method)
    try:
        yield
    finally:
        object.__delattr__(owner, name)


class PeakMemory(TorchDispatchMode):
    """How many bytes the tensors that are made inside the block take up, at most, at any one time.

    It counts what is asked for, whatever an allocator keeps; what operations use within themselves it does not see.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), named: dict[str, Any] | None = None
    ) -> Any:
        before = {
            id(leaf.untyped_storage()) for leaf in tree_leaves((arguments, named)) if isinstance(leaf, torch.Tensor)
        }
        result = function(*arguments, **(named or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and id(leaf.untyped_storage()) not in before:
                self._count(leaf.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self._seen:
            return

        def freed(_: object) -> None:
            if self._seen.pop(key, None) is not None:
                self.now -= size

        self._seen[key] = weakref.ref(storage, freed)
        self.now += size
        self.peak = max(self.peak, self.now)
