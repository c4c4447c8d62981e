"""An HTTP server on loopback whose faults a test chooses, and a small data set to fetch from it."""

from __future__ import annotations

import io
import json
import re
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cae_lib.data.sources import Item, Pictures, Rows, Source, Unpack


class FileServer:
    """Serves `files` (path to bytes) and does wrong what a test asks for.

    Attributes:
        files: Content by path, such as "/a.zip".
        etag: ETag of every file; None for none.
        ranges: Answer range requests; else send everything.
        cuts: For each further answer, the bytes of its body after which the connection breaks.
        statuses: Status codes that the next answers have, without a file.
        declare: Send Content-Length.
        kind: Content-Type.
        asked: Headers Range and If-Range of each request.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.etag: str | None = '"one"'
        self.ranges = True
        self.cuts: list[int] = []
        self.statuses: list[int] = []
        self.declare = True
        self.kind = "application/octet-stream"
        self.asked: list[tuple[str | None, str | None]] = []
        self.url = ""


def _handler(server: FileServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

        def do_GET(self) -> None:
            wanted, version = self.headers.get("Range"), self.headers.get("If-Range")
            server.asked.append((wanted, version))
            content = server.files.get(self.path)
            status = server.statuses.pop(0) if server.statuses else 200 if content else 404
            if status != 200:
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            assert content is not None
            start = 0
            if wanted and server.ranges and version == server.etag:
                start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
                if start >= len(content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(content)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
            self.send_response(206 if start else 200)
            self.send_header("Content-Type", server.kind)
            if server.etag:
                self.send_header("ETag", server.etag)
            if start:
                last = len(content) - 1
                self.send_header("Content-Range", f"bytes {start}-{last}/{len(content)}")
            if server.declare:
                self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            body = content[start:]
            self.wfile.write(body[: server.cuts.pop(0)] if server.cuts else body)
            self.close_connection = True

    return Handler


@pytest.fixture
def file_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A running server; its address is `url`."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
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
        values = {
            "name": "toy", "title": "Toy", "kind": "benchmark", "home": "https://a.b",
            "licence": "MIT", "terms": "None.", "folder": "toy",
        }
        return Source(**values | {"get": items} | fields)

    return make


@pytest.fixture
def toy(make_source, file_server: FileServer, rows: bytes, archive: bytes) -> Source:
    """A set of one annotation file and an archive of two pictures, which the server has."""
    file_server.files |= {"/rows.json": rows, "/pictures.zip": archive}
    return make_source(
        Item(url=f"{file_server.url}/rows.json", to="data/rows.json"),
        Item(
            url=f"{file_server.url}/pictures.zip",
            file="pictures.zip",
            unpack=(Unpack("images", drop_top=True),),
        ),
        rows=(Rows("data/rows.json", 2),),
        pictures=(Pictures("data/rows.json", ("image",), ("images",)),),
    )
