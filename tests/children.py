"""Processes beside that of a test: what they send comes back, and what they die of is told in full."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

PATIENCE = 300  # seconds


@dataclass(frozen=True)
class Child:
    """A process that a test has started."""

    process: BaseProcess
    connection: Connection
    """What it sends comes out here."""


Start = Callable[..., Child]
"""``start(function, *arguments)`` runs ``function(connection, *arguments)`` in a process of its own."""


@dataclass(frozen=True)
class Failure:
    """The last message of a process that an error ended."""

    trace: str


def run(connection: Connection, function: Callable[..., None], *arguments: Any) -> None:
    """What a child does: the function, and to say what went wrong with it. It does not outlive the tests."""
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        function(connection, *arguments)
    except BaseException:
        connection.send(Failure(traceback.format_exc()))
        sys.exit(1)


def _die_with_parent() -> None:
    parent_process().join()
    os._exit(1)


def received(child: Child) -> Iterator[Any]:
    """What comes, until the other side has gone. Raises AssertionError if it fails, or says nothing for long."""
    with suppress(EOFError, ConnectionResetError):
        while child.connection.poll(PATIENCE):
            message = child.connection.recv()
            if isinstance(message, Failure):
                raise AssertionError(f"process {child.process.pid}: {message.trace}")
            yield message
        raise AssertionError(f"process {child.process.pid} says nothing")


def finished(*children: Child) -> list[list[Any]]:
    """What each of some processes sent, which all ran to their end. Raises AssertionError with the errors of all."""
    sent, errors = [], []
    for child in children:
        try:
            sent.append(list(received(child)))
            child.process.join(PATIENCE)
            if (code := child.process.exitcode) != 0:
                errors.append(f"process {child.process.pid}: exit code {code}, see its standard error; sent {sent[-1]}")
        except AssertionError as error:
            errors.append(str(error))
    assert not errors, "\n\n".join(errors)
    return sent
