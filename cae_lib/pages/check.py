"""The rules that every stored page keeps; a build that executes nothing would not notice."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from cae_lib.config import paths
from cae_lib.pages.source import read_page

if TYPE_CHECKING:
    from nbformat import NotebookNode

MOST_CODE_CELLS = 12
MOST_ALT = 300
MOST_BYTES = 600_000
ABSOLUTE_PATH = re.compile(
    r"(?<![\w./:~-])/(?:home|root|Users|work|tmp|usr|opt|mnt|var|private|content|srv)/[\w.-]+"
    r"|\b[A-Za-z]:\\+Users\\+[\w.-]+"
)
HTML_IMAGE = re.compile(r"<img\b[^>]*>|<svg\b[^>]*>", re.IGNORECASE)
HTML_ALT = re.compile(r"""\b(?:alt|aria-label)\s*=\s*(?:"([^"]*)"|'([^']*)')""", re.IGNORECASE)
MARKDOWN_IMAGE = re.compile(r"!\[([^\]]*)\]\(")
EMBEDDED = re.compile(r"data:[\w/+.-]+;base64,[A-Za-z0-9+/=\s]+")


def check_pair(text: Path, notebook: Path) -> list[str]:
    """Check a page's two files against each other and the notebook against all rules.

    Returns:
        What is wrong, in words; empty when all is well.
    """
    import nbformat

    if not notebook.is_file():
        return [f"{notebook.name} is missing: `cae run {text.stem}` makes it"]
    stored = nbformat.read(notebook, as_version=4)
    problems = []
    wanted = [(cell.cell_type, cell.source) for cell in read_page(text).cells]
    if wanted != [(cell.cell_type, cell.source) for cell in stored.cells]:
        problems.append(
            f"the cells of {notebook.name} are not those of {text.name}: `cae run {text.stem}`"
        )
    return problems + check_notebook(stored)


def check_notebook(notebook: NotebookNode, injected: bool = False) -> list[str]:
    """Check an executed, cleaned notebook.

    Args:
        notebook: an ``nbformat`` notebook.
        injected: allow a cell of injected parameters, as the smoke profile has.
    """
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    problems = [*_execution(code), *_length(code, injected)]
    size = len(json.dumps(notebook))
    if size >= MOST_BYTES:
        problems.append(f"{size} bytes, at most {MOST_BYTES} are allowed: smaller figures")
    for number, cell in enumerate(notebook.cells):
        place = (
            f"cell {number} ({cell.source.strip().splitlines()[0][:50]!r})"
            if (cell.source.strip())
            else f"cell {number}"
        )
        problems += [f"{place}: {problem}" for problem in _cell(cell, injected)]
    return problems


def _execution(code: list[NotebookNode]) -> list[str]:
    counts = [cell.execution_count for cell in code]
    if counts != list(range(1, len(code) + 1)):
        return [f"execution counts are {counts}, expected 1 to {len(code)}: run the whole page"]
    return []


def _length(code: list[NotebookNode], injected: bool) -> list[str]:
    extra = {"provenance"} | ({"injected-parameters"} if injected else set())
    counted = [cell for cell in code if not extra & set(cell.metadata.get("tags", []))]
    if len(counted) > MOST_CODE_CELLS:
        return [f"{len(counted)} code cells, at most {MOST_CODE_CELLS} besides the provenance"]
    return []


def _cell(cell: NotebookNode, injected: bool) -> list[str]:
    if cell.cell_type == "markdown":
        return _images(cell.source)
    if cell.cell_type != "code":
        return []
    problems = []
    if "injected-parameters" in cell.metadata.get("tags", []) and not injected:
        problems.append("injected parameters: only runs with the page's own defaults are stored")
    alternative = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
    for output in cell.outputs:
        if output.output_type == "error":
            problems.append(f"ends in {output.ename}: {output.evalue}")
        data = output.get("data", {})
        if any(kind.startswith("image/") for kind in data) and "text/html" not in data:
            problems += _alternative(alternative)
        for text in _texts(output):
            problems += _images(text)
            problems += [f"the absolute path {path}" for path in _absolute(text)]
    return problems


def _texts(output: NotebookNode) -> list[str]:
    """Collect the texts of an output, without the images embedded in them."""
    data = output.get("data", {})
    texts = [output.get("text", "")]
    texts += [
        text if isinstance(text, str) else json.dumps(text)
        for kind, text in data.items()
        if not kind.startswith("image/") or kind == "image/svg+xml"
    ]
    return [EMBEDDED.sub("", text) for text in texts]


def _images(text: str) -> list[str]:
    """Find images in HTML or Markdown whose alt text is missing or too long."""
    alternatives = [match[1] for match in MARKDOWN_IMAGE.finditer(text)]
    for image in HTML_IMAGE.finditer(text):
        match = HTML_ALT.search(image[0])
        alternatives.append(html.unescape(match[1] or match[2] or "") if match else "")
    return [problem for alternative in alternatives for problem in _alternative(alternative)]


def _alternative(text: str) -> list[str]:
    if not text.strip() or text.endswith((".png", ".svg", ".jpg")):
        return ["an image without alt text: `cae_lib.plots.show(figure, alt)` gives it one"]
    if len(text) > MOST_ALT:
        return [f"an alt text of {len(text)} characters, at most {MOST_ALT} are allowed"]
    return []


def _absolute(text: str) -> list[str]:
    found = ABSOLUTE_PATH.findall(text)
    root = str(paths().root)
    return found or ([root] if len(root) > 3 and root in text else [])
