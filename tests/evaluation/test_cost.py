"""Costs: bytes that can be counted by hand, parts of a time, and figures from rows made up."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from fake_editors import Notebook

from palimpsest.evaluation import cost
from palimpsest.evaluation.cost import PeakMemory, Stopwatch, cost_table, figures_of, measure_costs, median, speedups
from palimpsest.facts import Edit, Probe

EDITS = [Edit(str(n), f"s{n}", f"s{n} is", "new", ("old",), neighbors=(Probe(f"n{n} is", "old"),)) for n in range(4)]


def test_memory_is_counted_in_bytes_of_what_is_alive() -> None:
    there_before = torch.zeros(1000)
    with PeakMemory() as memory:
        there_before += 1
        assert memory.now == memory.peak == 0
        first = there_before + 1
        view = first.view(10, 100)
        assert (memory.now, memory.peak) == (4000, 4000)
        second = first.double()
        assert (memory.now, memory.peak) == (12000, 12000)
        del first, view
        assert (memory.now, memory.peak) == (8000, 12000)
        second *= 2
        del second
        assert (memory.now, memory.peak) == (0, 12000)


def test_what_autograd_keeps_counts_too() -> None:
    weight = torch.ones(100, 100, requires_grad=True)
    with PeakMemory() as memory:
        loss = (weight.exp()).sum()
        assert memory.now == 100 * 100 * 4 + 4  # the exponentials are kept for the way back
        loss.backward()
    assert memory.peak >= 2 * 100 * 100 * 4 + 4


@dataclass(frozen=True)
class Frozen:
    def work(self, seconds: float) -> str:
        time.sleep(seconds)
        return "done"


def test_a_part_is_timed_within_the_whole_and_its_owner_left_as_it_was() -> None:
    watch, owner = Stopwatch(torch.device("cpu")), Frozen()
    with watch.splitting({"part": [(owner, "work")], "never": []}):
        assert watch.time("whole", lambda: [time.sleep(0.02), owner.work(0.02), owner.work(seconds=0.01)][1]) == "done"
    assert watch.seconds["part"] >= 0.03
    assert watch.seconds["whole"] >= watch.seconds["part"] + 0.02
    assert watch.seconds["never"] == 0
    assert "work" not in vars(owner)
    owner.work(0)
    assert set(watch.seconds) == {"part", "whole", "never"}


class Slow(Notebook):
    """Takes its time and its memory."""

    def __init__(self, seconds: float, numbers: int) -> None:
        super().__init__({})
        self.lm = SimpleNamespace(device=torch.device("cpu"))  # type: ignore[assignment]
        self.seconds, self.numbers = seconds, numbers

    def apply(self, edits: Sequence[Edit]) -> None:
        super().apply(edits)
        time.sleep(self.seconds)
        torch.zeros(self.numbers)


def test_each_editor_makes_each_edit_alone_and_in_turn() -> None:
    editors = {"none": Slow(0.0, 1), "slow": Slow(0.02, 1000)}
    rows = measure_costs(editors, EDITS, warm=1, weighed=2, answer_tokens=3)
    frame = pd.DataFrame(rows)
    assert frame["case_id"].drop_duplicates().tolist() == ["1", "2", "3"]
    assert frame["method"].tolist()[:8] == ["none"] * 4 + ["slow"] * 4
    wide = frame.pivot_table(index="method", columns="measure", values="value")
    assert wide.loc["slow", cost.EDIT] >= 0.02
    assert wide.loc["slow", cost.PEAK] == 4000
    assert (frame["measure"] == cost.PEAK).sum() == 2 * 2
    assert editors["slow"].told == {}
    assert editors["slow"].prompts[:2] == ["s0 is", "n0 is"]


def rows(**seconds: Sequence[float]) -> list[dict]:
    measures = (cost.EDIT, cost.ANSWER, cost.LATER)
    return [
        {"case_id": str(case), "method": method, "measure": measure, "value": value * (1 + case)}
        for method, values in seconds.items()
        for case in range(3)
        for measure, value in zip(measures, values, strict=True)
    ]


def test_figures_are_medians_over_edits_and_ratios_within_an_edit() -> None:
    made = rows(none=(0.0, 1.0, 1.0), fast=(1.0, 1.0, 3.0), slow=(10.0, 1.0, 1.0))
    made += [{"case_id": "0", "method": "fast", "measure": cost.PEAK, "value": 7.0}]
    parts = {cost.ENCODING: 0.5, cost.DECODING: 0.25}
    made += [
        {"case_id": str(case), "method": "fast", "measure": name, "value": value * (1 + case)}
        for name, value in parts.items()
        for case in range(3)
    ]
    table = cost_table(made, unedited="none")
    found = table.set_index(["method", "measure"])["value"]
    assert found["fast", cost.EDIT] == 2.0
    assert found["slow", cost.ANSWERED] == 22.0
    assert found["fast", cost.ADDED] == 4.0
    assert found["none", cost.ADDED] == 0.0
    assert found["fast", cost.MEMORY] == pytest.approx(2 * (2 - 0.75))
    assert ("slow", cost.MEMORY) not in found
    ratio = speedups(made, "fast", ["slow"])["slow"]
    assert (ratio["edit"].value, ratio["edit"].low, ratio["edit"].high, ratio["edit"].n) == (10, 10, 10, 3)
    assert ratio["answered"].value == 5.5
    figures = figures_of(table, {"fast": {"slow": ratio}})
    assert figures["fast"]["seconds_per_edit"].value == 2.0  # type: ignore[attr-defined]
    assert figures["fast"]["peak_bytes"].value == 7.0  # type: ignore[attr-defined]
    assert figures["fast"]["speedup"] == {"slow": ratio}
    assert "peak_bytes" not in figures["slow"]
    assert set(figures["fast"]["seconds"]) >= {"first_answer", "added_to_a_later_prompt", "memory"}  # type: ignore[call-overload]


def test_a_median_lies_within_its_interval() -> None:
    figure = median(pd.Series([1.0, 2.0, 3.0, 100.0, 2.5]))
    assert figure.value == 2.5
    assert 1.0 <= figure.low <= 2.5 <= figure.high <= 100.0
    assert figure.n == 5
    with pytest.raises(ValueError, match="median of nothing"):
        median(pd.Series([], dtype=float))
    assert not math.isnan(median(pd.Series([1.0])).low)
