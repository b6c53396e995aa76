"""Amounts to read: times and sizes in the unit that suits them."""

from __future__ import annotations

from collections.abc import Sequence

TIMES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
SIZES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B"))


def duration(seconds: float) -> str:
    """A time: ``2.1 s``, ``130 ms``."""
    return _in_units(seconds, TIMES)


def size(number: float) -> str:
    """A number of bytes: ``1.5 MB``."""
    return _in_units(number, SIZES)


def _in_units(number: float, units: Sequence[tuple[float, str]]) -> str:
    if number == 0:
        return "0"
    unit, name = next((one for one in units if abs(number) >= one[0]), units[-1])
    amount = number / unit
    return f"{amount:.0f} {name}" if abs(amount) >= 9.95 or amount == round(amount) else f"{amount:.1f} {name}"
