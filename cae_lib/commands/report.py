"""Write the reproduction as a paper of eight pages in LaTeX: `cae report`.

The text is `report/report.md`, which pandoc converts. It refers to numbers and figures of the
book's stored pages by name.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import shutil
from importlib import util
from pathlib import Path

from cae_lib.commands.options import add_arguments, option
from cae_lib.config import paths, shipped
from cae_lib.errors import CaeError, DataError
from cae_lib.pages.source import experiments_folder
from cae_lib.profiles import PROFILES
from cae_lib.runtime import write_atomic
from cae_lib.shown import html_of

PLACE = r"experiments/(?P<page>[\w-]+)\.ipynb::(?P<name>[\w-]+)"
NUMBER = re.compile(r"\{glue:text\}`" + PLACE + r"(?::(?P<format>[^`]+))?`")
FIGURE = re.compile(r"(?<=\]\()" + PLACE + r"(?=\))")
DRAWN = re.compile(r'download="(?P<name>[^"]+)\.csv".*?(?P<svg><svg\b.*?</svg>)', re.DOTALL)
SHEET = b'#set page(width: auto, height: auto, margin: 0pt)\n#image("figure.svg")'
ENGINES = ("pdflatex", "xelatex", "lualatex", "tectonic")
NO_ENGINE = (
    "There is no PDF, since no LaTeX was found: install one, on Debian and Ubuntu by "
    "`apt-get install texlive-latex-recommended lmodern`, and call this again"
)


@add_arguments(
    option(
        "--stale",
        action="store_true",
        help="make a draft from pages that are not current, too; it says so below its title",
    )
)
def run(parsed: argparse.Namespace) -> None:
    """Write the report into build/report."""
    if missing := [name for name in ("pypandoc", "typst") if util.find_spec(name) is None]:
        raise CaeError(f"the report needs {', '.join(missing)}: pip install 'cae-lib[report]'")
    source, folder = shipped("report/report.md"), paths().build / "report"
    text = source.read_text(encoding="utf-8")
    resolved, figures = resolve(text)
    named = {match["page"] for match in (*NUMBER.finditer(text), *FIGURE.finditer(text))}
    options = [
        f"--metadata=date:{told_state(sorted(named), parsed.stale)}",
        f"--bibliography={shipped('book/references.bib')}",
        f"--bibliography={source.with_name('report.bib')}",
    ]
    for name, svg in figures.items():
        write_atomic(folder / f"{name}.pdf", as_pdf(svg))
    convert(resolved, folder / "report.tex", *options)
    print(f"The report is {folder / 'report.tex'}")
    engine = next(filter(shutil.which, ENGINES), None)
    if engine is not None:
        convert(resolved, folder / "report.pdf", *options, f"--pdf-engine={engine}")
    print(NO_ENGINE if engine is None else f"Its PDF, by {engine}, is {folder / 'report.pdf'}")


def resolve(text: str) -> tuple[str, dict[str, str]]:
    """Insert the numbers and figures that a text refers to.

    Args:
        text: Markdown with references to values and figures of stored pages.

    Returns:
        The text, in which each figure is a link to NAME.pdf, and the figures as SVG by NAME.

    Raises:
        DataError: If a stored page lacks a value or figure; the message names both.
    """
    pages: dict[str, dict[str, dict[str, str]]] = {}
    figures: dict[str, str] = {}

    def found(match: re.Match[str], kind: str) -> str:
        page, name = match["page"], match["name"]
        pages[page] = pages.get(page) or stored(page)
        if name not in pages[page][kind]:
            raise DataError(
                f"the report names {name} of the page {page}, which is none of its "
                f"{kind}: {', '.join(pages[page][kind]) or 'it has none'}"
            )
        return pages[page][kind][name]

    def number(match: re.Match[str]) -> str:
        value, place = found(match, "values"), f"{match['name']} of the page {match['page']}"
        try:
            shown = format(ast.literal_eval(value), match["format"] or "")
        except (ValueError, SyntaxError) as error:
            if match["format"]:
                raise DataError(f"{place} is {value}: {match['format']} cannot show it") from error
            shown = value  # the word of a verdict
        if not shown or "–" in shown:
            raise DataError(f"{place} is {shown!r}: it was not measured")
        plain = re.sub(r"[%&#_]", r"\\\g<0>", shown)  # in Markdown as in tables of LaTeX
        return plain.replace("−", r"\textminus{}")

    def figure(match: re.Match[str]) -> str:
        figures[match["name"]] = found(match, "figures")
        return f"{match['name']}.pdf"

    return FIGURE.sub(figure, NUMBER.sub(number, text)), figures


def stored(page: str) -> dict[str, dict[str, str]]:
    """Return the glued values and the figures of a stored page.

    Args:
        page: Name of the page.

    Returns:
        `values`, the glued values as text by name, and `figures`, the figures as SVG by the names
        of their CSV files.

    Raises:
        DataError: If there is no such page.
    """
    path, values, figures = experiments_folder() / f"{page}.ipynb", {}, {}
    if not path.is_file():
        raise DataError(f"the report names the page {page}, which is not stored: cae run {page}")
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", ()):
            data, glued = output.get("data", {}), output.get("metadata", {}).get("scrapbook")
            if glued:
                values[glued["name"]] = "".join(data[f"{glued['mime_prefix']}text/plain"])
            if drawn := DRAWN.search(html_of(data)):
                figures[drawn["name"]] = drawn["svg"]
    return {"values": values, "figures": figures}


def told_state(pages: list[str], stale: bool) -> str:
    """Return a phrase with the date of the pages or, for a draft, the pages that are not current.

    Args:
        pages: Names of the pages that the report uses.
        stale: Accept pages that are not current; the phrase then names them in place of the date.

    Raises:
        CaeError: If the code or tables have changed since a page was made, or if the numbers of a
            page are meaningless, unless `stale` is set.
    """
    from cae_lib.pages.stamp import states  # brings pandas

    found = states("mini").set_index("page").loc[pages]
    sound = found["profile"].map(lambda name: name in PROFILES and PROFILES[name].recorded)
    wrong = found["state"].where(sound, "means nothing")[lambda state: state != "current"]
    named = ", ".join(f"{page} ({state})" for page, state in wrong.items())
    if named and not stale:
        raise CaeError(
            f"pages of the report are not current: {named}. `cae run NAME` makes one "
            "again, `cae report --stale` a draft that says so"
        )
    day = found["when"].max()[:10]
    return f"Draft from pages that are not current: {named}" if named else f"From pages of {day}"


def as_pdf(svg: str) -> bytes:
    """Return a figure as PDF, drawn in black on a page of the figure's size."""
    import typst

    files = {"main.typ": SHEET, "figure.svg": svg.replace("currentColor", "#000").encode()}
    return typst.compile(files, format="pdf", pdf_standards="1.5", pdf_tags=False)


def convert(text: str, target: Path, *options: str) -> None:
    """Convert Markdown to another format, which the suffix of the target determines.

    Args:
        text: The Markdown.
        target: Path of the output.
        *options: Further options of pandoc.

    Raises:
        CaeError: If the conversion fails, with the message of pandoc or LaTeX.
    """
    import pypandoc

    try:
        pypandoc.convert_text(
            text,
            target.suffix[1:],
            "markdown",
            outputfile=str(target),
            extra_args=["--standalone", "--citeproc", *options],
            cworkdir=str(target.parent),
        )
    except RuntimeError as error:
        raise CaeError(f"{target.name} could not be made: {error}") from error
