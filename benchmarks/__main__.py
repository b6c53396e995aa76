"""Run all benchmarks, or those named, and write their figures into ``results/metrics/bench.json``.

``python -m benchmarks [larimar memllm memory scoring world …]``. Figures of benchmarks that are not run stay.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from benchmarks import larimar, memllm, memory, scoring, world
from palimpsest.pipeline import project
from palimpsest.pipeline.results import read_metrics, write_metrics

BENCHMARKS: dict[str, Callable[[], dict[str, float]]] = {
    "larimar": larimar.run,
    "memllm": memllm.run,
    "memory": memory.run,
    "scoring": scoring.run,
    "world": world.run,
}
REPORT = Path("results/metrics/bench.json")


def main() -> None:
    parser = argparse.ArgumentParser(description="Run benchmarks.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"among {', '.join(BENCHMARKS)}; all if none is named")
    names = parser.parse_args().names or list(BENCHMARKS)
    if unknown := sorted(set(names) - set(BENCHMARKS)):
        parser.error(f"no benchmark is called {', '.join(unknown)}")
    project.enter()
    figures = read_metrics(REPORT) if REPORT.exists() else {}
    for name in names:
        print(f"{name} …", flush=True)
        measured = BENCHMARKS[name]()
        figures = {figure: number for figure, number in figures.items() if not figure.startswith(f"bench.{name}.")}
        for figure, number in measured.items():
            print(f"  {figure} = {number:.4g}")
        figures |= measured
    write_metrics(REPORT, figures)


if __name__ == "__main__":
    main()
