"""Split expressions: ``dev``, ``dev[:400]``, ``dev[400:]``, ``dev[10:20]``, ``dev[:10%]``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from palimpsest.facts import DataError

T = TypeVar("T")

BOUND = r"(?:100|\d?\d)%|\d+"
EXPRESSION = re.compile(rf"(?P<name>[\w./-]+)(\[(?P<start>{BOUND})?:(?P<stop>{BOUND})?\])?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Split:
    """A part of a named split; bounds are counts (``400``) or shares (``10%``), and ``None`` is the split's own end."""

    name: str
    start: str | None = None
    stop: str | None = None

    def __str__(self) -> str:
        whole = self.start is None and self.stop is None
        return self.name if whole else f"{self.name}[{self.start or ''}:{self.stop or ''}]"

    def slice(self, total: int) -> slice:
        """The records meant, of ``total``. Shares round down, so that ``[:10%]`` and ``[10%:]`` make up the whole.

        Raises:
            DataError: the bounds reach beyond the records, or leave none between them.
        """
        start = 0 if self.start is None else _position(self.start, total)
        stop = total if self.stop is None else _position(self.stop, total)
        if not start < stop <= total:
            raise DataError(f"split {self}: expected at least one of {total} records, found {start} to {stop}")
        return slice(start, stop)


def parse_split(expression: str) -> Split:
    """Parse a split expression.

    Raises:
        DataError: it is none.
    """
    match = EXPRESSION.fullmatch(expression)
    if match is None:
        raise DataError(f"split {expression!r}: expected a form like dev, dev[:400] or dev[10%:20%]")
    return Split(match["name"], match["start"], match["stop"])


def select(records: Sequence[T], expression: str) -> Sequence[T]:
    """The records, of one whole split, that the expression asks for.

    Raises:
        DataError: it is no split expression, or there are too few records.
    """
    return records[parse_split(expression).slice(len(records))]


def _position(bound: str, total: int) -> int:
    return total * int(bound[:-1]) // 100 if bound.endswith("%") else int(bound)
