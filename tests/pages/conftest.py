"""A browser for the tests of what readers see, and a server for its pages."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from browser import Browser, find_browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Start a headless browser, if there is one."""
    if find_browser() is None:
        pytest.skip("no Chromium or Chrome on this machine: install one to run this")
    started = Browser(tmp_path_factory.mktemp("user"))
    yield started
    started.close()


class QuietHandler(SimpleHTTPRequestHandler):
    """Answers with the files of a folder, and logs nothing."""

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve a folder on this machine; gives the address of its root."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=folder))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(params=["from a disk", "from a server"])
def address_of(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[Path], str]]:
    """A function that gives the address of a page below the test's folder."""
    if request.param == "from a disk":
        yield Path.as_uri
        return
    with serve(tmp_path) as root:
        yield lambda page: root + page.relative_to(tmp_path).as_posix()
