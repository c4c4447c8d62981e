"""The cells of a page are ones that a reader would want to edit: short, apart, and on their own."""

import ast
import contextlib
import io
import os
import shutil
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import nbformat
import pytest
from conftest import REPOSITORY

from cae_lib.pages.source import read_page

PAGES = sorted((REPOSITORY / "book" / "experiments").glob("*.md"))
EACH_PAGE = pytest.mark.parametrize("text", PAGES, ids=lambda path: path.stem)
MOST_COLUMNS = 100


def code_of(text: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in read_page(text).cells if cell.cell_type == "code"]


def draws(cell: nbformat.NotebookNode) -> bool:
    """Whether a cell ends a figure."""
    return any(
        isinstance(node, ast.Call) and ast.unparse(node.func) == "plots.show"
        for node in ast.walk(ast.parse(cell.source))
    )


@EACH_PAGE
def test_no_line_of_code_is_cut_on_a_page(text: Path):
    for cell in code_of(text):
        lines = cell.source.splitlines()
        assert [line for line in lines if len(line) > MOST_COLUMNS] == []


@EACH_PAGE
def test_a_drawing_cell_begins_with_what_a_reader_would_change(text: Path):
    for cell in filter(draws, code_of(text)):
        first = ast.parse(cell.source).body[0]
        assert isinstance(first, ast.Assign), f"{ast.unparse(first)}: models, sets or colours first"


def run(cells: list[nbformat.NotebookNode], known: dict[str, Any]) -> list[str]:
    """Run the cells of a page in order, a drawing cell on a copy of what the others have set, so
    that no cell can use what a figure's cell sets. Gives the names of the cells that drew."""
    drawn = []
    for place, cell in enumerate(cells):
        if "provenance" not in cell.metadata.get("tags", []):
            name = f"cell {place + 1}: {cell.source.splitlines()[0]}"
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(cell.source, name, "exec"), dict(known) if draws(cell) else known)
            drawn += [name] * draws(cell)
    return drawn


@EACH_PAGE
def test_each_figure_is_drawn_by_its_cell_alone(text: Path, home: Path):
    if not any(map(draws, code_of(text))):
        return
    shutil.copytree(REPOSITORY / "book", home / "book", ignore=shutil.ignore_patterns("*.ipynb"))
    (home / "data").mkdir()
    for name in ("records", "roles", "mini"):
        os.symlink(REPOSITORY / "data" / name, home / "data" / name)
    assert run(code_of(text), {"__name__": "__main__"})
    assert not plt.get_fignums()


def test_a_cell_that_needs_a_figures_cell_is_found():
    cells = [
        nbformat.v4.new_code_cell(source)
        for source in ("plots = type('P', (), {'show': print})", "a = 1\nplots.show(a)", "a + 1")
    ]
    assert run(cells[:2], {}) == ["cell 2: a = 1"]
    with pytest.raises(NameError):
        run(cells, {})
