"""The rules that every stored page keeps; a build that executes nothing would not notice."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from cae_lib.config import paths
from cae_lib.pages.source import read_page
from cae_lib.shown import html_of

MOST_CODE_CELLS, MOST_ALT, MOST_BYTES = 24, 300, 600_000
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
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    counted = sum("provenance" not in cell.metadata.get("tags", []) for cell in code)
    counts, size = [cell.execution_count for cell in code], len(json.dumps(notebook))
    problems = {
        f"execution counts are {counts}, expected 1 to {len(code)}: run the whole page": counts
        != list(range(1, len(code) + 1)),
        f"{counted} code cells, at most {MOST_CODE_CELLS} besides the provenance": counted
        > MOST_CODE_CELLS,
        f"{size} bytes, at most {MOST_BYTES} are allowed: smaller figures": size >= MOST_BYTES,
    }
    return [text for text, is_so in problems.items() if is_so] + [
        f"cell {number} ({cell.source.strip().partition(chr(10))[0][:50]!r}): {problem}"
        for number, cell in enumerate(notebook.cells)
        for problem in _cell(cell)
    ]


def _cell(cell: NotebookNode) -> Iterator[str]:
    if cell.cell_type == "markdown":
        yield from _images(cell.source)
    if "injected-parameters" in cell.metadata.get("tags", []):
        yield "injected parameters: only runs with the page's own defaults are stored"
    for output in cell.get("outputs", ()):
        if output.output_type == "error":
            yield f"ends in {output.ename}: {output.evalue}"
        data = output.get("data", {})
        if any(kind.startswith("image/") for kind in data) and not html_of(data):
            yield from _alternative(cell.metadata.get("mystnb", {}).get("image", {}).get("alt", ""))
        for kind, content in {"text": output.get("text", ""), **data}.items():
            if not kind.startswith("image/") or kind == "image/svg+xml":
                text = content if isinstance(content, str) else json.dumps(content)
                text, root = EMBEDDED.sub("", text), str(paths().root)
                yield from _images(text)
                own = [root] if len(root) > 3 and root in text else []
                yield from (
                    f"the absolute path {path}" for path in ABSOLUTE_PATH.findall(text) or own
                )


def _images(text: str) -> Iterator[str]:
    """Images in HTML or Markdown whose alt text is missing or too long."""
    for image in IMAGE.finditer(text):
        alt = HTML_ALT.search(image[0]) if image[1] is None else None
        yield from _alternative(image[1] or html.unescape(alt[1] or alt[2] or "" if alt else ""))


def _alternative(text: str) -> Iterator[str]:
    if not text.strip() or text.endswith((".png", ".svg", ".jpg")):
        yield "an image without alt text: `cae_lib.plots.show(figure, alt)` gives it one"
    if len(text) > MOST_ALT:
        yield f"an alt text of {len(text)} characters, at most {MOST_ALT} are allowed"
