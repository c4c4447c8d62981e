"""An HTTP server on loopback whose faults a test chooses, and a small data set to fetch from it."""

from __future__ import annotations

import io
import json
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from cae_lib.data.sources import Item, Pictures, Rows, Source


class FileServer:
    """Serves `files` (path to bytes) and does wrong what a test asks for."""

    def __init__(self) -> None:
        self.url = ""
        self.files: dict[str, bytes] = {}
        self.etag: str | None = '"one"'
        self.ranges = True  # answer range requests; else send everything
        self.cuts: list[int] = []  # bytes of the next bodies after which the connection breaks
        self.statuses: list[int] = []  # of the next answers, which are empty
        self.kind = "application/octet-stream"
        self.asked: list[tuple[str | None, str | None]] = []  # headers Range and If-Range


def _handler(server: FileServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

        def _answer(self, status: int, length: int, **headers: str | None) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(length))
            for name, value in headers.items():
                if value:
                    self.send_header(name.replace("_", "-"), value)
            self.end_headers()

        def do_GET(self) -> None:
            wanted, version = self.headers.get("Range"), self.headers.get("If-Range")
            server.asked.append((wanted, version))
            content = server.files.get(self.path, b"")
            status = server.statuses.pop(0) if server.statuses else 200 if content else 404
            if status != 200:
                return self._answer(status, 0)
            start, total, span = 0, len(content), None
            if wanted and server.ranges and version == server.etag:
                start = int(wanted.removeprefix("bytes=").removesuffix("-"))
                if start >= total:
                    return self._answer(416, 0, Content_Range=f"bytes */{total}")
                status, span = 206, f"bytes {start}-{total - 1}/{total}"
            self._answer(status, total - start, Content_Type=server.kind, ETag=server.etag,
                         Content_Range=span)
            self.wfile.write(content[start:][: server.cuts.pop(0) if server.cuts else None])
            self.close_connection = True

    return Handler


@pytest.fixture
def file_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A running server; between two tries nobody waits."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("cae_lib.data.download.time.sleep", lambda seconds: None)
    state = FileServer()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(state))
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def small_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let the disk have so many free bytes beside the 200 MB that stay free."""

    def shrink(free: int) -> None:
        usage = SimpleNamespace(free=free + 200_000_000)
        monkeypatch.setattr("cae_lib.data.download.shutil.disk_usage", lambda folder: usage)

    return shrink


@pytest.fixture
def zipped() -> Callable[[dict[str, bytes]], bytes]:
    """Make a zip archive of `{name: content}`."""

    def make(files: dict[str, bytes]) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return buffer.getvalue()

    return make


@pytest.fixture
def archive(zipped) -> bytes:
    """The pictures of the set `toy`."""
    return zipped({"pictures/a.jpg": b"A", "pictures/b.jpg": b"B"})


@pytest.fixture
def rows() -> bytes:
    """The annotations of the set `toy`."""
    return json.dumps([{"image": "a.jpg"}, {"image": "b.jpg"}]).encode()


@pytest.fixture
def make_source(home: Path) -> Callable[..., Source]:
    """A source named toy, of the given items, below an empty `data/raw`."""

    def make(*items: Item, **fields) -> Source:
        return Source("toy", "Toy", "benchmark", "https://a.b", "MIT", "None.", "toy", items,
                      **fields)

    return make


@pytest.fixture
def toy(make_source, file_server: FileServer, rows: bytes, archive: bytes) -> Source:
    """A set of one annotation file and an archive of two pictures, which the server has."""
    file_server.files |= {"/rows.json": rows, "/pictures.zip": archive}
    return make_source(
        Item(url=f"{file_server.url}/rows.json", to="data/rows.json"),
        Item(url=f"{file_server.url}/pictures.zip", unpack="images"),
        rows=(Rows("data/rows.json", 2),),
        pictures=(Pictures("data/rows.json", ("image",), ("images",)),),
    )
