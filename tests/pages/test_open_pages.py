"""Every figure of the book is drawn by its page, from a table in view, and can be changed there."""

from __future__ import annotations

import ast
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from cae_lib.pages.run import FIGURE, readme_figure, run_page

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = sorted((REPOSITORY / "book" / "experiments").glob("*.ipynb"))
DRAWING = {"sns", "plt", "ax", "axes", "plots"}


def figure_cells(page: Path) -> Iterator[nbformat.NotebookNode]:
    """The cells of a stored page that show a figure."""
    for cell in nbformat.read(page, as_version=4).cells:
        outputs = "".join(o.get("data", {}).get("text/html", "") for o in cell.get("outputs", []))
        if 'class="cae-figure"' in outputs:
            yield cell


def calls(tree: ast.AST, name: str) -> list[ast.Call]:
    """Calls of a method or function by its name."""
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute) and node.func.attr == name]


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_a_figure_is_drawn_in_its_cell_from_a_table_of_the_page(page: Path):
    code = [cell.source for cell in nbformat.read(page, as_version=4).cells
            if cell.cell_type == "code"]
    assigned = {target.id for source in code for node in ast.walk(ast.parse(source))
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
                for target in [node]}
    for cell in figure_cells(page):
        tree = ast.parse(cell.source)
        shown = calls(tree, "show")
        assert shown, cell.source
        for call in shown:
            data = call.args[2] if len(call.args) > 2 else None
            if data is None and calls(tree, "imshow"):
                continue  # pictures have no numbers
            used = {node.id for node in ast.walk(data or ast.Pass()) if isinstance(node, ast.Name)}
            assert used & assigned, f"no table of the page behind a figure:\n{cell.source}"
        drawn = {node.func.value.id for node in ast.walk(tree) if isinstance(node, ast.Call)
                 and isinstance(node.func, ast.Attribute)
                 and isinstance(node.func.value, ast.Name)}
        assert drawn & {"sns", "plt", "plots"} and drawn & DRAWING, cell.source


def test_the_pages_of_results_have_figures():
    names = {page.stem for page in PAGES if any(figure_cells(page))}
    assert names >= {"result", "attribution", "faithfulness", "accuracy", "blind", "heat-maps",
                     "retrieval-and-text", "what-decides", "cost"}


def test_readme_shows_the_figure_of_the_stored_page():
    page = nbformat.read(REPOSITORY / "book" / "experiments" / "result.ipynb", as_version=4)
    stored = (REPOSITORY / "book" / "images" / "result.svg").read_text(encoding="utf-8")
    assert stored == readme_figure(page)


@pytest.fixture
def copy_of_the_book(home: Path) -> Path:
    """A project folder with the book's sources, and the stored tables by link."""
    shutil.copytree(REPOSITORY / "book", home / "book", ignore=shutil.ignore_patterns("*.ipynb"))
    shutil.copy(REPOSITORY / "_config.yml", home)
    (home / "data").mkdir()
    os.symlink(REPOSITORY / "data" / "records", home / "data" / "records")
    return home / "book" / "experiments" / "result.md"


def test_a_changed_colour_changes_the_figure_and_nothing_else(copy_of_the_book: Path):
    before = nbformat.read(run_page("result"), as_version=4)
    text = copy_of_the_book.read_text(encoding="utf-8")
    call = "plots.forest(accuracy, \"model\", ax=right, zero=False)"
    assert call in text
    copy_of_the_book.write_text(
        text.replace(call, f"{call}\nfor mark in right.lines:\n    mark.set_color('#123456')"),
        encoding="utf-8")
    after = nbformat.read(run_page("result"), as_version=4)
    figures = []
    for old, new in zip(before.cells, after.cells, strict=True):
        if "provenance" in old.metadata.get("tags", []):
            continue
        for first, second in zip(old.get("outputs", []), new.get("outputs", []), strict=True):
            pair = [output.get("data", {}).get("text/html", "") for output in (first, second)]
            if any(map(FIGURE.search, pair)):
                figures.append([FIGURE.search(text)[0] for text in pair])
                pair = [FIGURE.sub("", text) for text in pair]
            assert pair[0] == pair[1]
    assert figures
    for first, second in figures:
        assert "#123456" not in first and "#123456" in second
