from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from palimpsest.pipeline import tracking
from palimpsest.pipeline.tracking import TrackingError

PROGRAM = """
import sys
from palimpsest.pipeline import tracking
with tracking.start("offline", "palimpsest", "lm", {"lm": {"steps": 3}}, sys.argv[1]) as run:
    for step in range(3):
        run.log({"loss": 1 / (step + 1)}, step=step)
"""


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without an account."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_DIR", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "home" / "netrc"))


def test_offline_leaves_a_run_on_disk_and_says_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=True)
    assert (done.stdout, done.stderr) == ("", "")
    (record,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    assert b"loss" in record.read_bytes()


def test_disabled_leaves_nothing_and_needs_no_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.chdir(tmp_path)
    with tracking.start("disabled", "palimpsest", "lm", {}) as run:
        run.log({"loss": 1.0}, step=1)
    assert list(tmp_path.iterdir()) == []


def test_online_without_a_key_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match="WANDB_API_KEY"), tracking.start("online", "p", "lm", {}, tmp_path):
        pytest.fail("the block ran")
    assert not (tmp_path / "wandb").exists()


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(TrackingError, match="'of'"), tracking.start("of", "p", "lm", {}):  # type: ignore[arg-type]
        pytest.fail("the block ran")


def test_if_it_cannot_start_the_block_runs_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.warns(UserWarning, match="going on without tracking"),
        tracking.start("offline", "p", "lm", {}, tmp_path / "file") as run,
    ):
        run.log({"loss": 1.0})


class Breaking:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def log(self, values: dict[str, float], step: int | None) -> None:
        self.calls.append("log")
        raise BrokenPipeError("gone")

    def finish(self, exit_code: int) -> None:
        self.calls.append(f"finish {exit_code}")


def test_if_it_breaks_on_the_way_it_is_let_go_once() -> None:
    backend = Breaking()
    run = tracking.Run(backend)
    with pytest.warns(UserWarning, match="tracking stopped: gone"):
        run.log({"loss": 1.0})
    run.log({"loss": 1.0})
    run.finish(failed=False)
    assert backend.calls == ["log"]


def test_a_block_that_raises_marks_the_run_as_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = Breaking()
    monkeypatch.setattr(tracking, "_begin", lambda *_: backend)
    with pytest.raises(RuntimeError, match="mine"), tracking.start("offline", "p", "lm", {}):
        raise RuntimeError("mine")
    assert backend.calls == ["finish 1"]
