"""The book renders without a warning, and a browser shows every page of it whole; JupyterLab opens
a page's text as a notebook, and saving it changes the text."""

import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from browser import Browser, fetch_axe, find_browser, left_by
from conftest import REPOSITORY
from docutils.core import publish_doctree

from cae_lib import plots
from cae_lib.errors import CaeError
from cae_lib.pages.build import build_book, render
from cae_lib.pages.run import run_page
from cae_lib.pages.web import MOST_DESCRIPTION, description
from cae_lib.profiles import find_profile

Ask = Callable[..., Any]
"""Asks JupyterLab's REST interface: path, method, body."""

HEAVIEST = 2_000_000  # bytes that a page loads, beside its figures
SMALLEST_LETTERS, LEAST_CONTRAST = 9, 4.5  # pixels on a telephone; what WCAG asks for, AA
HARNESS = Path(__file__).with_name("look.html")


@pytest.fixture
def toy_book(book_home: Path) -> Path:
    """A book whose one page is executed."""
    run_page("page")
    return book_home


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serve a folder quietly and remember what was not there."""

    missing: list[str] = []

    def log_message(self, *arguments: object) -> None:
        pass

    def send_error(self, code: int, *arguments: object, **options: object) -> None:
        self.missing.append(self.path)
        super().send_error(code)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Address and folder of a server on the loopback interface."""
    folder = tmp_path / "served"
    folder.mkdir()
    Handler.missing = []
    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()


def look_at(address: str, folder: Path) -> tuple[dict[str, list[dict]], list[str]]:
    """Open all pages of a served book in a headless Chromium: what it saw, and what it logged."""
    pages = sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*.html")
        if "_static" not in path.parts and path.name not in ("search.html", "genindex.html")
    )
    harness = HARNESS.read_text(encoding="utf-8").replace("PAGES", json.dumps(pages))
    (folder / "_harness.html").write_text(harness, encoding="utf-8")
    return left_by(f"{address}/_harness.html", folder.parent / "user")


needs_browser = pytest.mark.skipif(
    find_browser() is None, reason="no Chromium or Chrome on this machine: install one to run this"
)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the rendered book."""
    output = tmp_path_factory.mktemp("output")
    return render(REPOSITORY / "book", REPOSITORY / "_config.yml", output).parent


def pages_in(folder: Path) -> list[Path]:
    """The pages that the book's authors have written."""
    generated = ("search.html", "genindex.html", "py-modindex.html")
    return sorted(
        path
        for path in folder.rglob("*.html")
        if "_static" not in path.parts and path.name not in generated
    )


def test_no_paragraph_holds_a_block(rendered: Path):
    """A browser ends a paragraph where a block begins: what follows is in no paragraph."""
    for path in pages_in(rendered):
        text = path.read_text(encoding="utf-8")
        for paragraph in re.findall(r"<p(?: [^>]*)?>((?:(?!</p>).)*)", text, re.DOTALL):
            assert not re.search(r"<(div|p|table|ul|section|figure)\b", paragraph), path.name


def test_figures_lie_in_the_book_as_drawings_alone(rendered: Path):
    text = (rendered / "experiments" / "accuracy.html").read_text(encoding="utf-8")
    assert text.count('<svg role="img" class="cae-figure"') == 3
    assert "data:image/png" not in text and "_images" not in text


@needs_browser
@pytest.mark.parametrize("width", [420, 1400])
def test_axe_finds_nothing_that_not_everybody_can_use(rendered: Path, tmp_path: Path, width: int):
    axe = fetch_axe(tmp_path / "npm")
    if axe is None:
        pytest.skip("npm could not fetch axe-core: it takes npm and a network")
    browser = Browser(tmp_path / "user")
    found = {}
    try:
        for path in pages_in(rendered):
            browser.open(path.as_uri(), width)
            browser.evaluate(axe + "; true")
            found[path.name] = browser.evaluate("""axe.run().then(seen => seen.violations.map(
              problem => [problem.id, problem.nodes.map(node => node.html)]))""")
    finally:
        browser.close()
    assert {name: problems for name, problems in found.items() if problems} == {}


@needs_browser
def test_what_scrolls_says_so_and_keys_reach_it(tmp_path: Path):
    for name in ("cae.css", "scroll.js"):
        shutil.copy(REPOSITORY / "book" / "_static" / name, tmp_path)
    frame = pd.DataFrame(1, ["row"], [f"column {number}" for number in range(6)])
    page = tmp_path / "page.html"
    page.write_text(
        '<!doctype html><script src="scroll.js"></script><link rel="stylesheet" '
        'href="cae.css"><article class="bd-article">' + plots.table(frame).html
    )
    look = """(() => { const box = document.querySelector(".cae-box");
      return [box.tabIndex, getComputedStyle(box, "::after").content !== "none"]; })()"""
    browser = Browser(tmp_path / "user")
    try:
        for width, seen in ((1400, [-1, False]), (250, [0, True])):
            browser.open(page.as_uri(), width)
            assert browser.evaluate(look) == seen
    finally:
        browser.close()


@needs_browser
def test_a_browser_shows_every_page_whole(served: tuple[str, Path], rendered: Path):
    address, folder = served
    shutil.copytree(rendered, folder, dirs_exist_ok=True)
    seen, logged = look_at(address, folder)
    assert logged == [] and Handler.missing == []
    assert "index.html" in seen and any(name.startswith("experiments/") for name in seen)
    for name, (wide, narrow) in seen.items():
        assert wide["title"] and wide["heading"], name
        assert wide["broken"] == narrow["broken"] == wide["doubled"] == [], name
        assert wide["unnamed"] == 0, f"{name}: images without alt text"
        assert wide["typeset"] == wide["formulas"], f"{name}: formulas that were not typeset"
        assert wide["outside"] == [], f"{name} needs the network"
        assert wide["blank"] == [], f"{name}: icons that are not in the fonts"
        assert wide["weight"] <= HEAVIEST, name
        assert max(narrow["overflow"]) <= 0, f"{name} is wider than a telephone's screen"
        assert round(narrow["letters"], 1) >= SMALLEST_LETTERS, f"{name}: letters too small"
        assert min(wide["contrast"]) >= LEAST_CONTRAST, f"{name}: pale in light or in dark"
        assert wide["titles"] == wide["icons"] == 1, name
        assert len(names := wide["title"].split(" — ")) == len(set(names)), f"{name}: named twice"
        assert all(len(tags) == 1 and tags[0] for tags in wide["cards"].values()), name
        assert len(wide["cards"]["description"][0]) <= MOST_DESCRIPTION, name


@needs_browser
def test_a_telephone_shows_the_columns_that_matter_and_the_others_on_demand(
    served: tuple[str, Path],
):
    address, folder = served
    shutil.copytree(REPOSITORY / "book" / "_static", folder / "_static")
    frame = pd.DataFrame({"mean": [1], "p": [2]}, ["CLIP"])
    (folder / "table.html").write_text(
        '<!doctype html><meta name="viewport" content="width=device-width">'
        '<link rel="stylesheet" href="_static/cae.css">'
        f'<article class="bd-article">{plots.table(frame, fold=["p"]).html}</article>'
    )
    seen, logged = look_at(address, folder)
    wide, narrow = seen["table.html"]
    assert logged == []
    assert wide["columns"] == [["mean", "p", "CLIP"]] * 2
    assert narrow["columns"] == [["mean", "CLIP"], ["mean", "p", "CLIP"]]


def test_a_book_with_an_address_links_to_itself(toy_book: Path):
    config = toy_book / "_config.yml"
    text = config.read_text(encoding="utf-8")
    for old, new in {
        'url: ""\n  path': "url: https://github.com/somebody/fork\n  path",
        "use_issues_button: false": "use_issues_button: true",
        "use_repository_button: false": "use_repository_button: true",
        "# binderhub_url": "binderhub_url",
        "# colab_url": "colab_url",
    }.items():
        assert old in text
        text = text.replace(old, new)
    config.write_text(text, encoding="utf-8")
    index = toy_book / "data" / "cache" / "explorer" / "mini" / "explorer-index.js"
    index.parent.mkdir(parents=True)
    index.write_text("caeExplorerIndex = {};")
    with (toy_book / "book" / "index.md").open("a", encoding="utf-8") as front:
        front.write('\n<div id="cae-explorer"></div>\n')
    page = build_book("mini")
    assert page == toy_book / "build" / "book" / "_build" / "html" / "index.html"
    text = (page.parent / "experiments" / "page.html").read_text(encoding="utf-8")
    assert "github/somebody/fork/blob/main/book/experiments/page.ipynb" in text, "Colab"
    assert "gh/somebody/fork/main?urlpath=lab/tree/book/experiments/page.ipynb" in text, "Binder"
    assert "https://github.com/somebody/fork/raw/main/book/_static/card.png" in text, "previews"
    assert "somebody/fork/issues" in text, "the buttons"
    sheet = (page.parent / "_static" / "styles" / "pydata-sphinx-theme.css").read_text()
    assert ".fa-github:before" in sheet and ".fa-monero:before" not in sheet, "icons in use"
    assert "mini: 3 seeds at 0.001" in text and "cae.css" in text and "THEBE_JS" not in text
    assert "explorer" not in text and "lead.js" not in text, "of other pages"
    assert (page.parent / "_static" / index.name).read_text() == "caeExplorerIndex = {};"
    first = page.read_text(encoding="utf-8").lower()
    assert "_static/explorer-index.js" in first and "_static/explorer.css" in first
    assert "lead.js" not in first
    assert "interpretable composition attribution enhancement" in first, "the bibliography"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "**Question.** Is it so?\n\n**Finding.** It is. Li et al. say so.",
            "It is. Li et al. say so.",
        ),
        (".. note:: Not this.\n\nFirst, with *one*\nname.\n\nSecond.", "First, with one name."),
        (f"It is. A {'word ' * 50}.", "It is."),
        ("word " * 50, "word " * 39 + "…"),
        ("", ""),
    ],
)
def test_a_page_is_described_by_its_answer_or_its_first_words(text: str, expected: str):
    page = publish_doctree(f"Title\n=====\n\n{text}", settings_overrides={"doctitle_xform": False})
    assert description(page) == expected and len(expected) <= MOST_DESCRIPTION


def test_the_copy_of_a_profile_says_so_above_each_page(toy_book: Path):
    run_page("page", "smoke")
    page = build_book("smoke")
    assert page == toy_book / "build" / "smoke-html" / "_build" / "html" / "index.html"
    text = (page.parent / "experiments" / "page.html").read_text(encoding="utf-8")
    assert find_profile("smoke").own_book in text and "smoke: 3 seeds" in text


def test_what_is_wrong_with_a_book_is_shown(toy_book: Path, capfd):
    with (toy_book / "book" / "index.md").open("a", encoding="utf-8") as stream:
        stream.write("\nSee [](nowhere.md) and $\\nosuch$.\n")
    with pytest.raises(CaeError):
        build_book("mini")
    warnings = capfd.readouterr().err
    assert "nowhere.md" in warnings and "formula: Unknown LaTeX command" in warnings
    (toy_book / "book" / "_toc.yml").unlink()
    with pytest.raises(CaeError, match="_toc.yml"):
        build_book("mini")


@pytest.fixture
def ask(book_home: Path) -> Iterator[Ask]:
    """A server set up as `make lab` sets it up, on a copy of a page."""
    runtime, log = book_home / "runtime", book_home / "server.log"
    private = {
        "JUPYTER_RUNTIME_DIR": str(runtime),
        "JUPYTER_DATA_DIR": str(book_home / "share"),
        "JUPYTER_CONFIG_DIR": str(book_home / "config"),
    }
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        "--ServerApp.ip=127.0.0.1",
        "--ServerApp.port=0",
        f"--ServerApp.root_dir={book_home}",
        f"--LabApp.app_settings_dir={REPOSITORY / 'scripts' / 'lab'}",
    ]
    with log.open("w") as stream:
        process = subprocess.Popen(
            command, env=os.environ | private, stdout=stream, stderr=stream, cwd=book_home
        )
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


def test_a_saved_notebook_changes_its_text_where_it_was_changed_alone(ask: Ask, book_home: Path):
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
        "jupytext.toml",
        "page.ipynb",
        "page.md",
    ]
    # The text wins over an older notebook: what an editor changed is what opens next.
    text.write_text(text.read_text(encoding="utf-8").replace("2 + 2", "3 + 3"), encoding="utf-8")
    os.utime(text, (1, 1))
    again = ask("api/contents/book/experiments/page.ipynb?content=1")["content"]["cells"]
    assert again[-1]["source"] == "3 + 3"
    # Opening and saving a page leaves its text alone.
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
