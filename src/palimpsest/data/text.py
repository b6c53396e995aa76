"""Plain text, one chunk a line: what language models and memories are trained on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from palimpsest.data.records import atomic
from palimpsest.facts import DataError


def read_chunks(path: Path) -> Iterator[str]:
    """Read chunks one by one; blank lines are skipped.

    Raises:
        DataError: the file cannot be read (on the first chunk), or a line is not UTF-8 (when it is reached).
    """
    try:
        # In bytes, because only these have lines that end with a line feed alone: text may hold other separators.
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    chunk = line.decode("utf-8").removesuffix("\n").removesuffix("\r")
                except UnicodeDecodeError as error:
                    found = line[error.start : error.end]
                    raise DataError(f"{path}: line {number}: expected UTF-8, found {found!r}") from error
                if chunk.strip():
                    yield chunk
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def write_chunks(path: Path, chunks: Iterable[str]) -> int:
    """Write chunks, atomically, and return how many there were.

    Raises:
        DataError: a chunk is blank or has a line break in it, so that it could not be read again.
    """
    count = 0
    with atomic(path) as file:
        for index, chunk in enumerate(chunks):
            if not chunk.strip() or "\n" in chunk or "\r" in chunk:
                raise DataError(f"{path}: chunk {index}: expected one line that is not blank, found {chunk[:80]!r}")
            file.write(chunk + "\n")
            count += 1
    return count
