"""The book renders without a warning, and a browser shows every page of it whole."""

import functools
import http.server
import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import jupytext
import nbformat
import pandas as pd
import pytest
from browser import Browser, find_browser, left_by
from conftest import REPOSITORY, shared_folder
from docutils.core import publish_doctree
from jupyter_client.kernelspec import KernelSpecManager
from jupytext import TextFileContentsManager

from book.extension.build import build_book, render
from book.extension.lab import keep_language_version
from book.extension.run import run_page
from book.extension.source import read_page
from book.extension.web import MOST_DESCRIPTION, description
from cae_lab import plots
from cae_lab.profiles import load_profile
from cae_lib.errors import CaeError

HARNESS = Path(__file__).with_name("look.html")


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


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the rendered book; one worker renders it for all."""
    with shared_folder(tmp_path_factory, "output") as output:
        page = output / "_build" / "html" / "index.html"
        if not page.is_file():
            output.mkdir(exist_ok=True)
            config = REPOSITORY / "_config.yml"
            if not load_profile("mini").root.is_dir():  # drawing the scenes takes a minute
                text = config.read_text(encoding="utf-8")
                config = output / "_config.yml"
                option = "  config:\n    cae_explorer: false\n"
                config.write_text(text.replace("  config:\n", option), encoding="utf-8")
            assert render(REPOSITORY / "book", config, output) == page
        return page.parent


def test_figures_lie_in_the_book_as_drawings_alone(rendered: Path):
    text = (rendered / "experiments" / "accuracy.html").read_text(encoding="utf-8")
    assert text.count('<svg role="img" class="cae-figure') in (4, 8)
    assert "data:image/png" not in text and "_images" not in text


def page_of_a_table(table: plots.CellOutput, folder: Path) -> Path:
    """Write a page with the table, and with the style sheet and the script of the book."""
    for name in ("cae.css", "page.js"):
        shutil.copy(REPOSITORY / "book" / "_static" / name, folder)
    page = folder / "page.html"
    page.write_text(
        '<!doctype html><meta name="viewport" content="width=device-width">'
        '<script src="page.js"></script><link rel="stylesheet" href="cae.css">'
        f'<article class="bd-article">{table.html}'
    )
    return page


@needs_browser
def test_what_scrolls_says_so_and_keys_reach_it(tmp_path: Path):
    frame = pd.DataFrame(1, ["row"], [f"column {number}" for number in range(6)])
    page = page_of_a_table(plots.table(frame, fold=["column 1"]), tmp_path)
    look = """(() => { const box = document.querySelector(".cae-box");
      const heads = [...box.querySelectorAll("thead th")].filter(x => x.getClientRects().length);
      return [box.tabIndex, heads.length]; })()"""
    browser = Browser(tmp_path / "user")
    try:
        for width, seen in ((1400, [-1, 6]), (250, [0, 5])):
            browser.open(page.as_uri(), width)
            assert browser.evaluate(look) == seen
        browser.evaluate("document.querySelector('.cae-all input').click(); true")
        assert browser.evaluate(look) == [0, 6]
    finally:
        browser.close()


@needs_browser
def test_headers_of_rows_stay_beside_each_other_and_the_hint_goes_at_the_end(tmp_path: Path):
    index = pd.MultiIndex.from_product([["first"], ["one", "two"]], names=["a", "b"])
    frame = pd.DataFrame(1, index, [f"column {number}" for number in range(9)])
    page = page_of_a_table(plots.table(frame), tmp_path)
    look = """(async () => { const box = document.querySelector(".cae-box");
      box.scrollLeft = %d;
      await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
      const seen = [...box.querySelectorAll("tbody th, thead th:nth-child(-n + 2)")].map(
        head => [head.textContent, head.getBoundingClientRect().left]);
      return [Object.fromEntries(seen), box.classList.contains("cae-at-end")]; })()"""
    browser = Browser(tmp_path / "user")
    try:
        browser.open(page.as_uri(), 300)
        places, at_end = browser.evaluate(look % 60)
        assert places["a"] == places["first"] < places["b"] == places["one"] == places["two"]
        assert places["a"] >= 0 and places["b"] < 150 and not at_end
        assert browser.evaluate(look % 9999)[1]
    finally:
        browser.close()


@needs_browser
@pytest.mark.slow
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
        assert narrow["overflow"] <= 0, f"{name} is wider than a telephone's screen"


def test_a_book_with_an_address_links_to_itself(text: Path, book_home: Path):
    jupytext.write(read_page(text), text.with_suffix(".ipynb"))
    config = book_home / "_config.yml"
    settings = config.read_text(encoding="utf-8")
    for old, new in {
        'url: ""\n  path': "url: https://github.com/somebody/fork\n  path",
        "use_issues_button: false": "use_issues_button: true",
        "use_repository_button: false": "use_repository_button: true",
        "# binderhub_url": "binderhub_url",
        "# colab_url": "colab_url",
    }.items():
        assert old in settings
        settings = settings.replace(old, new)
    config.write_text(settings, encoding="utf-8")
    with (book_home / "book" / "index.md").open("a", encoding="utf-8") as front:
        front.write('\n<div id="cae-explorer"></div>\n')
    page = build_book("mini")
    assert page == book_home / "build" / "book" / "_build" / "html" / "index.html"
    shown = (page.parent / "experiments" / "page.html").read_text(encoding="utf-8")
    assert "github/somebody/fork/blob/main/book/experiments/page.ipynb" in shown, "Colab"
    assert "gh/somebody/fork/main?urlpath=lab/tree/book/experiments/page.ipynb" in shown, "Binder"
    assert "https://github.com/somebody/fork/raw/main/book/_static/card.png" in shown, "previews"
    assert "somebody/fork/issues" in shown, "the buttons"
    assert "cae.css" in shown and "THEBE_JS" not in shown
    assert "explorer.js" not in shown and "weight-slider.js" not in shown, "of other pages"
    first = page.read_text(encoding="utf-8").lower()
    assert "_static/explorer.js" in first and "_static/explorer.css" in first
    assert "weight-slider.js" not in first
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


def test_the_copy_of_a_profile_says_so_above_each_page(book_home: Path):
    run_page("page", "smoke")
    page = build_book("smoke")
    assert page == book_home / "build" / "smoke-html" / "_build" / "html" / "index.html"
    text = (page.parent / "experiments" / "page.html").read_text(encoding="utf-8")
    assert load_profile("smoke").own_book in text and "smoke: 3 seeds at 0.001" in text


def test_what_is_wrong_with_a_book_is_shown(text: Path, book_home: Path, capfd):
    jupytext.write(read_page(text), text.with_suffix(".ipynb"))
    with (book_home / "book" / "index.md").open("a", encoding="utf-8") as stream:
        stream.write("\nSee [](nowhere.md) and $\\nosuch$.\n")
    with pytest.raises(CaeError):
        build_book("mini")
    warnings = capfd.readouterr().err
    assert "nowhere.md" in warnings and "formula: Unknown LaTeX command" in warnings
    (book_home / "book" / "_toc.yml").unlink()
    with pytest.raises(CaeError, match="_toc.yml"):
        build_book("mini")


def opened(manager: TextFileContentsManager, name: str, version: str = "") -> dict:
    """Open a notebook as JupyterLab does: it sets the names of the kernel and of its language."""
    model = manager.get(name, type="notebook")
    metadata, kernel = model["content"]["metadata"], KernelSpecManager().get_kernel_spec("python3")
    metadata["kernelspec"] = {
        "name": "python3",
        "display_name": kernel.display_name,
        "language": kernel.language,
    }
    language = metadata.setdefault("language_info", {})
    language["version"] = version or language.get("version")
    return model


@pytest.mark.parametrize("version", ["", "3.13.99"])
def test_opening_and_saving_a_page_leaves_its_two_files_alone(version: str, tmp_path: Path):
    """Under another version of Python, too, which `make lab` keeps out of the notebooks."""
    shutil.copytree(REPOSITORY / "book" / "experiments", tmp_path, dirs_exist_ok=True)
    hook = {"pre_save_hook": keep_language_version} if version else {}
    manager = TextFileContentsManager(root_dir=str(tmp_path), **hook)
    for text in sorted(tmp_path.glob("*.md")):
        notebook = text.with_suffix(".ipynb")
        before = text.read_text(encoding="utf-8"), notebook.read_text(encoding="utf-8")
        manager.save(opened(manager, notebook.name, version), notebook.name)
        after = text.read_text(encoding="utf-8"), notebook.read_text(encoding="utf-8")
        assert after == before, f"{text.stem} is not as JupyterLab writes it"


def test_a_notebook_with_other_outputs_names_the_python_that_made_them(tmp_path: Path):
    shutil.copytree(REPOSITORY / "book" / "experiments", tmp_path, dirs_exist_ok=True)
    manager = TextFileContentsManager(root_dir=str(tmp_path), pre_save_hook=keep_language_version)
    model = opened(manager, "sweep.ipynb", "3.13.99")
    model["content"]["cells"][-1]["outputs"] = [nbformat.v4.new_output("stream", text="seen")]
    manager.save(model, "sweep.ipynb")
    assert "3.13.99" in (tmp_path / "sweep.ipynb").read_text(encoding="utf-8")


def test_a_saved_notebook_changes_its_text_where_it_was_changed_alone(text: Path):
    """By jupytext's contents manager, which JupyterLab uses."""
    manager = TextFileContentsManager(root_dir=str(text.parent))
    before = text.read_text(encoding="utf-8")
    opened = manager.get("page.md", type="notebook")
    (cell,) = [cell for cell in opened["content"]["cells"] if cell["source"] == "1 + 1"]
    cell["source"] = "2 + 2"
    cell["outputs"] = [nbformat.v4.new_output("stream", text="seen")]
    manager.save(opened, "page.ipynb")
    assert text.read_text(encoding="utf-8") == before.replace("1 + 1", "2 + 2")
    assert "seen" in text.with_suffix(".ipynb").read_text(encoding="utf-8")
    # The text wins over an older notebook.
    text.write_text(text.read_text(encoding="utf-8").replace("2 + 2", "3 + 3"), encoding="utf-8")
    os.utime(text, (1, 1))
    assert manager.get("page.ipynb")["content"]["cells"][-1]["source"] == "3 + 3"
