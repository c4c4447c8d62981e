"""Every stored page keeps the rules, and the rules catch what they are for."""

from __future__ import annotations

import copy
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pandas as pd
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from cae_lib import results
from cae_lib.pages.check import check_notebook, check_pair
from cae_lib.pages.run import clean
from cae_lib.pages.source import page_parameters, read_page
from cae_lib.pages.stamp import MIME, page_stamp, provenance, states
from cae_lib.plots import show

REPOSITORY = Path(__file__).resolve().parents[2]
EXPERIMENTS = REPOSITORY / "book" / "experiments"
PAGES = sorted(EXPERIMENTS.glob("*.md"))


@pytest.mark.parametrize("text", PAGES, ids=lambda path: path.stem)
def test_a_stored_page_keeps_all_rules(text: Path):
    assert check_pair(text, text.with_suffix(".ipynb")) == []


@pytest.mark.parametrize("text", PAGES, ids=lambda path: path.stem)
def test_a_page_has_the_common_parameter(text: Path):
    parameters = page_parameters(read_page(text), text.stem)
    assert (parameters["profile"].type, parameters["profile"].default) == ("str", "mini")
    assert all(parameter.comment for parameter in parameters.values()), "explain each parameter"


def test_contents_and_pages_agree():
    contents = yaml.safe_load((REPOSITORY / "book" / "_toc.yml").read_text(encoding="utf-8"))
    files = [chapter["file"] for part in contents["parts"] for chapter in part["chapters"]]
    named = {file for file in files if file.startswith("experiments/")}
    notebooks = {f"experiments/{path.name}" for path in EXPERIMENTS.glob("*.ipynb")}
    texts = {f"experiments/{path.stem}.ipynb" for path in PAGES}
    assert named == notebooks == texts
    for file in [contents["root"], *files]:
        path = REPOSITORY / "book" / file
        assert path.suffix == ".ipynb" or path.with_suffix(".md").is_file(), f"{file} is missing"


def good_page() -> nbformat.NotebookNode:
    figure = new_output("display_data", {"image/png": "AAAA", "text/plain": "<Figure>"})
    page = new_notebook(
        cells=[
            new_markdown_cell("# Title\n\nA ratio 1/2, see https://host/home/page."),
            new_code_cell("plot()", execution_count=1, outputs=[figure]),
            new_code_cell("stamp()", execution_count=2),
        ]
    )
    page.cells[1].metadata = {"mystnb": {"image": {"alt": "Bars: objects .25, relations .06"}}}
    page.cells[2].metadata = {"tags": ["remove-input", "provenance"]}
    return page


def test_a_good_page_passes():
    assert check_notebook(good_page()) == []


def _skip_count(page):
    page.cells[2].execution_count = 3


def _no_count(page):
    page.cells[2].execution_count = None


def _error(page):
    page.cells[1].outputs.append(new_output("error", ename="KeyError", evalue="'b'"))


def _injected(page):
    page.cells[2].metadata.tags = ["injected-parameters"]


def _no_alt(page):
    page.cells[1].metadata = {}


def _alt_is_a_file(page):
    page.cells[1].metadata.mystnb.image.alt = "../_images/abc.png"


def _html_image(page):
    html = '<img src="data:image/png;base64,AA==" width="3">'
    page.cells[2].outputs.append(new_output("display_data", {"text/html": html}))


def _drawing(page):
    html = '<svg role="img" aria-label=" "><path/></svg>'
    page.cells[2].outputs.append(new_output("display_data", {"text/html": html}))


def _long_alt(page):
    html = f'<svg role="img" aria-label="{"&quot;" * 301}"><path/></svg>'
    page.cells[2].outputs.append(new_output("display_data", {"text/html": html}))


def _markdown_image(page):
    page.cells[0].source += "\n![](x.svg)"


def _path_in_text(page):
    page.cells[2].outputs.append(new_output("stream", name="stdout", text="see /home/me/x.py:3"))


def _path_in_html(page):
    html = "<pre>C:\\Users\\me\\x</pre>"
    page.cells[2].outputs.append(new_output("execute_result", {"text/html": html}))


def _too_large(page):
    page.cells[1].outputs[0].data["image/png"] = "A" * 600_000


def _too_many_cells(page):
    page.cells += [new_code_cell("1", execution_count=3 + k) for k in range(12)]


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (_skip_count, "execution counts are"),
        (_no_count, "execution counts are"),
        (_error, "ends in KeyError: 'b'"),
        (_injected, "injected parameters"),
        (_no_alt, "image without alt text"),
        (_alt_is_a_file, "image without alt text"),
        (_drawing, "image without alt text"),
        (_long_alt, "alt text of 301 characters, at most 300"),
        (_html_image, "image without alt text"),
        (_markdown_image, "image without alt text"),
        (_path_in_text, "absolute path /home/me"),
        (_path_in_html, "absolute path C:\\Users\\me"),
        (_too_large, "at most 600000"),
        (_too_many_cells, "13 code cells, at most 12"),
    ],
)
def test_each_rule_catches_its_fault(spoil, complaint: str):
    page = good_page()
    spoil(page)
    problems = check_notebook(page)
    assert len(problems) == 1 and complaint in problems[0]


def test_what_plots_show_passes():
    page = good_page()
    figure = plt.figure()
    shown = show(figure, 'A "cat" < a car', pd.DataFrame({"a": [1]}))
    page.cells[2].outputs.append(new_output("execute_result", {"text/html": shown._repr_html_()}))
    assert check_notebook(page) == []


def test_an_html_image_with_alt_text_passes():
    page = good_page()
    html = '<img src="data:image/png;base64,/home/AA==" alt="A cat above a car">'
    page.cells[2].outputs.append(new_output("display_data", {"text/html": html}))
    assert check_notebook(page) == []


def test_text_and_notebook_have_to_have_the_same_cells(book_home: Path):
    text = book_home / "book" / "experiments" / "page.md"
    path = text.with_suffix(".ipynb")
    assert check_pair(text, path) == ["page.ipynb is missing: `cae run page` makes it"]
    notebook = read_page(text)
    for count, cell in enumerate((c for c in notebook.cells if c.cell_type == "code"), start=1):
        cell.execution_count = count
    nbformat.write(notebook, path)
    assert check_pair(text, path) == []
    other = copy.deepcopy(notebook)
    other.cells[0].source = "# Another title"
    nbformat.write(other, path)
    (problem,) = check_pair(text, path)
    assert "are not those of page.md" in problem


def test_cleaning_keeps_what_a_reader_needs():
    page = good_page()
    page.metadata["papermill"] = {"duration": 1.0}
    page.cells[1].metadata["execution"] = {"iopub.execute_input": "time"}
    page.cells[1].outputs.insert(0, new_output("stream", name="stderr", text="a warning"))
    page.cells[1].outputs.insert(0, new_output("stream", name="stdout", text="a number"))
    result = clean(page)
    assert "papermill" not in result.metadata
    assert set(result.cells[1].metadata) == {"mystnb"}
    assert [output.output_type for output in result.cells[1].outputs] == ["stream", "display_data"]
    assert result.cells[1].outputs[0].text == "a number"
    assert "papermill" in page.metadata, "the given notebook stays as it is"


def test_a_page_is_current_while_the_stored_tables_are(book_home: Path):
    text = book_home / "book" / "experiments" / "page.md"

    def state() -> str:
        (row,) = states("mini").itertuples()
        return row.state

    def store(key: str) -> None:
        frame = pd.DataFrame({"a": [1]})
        results.save("t", "base", 0, frame, "mini", key=key, provenance={})

    assert state() == "not run yet"
    store("one")
    notebook = read_page(text)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for count, cell in enumerate(code, start=1):
        cell.execution_count = count
    nbformat.write(notebook, text.with_suffix(".ipynb"))
    assert state() == "has no stamp"
    bundle = provenance("mini", seeds=3)._repr_mimebundle_()
    assert "run on" in bundle["text/html"] and bundle[MIME]["seeds"] == 3
    code[-1].outputs = [new_output("execute_result", bundle, execution_count=3)]
    nbformat.write(notebook, text.with_suffix(".ipynb"))
    assert state() == "current"
    store("two")
    assert state() == "stale" and page_stamp("mini")["tables"] != bundle[MIME]["tables"]
    store("one")
    assert state() == "current"
    text.write_text(text.read_text().replace("# A page", "# Another"))
    assert state() == "breaks a rule"
