"""A writer of small files in the official layouts; an HTTP server on loopback whose faults a test
chooses, and a small data set to fetch from it."""

import csv
import io
import json
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from cae_lib.data.sources import Item, Pictures, Rows, Source


@pytest.fixture
def put(tmp_path: Path) -> Callable[[Mapping[str, Any]], Path]:
    """Write files by path: pictures, rows as separated values, texts as they are, else JSON."""

    def write(files: Mapping[str, Any]) -> Path:
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix in (".jpg", ".jpeg", ".png"):
                Image.new("RGB", content or (8, 8), (200, 30, 40)).save(path)
                continue
            if path.suffix in (".csv", ".tsv") and not isinstance(content, str):
                buffer, delimiter = io.StringIO(), {".csv": ",", ".tsv": "\t"}[path.suffix]
                csv.writer(buffer, delimiter=delimiter).writerows(content)
                content = buffer.getvalue()
            text = content if isinstance(content, str) else json.dumps(content)
            path.write_text(text, encoding="utf-8", newline="")
        return tmp_path

    return write


class FileServer(ThreadingHTTPServer):
    """Serves `files` (path to bytes) and does wrong what a test asks for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.files: dict[str, bytes] = {}
        self.etag: str | None = '"one"'
        self.ranges: bool | str = True  # answer range requests ("wrong": others); else send all
        self.cuts: list[int] = []  # bytes of the next bodies after which the connection breaks
        self.statuses: list[int] = []  # of the next answers, which are empty
        self.kind = "application/octet-stream"
        self.asked: list[tuple[str | None, str | None]] = []  # headers Range and If-Range


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        server, wanted, version = self.server, self.headers["Range"], self.headers["If-Range"]
        server.asked.append((wanted, version))
        content, span = server.files.get(self.path, b""), None
        total = len(content)
        status = server.statuses.pop(0) if server.statuses else 200 if content else 404
        if status == 200 and wanted and server.ranges and version == server.etag:
            start = int(wanted[len("bytes=") : -1]) + (server.ranges == "wrong")
            status, span = 206, f"bytes {start}-{total - 1}/{total}"
            if start >= total:
                status, span = 416, f"bytes */{total}"
            content = content[start:]
        body = content if status in (200, 206) else b""
        self.send_response(status)
        headers = {
            "Content-Length": str(len(body)),
            "Content-Type": server.kind,
            "ETag": server.etag,
            "Content-Range": span,
        }
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[: server.cuts.pop(0) if server.cuts and body else None])
        self.close_connection = True


@pytest.fixture
def file_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A running server; between two tries nobody waits."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("cae_lib.data.download.time.sleep", lambda seconds: None)
    with FileServer() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}).start()
        yield server
        server.shutdown()


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
def make_source(home: Path) -> Callable[..., Source]:
    """A source named toy, of the given items, below an empty `data/raw`."""
    return lambda *items, **rest: Source("toy", "Toy", "", "", "MIT", "None.", "toy", items, **rest)


@pytest.fixture
def toy(make_source, file_server: FileServer, zipped) -> Source:
    """A set of one annotation file and an archive of two pictures, which the server has."""
    file_server.files = {
        "/rows.json": b'[{"image": "a.jpg"}, {"image": "b.jpg"}]',
        "/pictures.zip": zipped({"pictures/a.jpg": b"A", "pictures/b.jpg": b"B"}),
    }
    return make_source(
        Item(url=f"{file_server.url}/rows.json", to="data/rows.json"),
        Item(url=f"{file_server.url}/pictures.zip", unpack="images"),
        rows=(Rows("data/rows.json", 2),),
        pictures=(Pictures("data/rows.json", ("image",), ("images/{}",)),),
    )
