"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from children import Child, Start, run

# Read when torch is imported, here and by whatever the tests start: two workers have a core each, and threads that
# wait for one another cost more than the arithmetic of tiny models.
os.environ["OMP_NUM_THREADS"] = "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The pipelines first, then the files with slow tests: workers that begin with the longest end at the same time."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path.parent.name != "smoke", item.path not in slow))


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of real samples beside the checkout; tests of real data are skipped where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real samples: {folder} is absent")
    return folder


@pytest.fixture(scope="session")
def processes() -> Any:
    """Starts processes in no time: they are forked from one that has done nothing but imports."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["pytest", "palimpsest.memory.sqlite", "palimpsest.memllm.finetune"])
    return context


@pytest.fixture
def start(processes: Any) -> Iterator[Start]:
    """Starts processes; all are gone after the test."""
    children: list[Child] = []

    def start_one(function: Callable[..., None], *arguments: Any) -> Child:
        ours, theirs = processes.Pipe()
        child = Child(processes.Process(target=run, args=(theirs, function, *arguments), daemon=True), ours)
        child.process.start()
        theirs.close()
        children.append(child)
        return child

    yield start_one
    for child in children:
        child.process.kill()
        child.process.join()
