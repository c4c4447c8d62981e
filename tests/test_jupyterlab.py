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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY

Ask = Callable[..., Any]
"""Asks JupyterLab's REST interface: path, method, body."""


@pytest.fixture
def ask(book_home: Path) -> Iterator[Ask]:
    """A server set up as `make lab` sets it up, on a copy of a page."""
    runtime, log = book_home / "runtime", book_home / "server.log"
    private = {"JUPYTER_RUNTIME_DIR": str(runtime), "JUPYTER_DATA_DIR": str(book_home / "share"),
               "JUPYTER_CONFIG_DIR": str(book_home / "config")}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root",
               "--ServerApp.ip=127.0.0.1", "--ServerApp.port=0",
               f"--ServerApp.root_dir={book_home}",
               f"--LabApp.app_settings_dir={REPOSITORY / 'scripts' / 'lab'}"]
    with log.open("w") as stream:
        process = subprocess.Popen(command, env=os.environ | private, stdout=stream, stderr=stream,
                                   cwd=book_home)
    try:
        for _ in range(1200):
            try:
                (found,) = runtime.glob("jpserver-*.json")
                server = json.loads(found.read_text())
                _ask(server, "api/status")
                break
            except (OSError, ValueError):  # not ready yet
                assert process.poll() is None, f"JupyterLab did not start:\n{log.read_text()}"
                time.sleep(0.1)
        yield lambda *arguments: _ask(server, *arguments)
    finally:
        process.terminate()
        process.wait(timeout=20)


def _ask(server: dict[str, Any], path: str, method: str = "GET", body: Any = None) -> Any:
    headers = {"Authorization": f"token {server['token']}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(server["url"] + path, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def test_a_saved_notebook_changes_its_text(ask: Ask, book_home: Path):
    text = book_home / "book" / "experiments" / "page.md"
    before = text.read_text(encoding="utf-8")
    opened = ask("api/contents/book/experiments/page.md?type=notebook&content=1")
    assert opened["type"] == "notebook"
    (cell,) = [cell for cell in opened["content"]["cells"] if cell["source"] == "1 + 1"]
    cell["source"] = "2 + 2"
    cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "seen\n"}]
    body = {"type": "notebook", "format": "json", "content": opened["content"]}
    ask("api/contents/book/experiments/page.ipynb", "PUT", body)
    assert text.read_text(encoding="utf-8") == before.replace("1 + 1", "2 + 2")
    stored = json.loads(text.with_suffix(".ipynb").read_text(encoding="utf-8"))
    assert "seen" in json.dumps(stored["cells"][-1]["outputs"])
    assert sorted(path.name for path in text.parent.iterdir() if path.is_file()) == [
        "jupytext.toml", "page.ipynb", "page.md"
    ]
    # The text wins over an older notebook: what an editor changed is what opens next.
    text.write_text(text.read_text(encoding="utf-8").replace("2 + 2", "3 + 3"), encoding="utf-8")
    os.utime(text, (1, 1))
    again = ask("api/contents/book/experiments/page.ipynb?content=1")["content"]["cells"]
    assert again[-1]["source"] == "3 + 3"


def test_opening_and_saving_a_page_leaves_its_text_alone(ask: Ask, book_home: Path):
    shutil.copytree(REPOSITORY / "book" / "experiments", book_home / "pages")
    for text in sorted((book_home / "pages").glob("*.md")):
        before = text.read_text(encoding="utf-8")
        notebook = ask(f"api/contents/pages/{text.name}?type=notebook&content=1")
        body = {"type": "notebook", "format": "json", "content": notebook["content"]}
        ask(f"api/contents/pages/{text.stem}.ipynb", "PUT", body)
        assert text.read_text(encoding="utf-8") == before, f"{text.name} is not in jupytext's form"
    plugin = urllib.parse.quote("@jupyterlab/docmanager-extension:plugin")
    schema = ask(f"lab/api/settings/{plugin}")["schema"]
    viewers = schema["properties"]["defaultViewers"]["default"]
    assert viewers == {"markdown": "Jupytext Notebook"}, "a text opens as a notebook on a click"


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_lab_starts_the_same_server():
    command = ["make", "-n", "lab", "LABFLAGS=--no-browser"]
    printed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert "--LabApp.app_settings_dir=scripts/lab" in printed.stdout
    assert "/lab/tree/book/experiments" in printed.stdout and "--no-browser" in printed.stdout
