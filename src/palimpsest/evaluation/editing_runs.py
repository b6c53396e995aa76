"""Edits made singly, in sequence and in a batch, and asked about; a run that was killed goes on where it was.

Rows are those of :func:`palimpsest.evaluation.editing.probe` with ``phase`` and ``edits``, the number of edits that the
model had when it was asked.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from palimpsest.editors.editor import Editor, ReadingEditor
from palimpsest.evaluation.editing import Baseline, Kind, Probing, Row, probe, questions
from palimpsest.facts import Edit
from palimpsest.files import atomic_path

AFTER_EDIT, AFTER_LAST = "after_edit", "after_last"
CHECKPOINTS = (1, 10, 100, 1000)
AT_ONCE: tuple[Kind, ...] = ("edit",)


class Sink(Protocol):
    """Keeps the rows of a case or chunk under a name, and knows which it has."""

    def load(self, name: str) -> list[Row] | None:
        """The rows kept under a name, or None."""

    def save(self, name: str, rows: Sequence[Row]) -> None:
        """Keep rows under a name."""


class Forgetful:
    """A sink for runs that are not to be gone on with."""

    def load(self, name: str) -> None:
        return None

    def save(self, name: str, rows: Sequence[Row]) -> None:
        pass


FORGETFUL = Forgetful()


class RowFiles:
    """A sink of small JSON Lines files in a folder, one a name, each there whole or not at all.

    Every file begins with ``identity``, which stands for everything that shaped the rows (method, settings, model,
    cases); a file of another identity does not count.
    """

    def __init__(self, folder: Path, identity: Mapping[str, object]) -> None:
        self.folder = folder
        self._header = json.dumps(identity, sort_keys=True)

    def load(self, name: str) -> list[Row] | None:
        path = self._path(name)
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        return [json.loads(line) for line in lines[1:]] if lines[:1] == [self._header] else None

    def save(self, name: str, rows: Sequence[Row]) -> None:
        lines = [self._header, *(json.dumps(row, allow_nan=False) for row in rows)]
        with atomic_path(self._path(name)) as path:
            path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.jsonl"


def single_edits(
    editor: Editor,
    edits: Sequence[Edit],
    probing: Probing,
    baseline: Baseline,
    *,
    sink: Sink = FORGETFUL,
    chunk: int = 25,
    progress: bool = False,
) -> list[Row]:
    """Make each edit alone, ask about it, and take it back. ``chunk`` edits are kept at a time.

    Of a :class:`~palimpsest.editors.editor.ReadingEditor` the questions about a chunk's edits are asked in one pass.
    """
    rows = []
    with _clean(editor), tqdm(total=len(edits), desc="single edits", disable=not progress) as bar:
        for start in range(0, len(edits), chunk):
            part = edits[start : start + chunk]
            rows += _kept(sink, f"single-{start}", partial(_single, editor, part, probing, baseline))
            bar.update(len(part))
    return rows


def _single(editor: Editor, edits: Sequence[Edit], probing: Probing, baseline: Baseline) -> list[Row]:
    if isinstance(editor, ReadingEditor):
        return _single_read(editor, edits, probing, baseline)
    rows = []
    for edit in edits:
        editor.apply([edit])
        rows += _asked(editor, [edit], probing, baseline, AFTER_EDIT, 1)
        editor.reset()
    return rows


def _single_read(editor: ReadingEditor[Any], edits: Sequence[Edit], probing: Probing, baseline: Baseline) -> list[Row]:
    """As one by one: what each edit contributes is read while it is made, and then all are asked about at once."""
    asked = [questions([edit], probing.kinds) for edit in edits]
    editor.prepare(edits, [question.prompt for own in asked for question in own])
    readings = []
    for edit, own in zip(edits, asked, strict=True):
        editor.apply([edit])
        readings += editor.read([question.prompt for question in own])
        editor.reset()
    return _labelled(probe(editor, list(chain(*asked)), probing, baseline, readings), AFTER_EDIT, 1)


def sequential(
    editor: Editor,
    edits: Sequence[Edit],
    probing: Probing,
    baseline: Baseline,
    *,
    checkpoints: Sequence[int] = CHECKPOINTS,
    at_once: Collection[Kind] = AT_ONCE,
    sink: Sink = FORGETFUL,
    progress: bool = False,
) -> list[Row]:
    """Make edits one after the other, and at each checkpoint ask about all that were made.

    Args:
        checkpoints: numbers of edits; those beyond the edits given are left out, and no edit follows the last.
        at_once: of which kinds each edit is asked right after it was made (``after_edit``), one call an edit.

    What lies between two checkpoints is kept at a time. To go on after one, the edits up to it are made again and not
    asked about.
    """
    rows: list[Row] = []
    made = 0
    at_edit = replace(probing, kinds=tuple(kind for kind in probing.kinds if kind in at_once))
    reached = sorted({count for count in checkpoints if count <= len(edits)})
    with _clean(editor), tqdm(total=max(reached, default=0), desc="sequential edits", disable=not progress) as bar:
        for previous, count in pairwise([0, *reached]):
            found = sink.load(f"sequential-{count}")
            if found is None:
                found = []
                for edit in edits[made:count]:
                    editor.apply([edit])
                    made += 1
                    if made > previous:
                        found += _asked(editor, [edit], at_edit, baseline, AFTER_EDIT, made)
                    bar.update(made - bar.n)
                found += _asked(editor, edits[:count], probing, baseline, AFTER_LAST, count)
                sink.save(f"sequential-{count}", found)
            rows += found
            bar.update(count - bar.n)
    return rows


def batch(
    editor: Editor, edits: Sequence[Edit], probing: Probing, baseline: Baseline, *, sink: Sink = FORGETFUL
) -> list[Row]:
    """Make all edits at once and ask about all of them."""

    def whole() -> list[Row]:
        editor.apply(edits)
        return _asked(editor, edits, probing, baseline, AFTER_LAST, len(edits))

    with _clean(editor):
        return _kept(sink, f"batch-{len(edits)}", whole)


@contextmanager
def _clean(editor: Editor) -> Iterator[None]:
    """Begin without edits, and leave none, whatever happens."""
    editor.reset()
    try:
        yield
    finally:
        editor.reset()


def _kept(sink: Sink, name: str, make: Callable[[], list[Row]]) -> list[Row]:
    """The rows that a sink has under a name, else new ones, which it then keeps."""
    rows = sink.load(name)
    if rows is None:
        rows = make()
        sink.save(name, rows)
    return rows


def _asked(
    editor: Editor, edits: Sequence[Edit], probing: Probing, baseline: Baseline, phase: str, count: int
) -> list[Row]:
    return _labelled(probe(editor, questions(edits, probing.kinds), probing, baseline), phase, count)


def _labelled(rows: Iterable[Row], phase: str, count: int) -> list[Row]:
    return [row | {"phase": phase, "edits": count} for row in rows]
