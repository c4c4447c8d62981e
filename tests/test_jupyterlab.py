"""JupyterLab opens a page's text as a notebook, and saving it changes the text."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


class Server:
    """A JupyterLab on this machine, reached through its REST interface."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self.token = token

    def ask(self, path: str, method: str = "GET", body: Any = None) -> Any:
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"token {self.token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)


@pytest.fixture
def server(book_home: Path) -> Iterator[Server]:
    """A server set up as `make lab` sets it up, on a copy of a page."""
    runtime = book_home / "runtime"
    private = {
        "JUPYTER_RUNTIME_DIR": str(runtime),
        "JUPYTER_CONFIG_DIR": str(book_home / "config"),
        "JUPYTER_DATA_DIR": str(book_home / "share"),
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += [
        "--ServerApp.ip=127.0.0.1",
        "--ServerApp.port=0",
        f"--ServerApp.root_dir={book_home}",
    ]
    command += [f"--LabApp.app_settings_dir={REPOSITORY / 'scripts' / 'lab'}"]
    with (book_home / "server.log").open("w") as log:
        process = subprocess.Popen(
            command, env=os.environ | private, stdout=log, stderr=log, cwd=book_home
        )
    try:
        yield _connect(process, runtime, book_home / "server.log")
    finally:
        process.terminate()
        process.wait(timeout=20)


def _connect(process: subprocess.Popen, runtime: Path, log: Path) -> Server:
    for _ in range(1200):
        for path in runtime.glob("jpserver-*.json"):
            try:
                information = json.loads(path.read_text())
                server = Server(information["url"], information["token"])
                server.ask("api/status")
                return server
            except (OSError, json.JSONDecodeError):
                pass  # not ready yet
        if process.poll() is not None:
            break
        time.sleep(0.1)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()}")


def test_a_saved_notebook_changes_its_text(server: Server, book_home: Path):
    text = book_home / "book" / "experiments" / "page.md"
    before = text.read_text(encoding="utf-8")
    opened = server.ask("api/contents/book/experiments/page.md?type=notebook&content=1")
    assert opened["type"] == "notebook"
    notebook = opened["content"]
    (cell,) = [cell for cell in notebook["cells"] if cell["source"] == "1 + 1"]
    cell["source"] = "2 + 2"
    cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "seen\n"}]
    body = {"type": "notebook", "format": "json", "content": notebook}
    server.ask("api/contents/book/experiments/page.ipynb", "PUT", body)

    assert text.read_text(encoding="utf-8") == before.replace("1 + 1", "2 + 2")
    stored = json.loads(text.with_suffix(".ipynb").read_text(encoding="utf-8"))
    assert "seen\n" in json.dumps(stored["cells"][-1]["outputs"]).replace("\\n", "\n")
    assert sorted(path.name for path in text.parent.iterdir() if path.is_file()) == [
        "jupytext.toml", "page.ipynb", "page.md"
    ]

    # The text wins over an older notebook: what an editor changed is what opens next.
    text.write_text(text.read_text(encoding="utf-8").replace("2 + 2", "3 + 3"), encoding="utf-8")
    os.utime(text, (1, 1))
    again = server.ask("api/contents/book/experiments/page.ipynb?content=1")["content"]["cells"]
    assert again[-1]["source"] == "3 + 3"


def test_opening_and_saving_a_page_leaves_its_text_alone(server: Server, book_home: Path):
    shutil.copytree(REPOSITORY / "book" / "experiments", book_home / "pages")
    for text in sorted((book_home / "pages").glob("*.md")):
        before = text.read_text(encoding="utf-8")
        notebook = server.ask(f"api/contents/pages/{text.name}?type=notebook&content=1")
        body = {"type": "notebook", "format": "json", "content": notebook["content"]}
        server.ask(f"api/contents/pages/{text.stem}.ipynb", "PUT", body)
        assert text.read_text(encoding="utf-8") == before, f"{text.name} is not in jupytext's form"


def test_a_text_opens_as_a_notebook_on_a_click(server: Server):
    name = urllib.parse.quote("@jupyterlab/docmanager-extension:plugin")
    settings = server.ask(f"lab/api/settings/{name}")
    assert settings["schema"]["properties"]["defaultViewers"]["default"] == {
        "markdown": "Jupytext Notebook"
    }


def test_make_lab_starts_the_same_server():
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    command = ["make", "-n", "lab", "LABFLAGS=--no-browser"]
    printed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert "--LabApp.app_settings_dir=scripts/lab" in printed.stdout
    assert "/lab/tree/book/experiments" in printed.stdout and "--no-browser" in printed.stdout
