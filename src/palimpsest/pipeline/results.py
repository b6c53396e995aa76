"""Result files, written whole and the same bytes for the same numbers: metrics, tables and figures.

A metrics file is one flat map from dotted names to numbers. A figure with an interval takes four names:
``name``, ``name.low``, ``name.high`` and ``name.n``.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from palimpsest.files import atomic_path

if TYPE_CHECKING:  # the runner of a stage, which writes metrics alone, starts without them
    import pandas as pd
    from matplotlib.figure import Figure

GATHERED_APART = ("headline.json", "bench.json", "editors_tuning.json")  # of what `make repro` does not run
SUMMARY = "summary"  # the stage that gathers
SECONDS = "repro.seconds."


@runtime_checkable
class Interval(Protocol):
    """An average with its 95 % confidence interval and the number of observations behind it."""

    @property
    def value(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...
    @property
    def n(self) -> int: ...


def flatten(metrics: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """``(dotted name, number)`` pairs of nested mappings; intervals become four numbers.

    Raises ValueError, naming the metric, for whatever is not a finite number.
    """
    for key, value in metrics.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flatten(value, f"{name}.")
        elif isinstance(value, Interval):
            yield from flatten({name: value.value, f"{name}.low": value.low, f"{name}.high": value.high})
            yield from flatten({f"{name}.n": value.n})
        elif isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
            raise ValueError(f"metric {name}: expected a finite number, got {value!r}")
        else:
            yield name, int(value) if isinstance(value, Integral) else float(value)


def write_metrics(path: Path | str, metrics: Mapping[str, Any]) -> None:
    """Write numbers, nested or with dotted names, as one flat map sorted by name.

    Raises ValueError for a value that is not a finite number, and for a name that occurs twice.
    """
    flat: dict[str, float] = {}
    for name, number in flatten(metrics):
        if name in flat:
            raise ValueError(f"metric {name}: given twice")
        flat[name] = number
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(flat, indent=2, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")


def read_metrics(path: Path | str) -> dict[str, float]:
    """The flat map of a metrics file. Raises ValueError, naming the file, if it is something else."""
    try:
        metrics = json.loads(Path(path).read_text(encoding="utf-8"))
        if dict(flatten(metrics)) != metrics:
            raise ValueError("expected one flat map from names to numbers")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path}: {error}") from error
    return metrics


def write_table(path: Path | str, table: pd.DataFrame) -> None:
    """Write tidy rows, one observation a row, as CSV; the index is left out."""
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def gather(folder: Path | str) -> dict[str, float]:
    """All metrics of the stages under ``folder``/metrics as one flat map.

    The seconds that the stages took are summed up to ``repro.seconds.total``; the summary, which gathers, is not in it.

    Raises ValueError if two files give the same name.
    """
    gathered: dict[str, float] = {}
    owner: dict[str, Path] = {}
    for path in sorted(Path(folder, "metrics").rglob("*.json")):
        if path.name in GATHERED_APART or path.stem == SUMMARY:
            continue
        for name, number in read_metrics(path).items():
            if name in gathered:
                raise ValueError(f"metric {name}: both in {owner[name]} and in {path}")
            gathered[name], owner[name] = number, path
    seconds = [number for name, number in gathered.items() if name.startswith(SECONDS)]
    return gathered | (
        {f"{SECONDS}total": round(sum(seconds), 1), "repro.cores": os.cpu_count() or 1} if seconds else {}
    )


def write_headline(folder: Path | str) -> Path:
    """Gather the metrics under ``folder`` into ``metrics/headline.json`` there, and return its path."""
    path = Path(folder, "metrics", "headline.json")
    write_metrics(path, gather(folder))
    return path


def headline_table(folder: Path | str) -> pd.DataFrame:
    """The headline figures to read: a row a figure with its bounds and ``n`` where it has them."""
    import pandas as pd

    headline = read_metrics(Path(folder, "metrics", "headline.json"))
    parts = (".low", ".high", ".n")
    figures = [name for name in headline if not (name.endswith(parts) and name.rpartition(".")[0] in headline)]
    rows = {name: [headline[name], *(headline.get(name + part) for part in parts)] for name in figures}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high", "n"])


def save_figure(figure: Figure, folder: Path | str, name: str) -> list[Path]:
    """Write ``name``.svg and ``name``.png; the same figure gives the same bytes each time. Returns the two paths."""
    import matplotlib as mpl

    paths = []
    metadata = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}
    for ending, fields in metadata.items():
        path = Path(folder, f"{name}.{ending}")
        with mpl.rc_context({"svg.hashsalt": name}), atomic_path(path) as temporary:
            figure.savefig(temporary, format=ending, metadata=fields)
        paths.append(path)
    return paths
