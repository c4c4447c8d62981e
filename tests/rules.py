"""The rules that every stored page keeps; a build that executes nothing would not notice."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from book.extension.glue import html_of
from book.extension.source import read_page
from cae_lib.config import paths

ABSOLUTE_PATH = re.compile(
    r"(?<![\w./:~-])/(?:home|root|Users|work|tmp|usr|opt|mnt|var|private|content|srv)/[\w.-]+"
    r"|\b[A-Za-z]:\\+Users\\+[\w.-]+"
)
IMAGE = re.compile(r"!\[([^\]]*)\]\(|<(?:img|svg)\b[^>]*>", re.IGNORECASE)
HTML_ALT = re.compile(r"""\b(?:alt|aria-label)\s*=\s*(?:"([^"]*)"|'([^']*)')""", re.IGNORECASE)
EMBEDDED = re.compile(r"data:[\w/+.-]+;base64,[A-Za-z0-9+/=\s]+")


def check_pair(text: Path, notebook: Path) -> list[str]:
    """What is wrong with a page's two files, in words; empty when all is well."""
    if not notebook.is_file():
        return [f"{notebook.name} is missing: `cae run {text.stem}` makes it"]
    stored = nbformat.read(notebook, as_version=4)
    cells = [
        [(cell.cell_type, cell.source) for cell in page.cells] for page in (read_page(text), stored)
    ]
    other = f"the cells of {notebook.name} are not those of {text.name}: `cae run {text.stem}`"
    return [other] * (cells[0] != cells[1]) + check_notebook(stored)


def check_notebook(notebook: NotebookNode) -> list[str]:
    """What is wrong with an executed, cleaned notebook, in words."""
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    whole = counts == list(range(1, len(counts) + 1))
    problems = [] if whole else [f"execution counts are {counts}: run the whole page"]
    return problems + [
        f"cell {number}: {problem}"
        for number, cell in enumerate(notebook.cells)
        for problem in _problems(cell)
    ]


def _problems(cell: NotebookNode) -> Iterator[str]:
    if cell.cell_type == "markdown":
        yield from _images(cell.source)
        for line in cell.source.splitlines():
            if line.startswith("%"):  # a comment in MyST
                yield f"the book does not show the line {line!r}"
            if re.fullmatch(r"\([\w-]+\)=", line):  # a target in MyST
                yield f"JupyterLab shows the line {line!r}: link to a heading"
    if "injected-parameters" in cell.metadata.get("tags", []):
        yield "injected parameters: only runs with the page's own defaults are stored"
    for output in cell.get("outputs", ()):
        if output.output_type == "error":
            yield f"ends in {output.ename}: {output.evalue}"
        data = output.get("data", {})
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        is_drawn = any(kind.startswith("image/") for kind in data)
        if is_drawn and not html_of(data) and not alt:
            yield "an image without alt text"
        for kind, content in {"text": output.get("text", ""), **data}.items():
            if not kind.startswith("image/") or kind == "image/svg+xml":
                text = content if isinstance(content, str) else json.dumps(content)
                text, root = EMBEDDED.sub("", text), str(paths().root)
                yield from _images(text)
                here = [root] if len(root) > 3 and root in text else []
                yield from (f"the path {path}" for path in ABSOLUTE_PATH.findall(text) or here)


def _images(text: str) -> Iterator[str]:
    """Images in HTML or Markdown without alt text."""
    for image in IMAGE.finditer(text):
        alt = HTML_ALT.search(image[0]) if image[1] is None else None
        if not (image[1] or html.unescape(alt[1] or alt[2] or "" if alt else "")).strip():
            yield "an image without alt text"
