"""Rows on disk: JSON Lines, a row a line, and sinks in which a run that was killed finds what it had done."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from palimpsest.files import atomic_path

if TYPE_CHECKING:  # a method that is left out has its empty files without importing anything
    from palimpsest.evaluation.editing import Row

EXPERIMENTS = ("single", "sequential", "batch", "drift", "forgetting", "contradictions")


def read_rows(path: Path) -> list[Row]:
    """The rows of a file; numbers, texts and None are what they were."""
    return [json.loads(line) for line in _lines(path)]


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write rows, all or none. Raises ValueError for what JSON has no form for, such as a number that is none."""
    _write(path, [_json(row) for row in rows])


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
        lines = _lines(path) if path.is_file() else []
        return [json.loads(line) for line in lines[1:]] if lines[:1] == [self._header] else None

    def save(self, name: str, rows: Sequence[Row]) -> None:
        _write(self._path(name), [self._header, *map(_json, rows)])

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.jsonl"


def kept(sink: Sink, name: str, make: Callable[[], list[Row]]) -> list[Row]:
    """The rows that a sink has under a name, else new ones, which it then keeps."""
    rows = sink.load(name)
    if rows is None:
        rows = make()
        sink.save(name, rows)
    return rows


def _json(row: Row) -> str:
    return json.dumps(row, allow_nan=False)


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def _write(path: Path, lines: Sequence[str]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
