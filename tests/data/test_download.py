from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from palimpsest.data.download import DownloadError, Source, fetch
from palimpsest.data.sources import SOURCES
from palimpsest.facts import DataError

CONTENT = bytes(range(256)) * 1_200  # 307,200 bytes: more than one block
OTHER = CONTENT[::-1]


class Server(ThreadingHTTPServer):
    """Serves ``content`` at any path; ``faults`` names what goes wrong in the first requests, one each."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.ranges = True
        self.announce = True
        self.faults: list[str] = []
        self.requests: list[str | None] = []
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/file.json"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        server, asked = self.server, self.headers["Range"]
        server.requests.append(asked)
        fault = server.faults.pop(0) if server.faults else ""
        if fault.isdecimal():
            return self.send_error(int(fault))
        content, start = server.content, 0
        if asked and server.ranges:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                return self.send_error(416)
            self.send_response(206)
            shift = 1 if fault == "shift" else 0
            self.send_header("Content-Range", f"bytes {start + shift}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        body = content[start:]
        if server.announce:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if fault in ("cut", "stall") else body)
        if fault == "stall":
            server.released.wait(10)
        return None


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.released.set()
        running.shutdown()


def source(url: str | None, content: bytes = CONTENT, **changes: Any) -> Source:
    digest = hashlib.sha256(content).hexdigest()
    return Source(**{"name": "file.json", "url": url, "size": len(content), "sha256": digest} | changes)


def get(source: Source, path: Path, mirror: Path | None = None, attempts: int = 3) -> Path:
    return fetch(source, path, mirror, attempts=attempts, backoff=0.01, timeout=0.5, progress=False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "file.json"


def left(path: Path) -> dict[str, bytes]:
    """Everything in the folder of the file."""
    return {file.name: file.read_bytes() for file in path.parent.iterdir()} if path.parent.exists() else {}


def test_a_file_is_fetched_once(server: Server, path: Path) -> None:
    assert get(source(server.url), path) == path
    assert get(source(server.url), path) == path
    assert left(path) == {"file.json": CONTENT}
    assert server.requests == [None]


def test_a_git_blob_is_a_digest_too(server: Server, path: Path) -> None:
    server.content = b"hello\n"  # git hash-object: ce013625030ba8dba906f756967f9e9ca394464a
    blob = source(server.url, size=None, sha256=None, git_blob="ce013625030ba8dba906f756967f9e9ca394464a")
    get(blob, path)
    assert left(path) == {"file.json": b"hello\n"}
    server.content = b"hallo\n"
    path.unlink()
    with pytest.raises(DownloadError, match="expected git blob ce013625030ba8dba906f756967f9e9ca394464a, found"):
        get(blob, path)


@pytest.mark.parametrize("fault", ["cut", "stall"])
def test_a_broken_transfer_goes_on_where_it_stopped(server: Server, path: Path, fault: str) -> None:
    server.faults = [fault]
    get(source(server.url), path)
    assert left(path) == {"file.json": CONTENT}
    first, second = server.requests
    assert first is None
    assert second is not None
    assert 0 < int(second.removeprefix("bytes=").removesuffix("-")) <= len(CONTENT) // 2


def test_a_short_body_of_unannounced_length_is_noticed(server: Server, path: Path) -> None:
    server.announce, server.faults = False, ["cut"]
    get(source(server.url), path)
    assert left(path) == {"file.json": CONTENT}
    assert server.requests == [None, f"bytes={len(CONTENT) // 2}-"]


def test_a_server_that_ignores_ranges_starts_over(server: Server, path: Path) -> None:
    server.ranges, server.faults = False, ["cut"]
    get(source(server.url), path)
    assert left(path) == {"file.json": CONTENT}
    assert len(server.requests) == 2


@pytest.mark.parametrize("faults", [["500"], ["503", "429"]])
def test_passing_errors_are_tried_again(server: Server, path: Path, faults: list[str]) -> None:
    server.faults = faults.copy()
    get(source(server.url), path)
    assert left(path) == {"file.json": CONTENT}
    assert len(server.requests) == len(faults) + 1


def test_waiting_doubles(server: Server, path: Path) -> None:
    server.faults = ["500"] * 3
    start = time.monotonic()
    fetch(source(server.url), path, attempts=4, backoff=0.05, timeout=0.5, progress=False)
    assert 0.35 <= time.monotonic() - start < 2  # 0.05 + 0.1 + 0.2


def test_lasting_errors_are_told_and_what_came_is_kept(server: Server, path: Path) -> None:
    server.faults = ["cut", "500", "503"]
    with pytest.raises(DownloadError) as caught:
        get(source(server.url), path)
    assert str(caught.value) == f"{server.url}: failed 3 times, at last with: HTTP 503 Service Unavailable"
    kept = left(path)["file.json.part"]
    assert kept
    assert CONTENT.startswith(kept)
    get(source(server.url), path)
    assert server.requests[3:] == [f"bytes={len(kept)}-"]
    assert left(path) == {"file.json": CONTENT}


def test_what_does_not_exist_is_asked_for_once(server: Server, path: Path) -> None:
    server.faults = ["404"]
    with pytest.raises(DataError, match=f"^{server.url}: 404 Client Error: Not Found"):
        get(source(server.url), path)
    assert len(server.requests) == 1
    assert left(path) == {}


def test_nobody_listens(path: Path) -> None:
    with pytest.raises(DownloadError, match=r"^http://127\.0\.0\.1:9/x: failed 2 times, at last with: .*refused"):
        get(source("http://127.0.0.1:9/x"), path, attempts=2)


@pytest.mark.parametrize("served", [OTHER, CONTENT + b"more"])
def test_wrong_bytes_are_deleted_and_the_old_file_stays(server: Server, path: Path, served: bytes) -> None:
    server.content = served
    path.parent.mkdir()
    path.write_bytes(b"old")
    with pytest.raises(DownloadError) as caught:
        get(source(server.url), path)
    message = str(caught.value)
    assert message.startswith(f"{server.url}: expected ")
    if served == OTHER:
        sha256 = hashlib.sha256
        assert f"SHA-256 {sha256(CONTENT).hexdigest()}, found {sha256(OTHER).hexdigest()}" in message
    else:
        assert f"{len(CONTENT)} bytes, found {len(served)}" in message
    assert left(path) == {"file.json": b"old"}
    assert len(server.requests) == 1


def test_a_wrong_file_is_replaced(server: Server, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(OTHER)
    get(source(server.url), path)
    assert left(path) == {"file.json": CONTENT}


def test_content_that_changed_since_the_first_part_starts_over(server: Server, path: Path) -> None:
    path.parent.mkdir()
    path.with_name("file.json.part").write_bytes(OTHER[:1_000])
    get(source(server.url), path)
    assert left(path) == {"file.json": CONTENT}
    assert server.requests == ["bytes=1000-", None]


@pytest.mark.parametrize("size", [len(CONTENT), len(CONTENT) + 5])
def test_a_part_too_long_to_go_on_from_starts_over(server: Server, path: Path, size: int) -> None:
    path.parent.mkdir()
    path.with_name("file.json.part").write_bytes(b"x" * size)
    get(source(server.url), path)  # the server answers 416
    assert left(path) == {"file.json": CONTENT}
    assert server.requests == [f"bytes={size}-", None]


def test_a_range_other_than_the_one_asked_for_is_refused(server: Server, path: Path) -> None:
    server.faults = ["cut", "shift"]
    get(source(server.url), path)
    assert left(path) == {"file.json": CONTENT}
    assert [bool(asked) for asked in server.requests] == [False, True, False]


def test_a_part_that_is_whole_needs_no_request(server: Server, path: Path) -> None:
    path.parent.mkdir()
    path.with_name("file.json.part").write_bytes(CONTENT)
    get(source(server.url), path)
    assert left(path) == {"file.json": CONTENT}
    assert server.requests == []


@pytest.mark.parametrize("name", ["file.json", "other_name.json"])
def test_a_mirror_is_asked_first(server: Server, path: Path, tmp_path: Path, name: str) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / name).write_bytes(CONTENT)
    get(source(server.url, aliases=("other_name.json",)), path, mirror)
    assert left(path) == {"file.json": CONTENT}
    assert server.requests == []


def test_what_a_mirror_lacks_is_downloaded(server: Server, path: Path, tmp_path: Path) -> None:
    get(source(server.url), path, tmp_path)
    assert len(server.requests) == 1


def test_wrong_bytes_in_a_mirror(server: Server, path: Path, tmp_path: Path) -> None:
    (tmp_path / "file.json").write_bytes(b"other")
    with pytest.raises(DownloadError) as caught:
        get(source(server.url), path, tmp_path)
    assert str(caught.value) == f"{tmp_path / 'file.json'}: expected {len(CONTENT)} bytes, found 5"
    assert left(path) == {}


def test_a_mirror_only_file_needs_its_mirror(path: Path, tmp_path: Path) -> None:
    only = source(None, aliases=("b.json",))
    with pytest.raises(DownloadError) as caught:
        get(only, path)
    needed = "file.json: has no public address, and a mirror folder is needed (as file.json or b.json)"
    assert str(caught.value) == needed
    with pytest.raises(DownloadError, match=r"mirror .* does not have it \(as file\.json or b\.json\)"):
        get(only, path, tmp_path)
    with pytest.raises(DownloadError, match="absent: expected a folder, found none"):
        get(only, path, tmp_path / "absent")


def test_a_place_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    path = tmp_path / "file" / "file.json"
    with pytest.raises(DownloadError, match=f"^{path}: cannot be made"):
        get(source(server.url), path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full, which stands for a full disk")
def test_a_full_disk(server: Server, path: Path) -> None:
    path.parent.mkdir()
    path.with_name("file.json.part").symlink_to("/dev/full")
    with pytest.raises(DownloadError, match=f"^{path}: cannot be made .*No space left on device"):
        get(source(server.url), path)
    assert not path.exists()


def test_a_source_without_digest_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a digest"):
        Source("file.json", "http://example.org/file.json", size=3)


@pytest.mark.parametrize("key", ["redocred/dev", "wikidata/properties", "counterfact/easyedit10k", "zsre/mend1k"])
def test_the_real_samples_are_what_their_sources_promise(samples: Path, path: Path, key: str) -> None:
    wanted = SOURCES[key]
    fetch(wanted, path, samples, progress=False)
    assert path.stat().st_size == wanted.size
