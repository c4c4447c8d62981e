"""A writer of small files in the official layouts; an HTTP server on loopback, and a small dataset
to fetch from it."""

import csv
import io
import json
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cae_bench.sources import Download, ExpectedRows, ReferencedImages, Source


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
    """Serves `files` (path to bytes), or an error, or only the beginning of a file."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.files: dict[str, bytes] = {}
        self.cut: int | None = None  # bytes of a body after which the connection breaks
        self.asked: list[str] = []  # paths


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        body = self.server.files.get(self.path, b"")
        self.send_response(200 if body else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.cut])
        self.close_connection = True


@pytest.fixture
def file_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A running server, which no proxy hides."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with FileServer() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}).start()
        yield server
        server.shutdown()


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
    """A source of one annotation file and an archive of two images, which the server has."""
    file_server.files = {
        "/rows.json": b'[{"image": "a.jpg"}, {"image": "b.jpg"}]',
        "/pictures.zip": zipped({"pictures/a.jpg": b"A", "pictures/b.jpg": b"B"}),
    }
    return make_source(
        Download(url=f"{file_server.url}/rows.json", to="data/rows.json"),
        Download(url=f"{file_server.url}/pictures.zip", unpack="images"),
        rows=(ExpectedRows("data/rows.json", 2),),
        images=(ReferencedImages("data/rows.json", ("image",), ("images/{}",)),),
    )
