"""Rows on disk: whole or not at all, and of one setting."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from palimpsest.evaluation.rows import RowFiles, kept, read_rows, write_rows

ROWS = [{"case_id": "0", "exact": True, "difference": None, "text": "Ærø\u2028"}]


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    for name, rows in (("some", ROWS), ("none", [])):
        write_rows(tmp_path / f"{name}.jsonl", rows)
        assert read_rows(tmp_path / f"{name}.jsonl") == rows
    assert (tmp_path / "none.jsonl").read_bytes() == b""


def test_row_files_are_whole_and_belong_to_one_setting(tmp_path: Path) -> None:
    sink = RowFiles(tmp_path, {"rate": 1})
    assert sink.load("a") is None
    sink.save("a", ROWS)
    sink.save("none", [])
    assert sink.load("a") == ROWS
    assert sink.load("none") == []
    assert RowFiles(tmp_path, {"rate": 2}).load("a") is None
    lines = (tmp_path / "a.jsonl").read_text(encoding="utf-8").split("\n")
    assert json.loads(lines[0]) == {"rate": 1}
    assert len(lines) == 3
    with pytest.raises(ValueError, match="JSON compliant"):
        sink.save("a", [{"difference": float("nan")}])
    assert sink.load("a") == ROWS  # what cannot be written leaves what was there


def test_what_is_kept_is_not_made_again(tmp_path: Path) -> None:
    sink, calls = RowFiles(tmp_path, {}), []

    def make() -> list[dict]:
        calls.append(1)
        return ROWS

    assert [kept(sink, "a", make) for _ in range(3)] == [ROWS] * 3
    assert len(calls) == 1
