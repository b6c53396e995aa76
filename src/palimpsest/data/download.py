"""Verified, resumable downloads of published files, or copies of them from a mirror folder.

A file appears under its name only once its size and digest are the expected ones; until then it is ``<name>.part``,
which survives an interruption and is continued from. A file that is there already and right costs no request.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import requests
from tqdm import tqdm

from palimpsest.facts import DataError

CHUNK = 1 << 16


class DownloadError(DataError):
    """A file that cannot be had, or is not the one expected. The message names its address or its path in a mirror."""


class Retry(Exception):
    """A failure that may pass: another attempt is worth making."""


TRANSIENT = (
    Retry,
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.ContentDecodingError,
)


@dataclass(frozen=True, slots=True)
class Source:
    """A published file and how to know it.

    ``name`` is its file name, and ``aliases`` are others that it may have in a mirror; a source without ``url`` can
    only come from a mirror. At least one digest is needed: ``sha256``, or ``git_blob``, git's name for the content.
    """

    name: str
    url: str | None
    size: int | None = None
    sha256: str | None = None
    git_blob: str | None = None
    aliases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.sha256 is None and self.git_blob is None:
            raise ValueError(f"source {self.name}: expected a digest, sha256 or git_blob, found none")


def mismatch(path: Path, source: Source) -> str | None:
    """How a file differs from what its source promises, in words; ``None`` if it does not."""
    size = path.stat().st_size
    if source.size is not None and size != source.size:
        return f"expected {source.size} bytes, found {size}"
    checks = (
        ("SHA-256", source.sha256, hashlib.sha256()),
        ("git blob", source.git_blob, hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)),
    )
    for name, expected, digest in checks:
        if expected is not None:
            with path.open("rb") as file:
                while block := file.read(CHUNK):
                    digest.update(block)
            if digest.hexdigest() != expected:
                return f"expected {name} {expected}, found {digest.hexdigest()}"
    return None


def fetch(
    source: Source,
    destination: Path,
    mirror: Path | None = None,
    *,
    attempts: int = 5,
    backoff: float = 1.0,
    timeout: float = 30.0,
    progress: bool = True,
) -> Path:
    """Make sure that a source's file is at ``destination``.

    Args:
        source: the file wanted.
        destination: where it is to be; a file there with other content is replaced once the right one is complete.
        mirror: a folder to take it from, if it is there under its name or an alias; otherwise it is downloaded.
        attempts: how often to try when the server or the connection fails; each goes on where the last one stopped.
        backoff: seconds before the second attempt; doubles with each further one.
        timeout: seconds without a connection, or without a byte, that count as a failure.
        progress: show a progress bar (on a terminal only).

    Returns:
        ``destination``.

    Raises:
        DownloadError: no mirror or address has the file, its content is wrong, or it cannot be written here.
    """
    part = destination.with_name(destination.name + ".part")
    try:
        if destination.is_file() and mismatch(destination, source) is None:
            return destination
        destination.parent.mkdir(parents=True, exist_ok=True)
        original = None if mirror is None else _find(source, mirror)
        if original is not None:
            _copy(source, original, part)
        elif source.url is None:
            names = " or ".join((source.name, *source.aliases))
            place = "a mirror folder is needed" if mirror is None else f"mirror {mirror} does not have it"
            raise DownloadError(f"{source.name}: has no public address, and {place} (as {names})")
        else:
            _download(source, source.url, part, attempts, backoff, timeout, progress)
        part.replace(destination)
    except requests.RequestException as error:  # before OSError, of which it is a kind
        raise DownloadError(f"{source.url}: {error}") from error
    except OSError as error:
        raise DownloadError(f"{destination}: cannot be made ({error})") from error
    return destination


def _find(source: Source, mirror: Path) -> Path | None:
    if not mirror.is_dir():
        raise DownloadError(f"mirror {mirror}: expected a folder, found none")
    return next((path for name in (source.name, *source.aliases) if (path := mirror / name).is_file()), None)


def _copy(source: Source, original: Path, part: Path) -> None:
    shutil.copyfile(original, part)
    if problem := mismatch(part, source):  # of the copy, which is what will be used
        part.unlink()
        raise DownloadError(f"{original}: {problem}")


def _download(
    source: Source, url: str, part: Path, attempts: int, backoff: float, timeout: float, progress: bool
) -> None:
    """Bring ``part`` to the right content, or raise."""
    failure: Exception | str = "no attempt was made"
    for attempt in range(attempts):
        if attempt:
            time.sleep(backoff * 2 ** (attempt - 1))
        try:
            resumed = _receive(source, url, part, timeout, progress)
        except TRANSIENT as error:
            failure = error
            continue
        problem = mismatch(part, source)
        if problem is None:
            return
        part.unlink()
        if not resumed:
            raise DownloadError(f"{url}: {problem}")
        failure = problem  # the beginning was an older file's: try again without it
    raise DownloadError(f"{url}: failed {attempts} times, at last with: {failure}")


def _receive(source: Source, url: str, part: Path, timeout: float, progress: bool) -> bool:
    """Make one request and write what comes to ``part``; returns whether that went on from what was there."""
    offset = part.stat().st_size if part.is_file() else 0
    if offset and mismatch(part, source) is None:  # all was there but the last step
        return True
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={offset}-"} if offset else {})
    with requests.get(url, headers=headers, stream=True, timeout=timeout) as response:
        status = response.status_code
        resumed = status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {offset}-")
        if status == 416 or (status == 206 and not resumed):
            part.unlink(missing_ok=True)
            raise Retry(f"HTTP {status} {response.reason}: the server cannot go on from byte {offset}")
        if status == 429 or status >= 500:
            raise Retry(f"HTTP {status} {response.reason}")
        response.raise_for_status()
        bar = tqdm(
            total=source.size,
            initial=offset if resumed else 0,
            desc=source.name,
            unit="B",
            unit_scale=True,
            disable=None if progress else True,
        )
        with bar, part.open("ab" if resumed else "wb") as file:
            for block in response.iter_content(CHUNK):
                file.write(block)
                bar.update(len(block))
                if source.size is not None and file.tell() > source.size:
                    break  # wrong already, however much more there is
            size = file.tell()
            file.flush()
            os.fsync(file.fileno())
    if source.size is not None and size < source.size:
        raise Retry(f"the body ended after {size} of {source.size} bytes")
    return resumed
