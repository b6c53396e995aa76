"""Weights & Biases, at arm's length: offline by default, never needing an account, never stopping a run.

    with tracking.start("offline", "palimpsest", "lm", config) as run:
        run.log({"loss": loss}, step=step)

Offline runs lie in ``wandb/`` until ``wandb sync`` sends them.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

Mode = Literal["offline", "online", "disabled"]


class TrackingError(RuntimeError):
    """Tracking cannot be had as asked for."""


class Run:
    """Where numbers go while something runs; nowhere if tracking is disabled or has failed."""

    def __init__(self, backend: Any = None) -> None:
        self._backend = backend

    def log(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Record ``values``, at ``step`` if given. If that fails, warn and go on without tracking."""
        self._call("log", dict(values), step=step)

    def finish(self, *, failed: bool) -> None:
        """Close the run; further calls do nothing."""
        self._call("finish", exit_code=int(failed))
        self._backend = None

    def _call(self, method: str, *args: Any, **kwargs: Any) -> None:
        if self._backend is None:
            return
        try:
            getattr(self._backend, method)(*args, **kwargs)
        except Exception as error:  # whatever breaks in there is no reason to lose a training run
            warnings.warn(f"tracking stopped: {error}", stacklevel=3)
            self._backend = None


@contextmanager
def start(mode: Mode, project: str, name: str, config: Mapping[str, Any], folder: Path | str = ".") -> Iterator[Run]:
    """A run called ``name`` in ``project``, kept under ``folder``/wandb and marked as failed if the block raises.

    Raises TrackingError for an unknown mode, and for ``online`` without an API key or with a wrong one. If tracking
    cannot start for another reason it says so, and the block goes on untracked.
    """
    if mode not in get_args(Mode):
        raise TrackingError(f"tracking mode {mode!r}: expected one of {', '.join(get_args(Mode))}")
    run = Run(None if mode == "disabled" else _begin(mode, project, name, config, Path(folder)))
    try:
        yield run
    except BaseException:
        run.finish(failed=True)
        raise
    run.finish(failed=False)


def _begin(mode: Mode, project: str, name: str, config: Mapping[str, Any], folder: Path) -> Any:
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read when wandb is imported
    import wandb

    offline = mode == "offline"
    try:
        if not offline and not wandb.login(prompt=False):
            raise TrackingError(
                "tracking=online needs an API key (WANDB_API_KEY, or `wandb login`); or use tracking=offline"
            )
        folder.mkdir(parents=True, exist_ok=True)
        settings = wandb.Settings(
            silent=True,
            console="off",
            disable_code=True,
            x_disable_meta=offline,
            x_disable_stats=offline,
        )
        return wandb.init(
            mode=mode,
            project=project,
            name=name,
            config=dict(config),
            dir=str(folder),
            reinit="create_new",
            settings=settings,
        )
    except (TrackingError, wandb.errors.AuthenticationError):
        raise
    except Exception as error:
        warnings.warn(f"going on without tracking, which could not start: {error}", stacklevel=4)
        return None
