"""The report names numbers and figures that the stored pages have, and no other; it becomes LaTeX
where pandoc is, and says what is missing."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from conftest import REPOSITORY

from cae_lib.cli import main
from cae_lib.commands import report
from cae_lib.errors import CaeError, DataError
from cae_lib.pages import stamp
from cae_lib.shown import FIGURE_HTML

TEXT = (REPOSITORY / "report" / "report.md").read_text(encoding="utf-8")
BIBLIOGRAPHIES = ("book/references.bib", "report/report.bib")

SVG = '<svg viewBox="0 0 72 36"><path d="M0 0h72v36z" fill="currentColor"/></svg>'
LINK = '<p><a download="bars.csv" href="data:text/csv;base64,YQ==">bars.csv</a></p>'
PREFIX = "application/papermill.record/"
GLUED = {
    "gain": "'−1.5 [−2.6,\xa0−0.3]'",
    "lead": "2.00794",
    "word": "mixed (2 of 4 negligible)",
    "share": "'26 % left'",
    "nothing": "'–'",
    "n": "3",
}

NOT_TYPED = re.compile(  # what may hold digits in a sentence on results, beside glued numbers
    r"\{glue:text\}`[^`]*`|\]\([^)]*\)|\{#[^}]*\}|\$\$.*?\$\$|\$[^$]*\$|`[^`\n]+`|@\w+|L\{[\d.]+\}"
    r"|\\\w+\{[^}]*\}|\bC\d[ab]?\b|ViT-B/32|Flickr8k|R@1|\b95.{1,2}%",
    re.DOTALL,
)


@pytest.fixture
def page(home: Path) -> Path:
    """A project with one stored page, `page`, and the start of a report."""
    outputs = [
        {
            "data": {f"{PREFIX}text/plain": value},
            "metadata": {"scrapbook": {"name": name, "mime_prefix": PREFIX}},
        }
        for name, value in GLUED.items()
    ]
    outputs += [
        {"data": {FIGURE_HTML: LINK + SVG}, "metadata": {}},
        {"name": "stdout", "text": "x"},
    ]
    path = home / "book" / "experiments" / "page.ipynb"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"cells": [{"cell_type": "markdown"}, {"outputs": outputs}]}))
    (home / "report").mkdir()
    (home / "report" / "report.bib").write_text("")
    (home / "report" / "report.md").write_text(
        "---\ntitle: T\n---\n\nIt is {glue:text}`experiments/page.ipynb::gain` [@li2024cae].\n\n"
        "![Bars.](experiments/page.ipynb::bars){width=50%}\n"
    )
    return path


def glue(name: str) -> str:
    return f"{{glue:text}}`experiments/page.ipynb::{name}`"


def test_every_number_and_figure_of_the_report_is_on_a_stored_page() -> None:
    resolved, figures = report.resolve(TEXT)
    assert "{glue" not in resolved and ".ipynb" not in resolved and 4 <= len(figures) <= 5
    assert all(f"({name}.pdf)" in resolved and svg.count("<path") for name, svg in figures.items())


def test_a_figure_becomes_a_page_of_its_own_size_in_black() -> None:
    pytest.importorskip("typst")
    _, figures = report.resolve(TEXT)
    for svg in (SVG, *figures.values()):
        pdf = report.as_pdf(svg)
        assert pdf.startswith(b"%PDF-1.5") and pdf.count(b"/MediaBox") == 1
        width, height = map(float, re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups())
        shown = re.search(rb"/MediaBox\s*\[\s*0\s+0\s+([\d.]+)\s+([\d.]+)", pdf).groups()
        assert float(shown[0]) / float(shown[1]) == pytest.approx(width / height, rel=0.01)


def test_sentences_on_results_have_no_number_typed_by_hand() -> None:
    front, body = TEXT.removeprefix("---\n").split("\n---\n", 1)
    abstract = re.search(r"abstract: \|\n((?:  .*\n)+)", front)[1]
    sections = re.split(r"^(?=# )", body, flags=re.MULTILINE)
    results = [part for part in sections if ".typed}" not in part.partition("\n")[0]]
    assert {"# Results", "# Attribution of bindings", "# What cannot be said"} <= {
        part.partition("\n")[0].partition(" {")[0] for part in results
    }
    for part in (abstract, *results):
        assert re.findall(r".*\d.*", NOT_TYPED.sub("", part)) == []


def test_what_the_report_cites_and_points_to_is_there() -> None:
    known = {
        key
        for place in BIBLIOGRAPHIES
        for key in re.findall(
            r"^@\w+\{(\w+),", (REPOSITORY / place).read_text(encoding="utf-8"), re.MULTILINE
        )
    }
    cited = set(re.findall(r"(?<![\w`])@([a-z]+\d{4}\w+)", TEXT))
    assert "li2024cae" in cited <= known
    labels = re.findall(r"\{#([\w:]+)|\\label\{([\w:]+)\}", TEXT)
    assert set(re.findall(r"\\ref\{([\w:]+)\}", TEXT)) <= {a or b for a, b in labels}


def test_numbers_read_in_markdown_as_on_the_page(page: Path) -> None:
    text = f"{glue('gain')} and {glue('lead:.1f')}, {glue('word')}, {glue('share:s')}, {glue('n')}"
    resolved, figures = report.resolve(f"{text} ![A](experiments/page.ipynb::bars)")
    minus = r"\textminus{}"
    assert resolved == (
        f"{minus}1.5 [{minus}2.6,\xa0{minus}0.3] and 2.0, mixed (2 of 4 negligible)"
        r", 26 \% left, 3 ![A](bars.pdf)"
    )
    assert figures == {"bars": SVG}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (glue("other"), r"other of the page page, .* values: gain, lead, word"),
        (glue("gain").replace("/page.", "/gone."), r"the page gone, .* cae run gone"),
        ("![A](experiments/page.ipynb::gain)", r"gain of the page page, .* figures: bars"),
        (glue("gain:.1f"), r"gain of the page page is .*\.1f"),
        (glue("word:.1f"), r"word of the page page is .*\.1f"),
        (glue("nothing"), r"nothing of the page page .* not measured"),
    ],
)
def test_what_a_page_does_not_have_is_an_error_that_names_it(page, text, said) -> None:
    with pytest.raises(DataError, match=said):
        report.resolve(text)


def test_pages_that_are_not_current_or_mean_nothing_are_not_taken_silently(monkeypatch) -> None:
    rows = [
        ("a", "current", "mini", "2026-11-27 01:00 UTC"),
        ("d", "stale", "mini", None),
        ("b", "current", "photo", "2026-11-28 01:00 UTC"),
        ("c", "current", "smoke", "2026"),
    ]
    frame = pd.DataFrame(rows, columns=["page", "state", "profile", "when"])
    monkeypatch.setattr(stamp, "states", lambda profile: frame)
    assert report.told_state(["a", "b"], False) == "From pages of 2026-11-28"
    for names, said in ((["a", "d"], "d (stale)"), (["b", "c"], "c (means nothing)")):
        with pytest.raises(CaeError, match=re.escape(f"not current: {said}. ")):
            report.told_state(names, False)
        assert report.told_state(names, True).startswith("Draft") and said in report.told_state(
            names, True
        )


def test_the_command_writes_latex_and_says_what_a_pdf_takes(page, home, monkeypatch, capsys):
    pytest.importorskip("pypandoc")
    pytest.importorskip("typst")
    monkeypatch.setattr(report, "told_state", lambda pages, stale: f"Pages: {pages[0]}")
    monkeypatch.setattr(report.shutil, "which", lambda name: None)
    assert main(["report"]) == 0
    said = capsys.readouterr().out
    assert "report.tex" in said and "apt-get install texlive" in said
    folder = home / "build" / "report"
    made = (folder / "report.tex").read_text(encoding="utf-8")
    assert {path.name for path in folder.iterdir()} == {"report.tex", "bars.pdf"}
    for part in (r"\documentclass", r"\textminus{}1.5", "{bars.pdf}", "Pages: page", "Li et al."):
        assert part in made


def test_without_its_packages_the_command_names_the_extra(monkeypatch, capsys) -> None:
    monkeypatch.setattr(report.util, "find_spec", lambda name: None)
    assert main(["report"]) == 2
    assert "needs pypandoc, typst: pip install 'cae-lib[report]'" in capsys.readouterr().err
