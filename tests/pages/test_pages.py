"""Every stored page keeps the rules, texts state its numbers; when a page is current."""

import ast
import json
import re
import shlex
from base64 import b64decode
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest
import yaml
from conftest import REPOSITORY
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from papermill import inspect_notebook
from rules import check_notebook, check_pair

from book.extension import quotes
from book.extension.glue import html_of
from book.extension.provenance import MIME, Provenance, provenance, states
from book.extension.run import readme_figure, run_page
from book.extension.source import read_page
from cae_lab import store
from cae_lab.profiles import load_profile

EXPERIMENTS = REPOSITORY / "book" / "experiments"
PAGES = sorted(EXPERIMENTS.glob("*.md"))
PARAMETERS = {"__annotations__": {"profile": str, "seeds": int}, "seeds": 3}
EACH_PAGE = pytest.mark.parametrize("text", PAGES, ids=lambda path: path.stem)


@cache
def stored(text: Path) -> nbformat.NotebookNode:
    return nbformat.read(text.with_suffix(".ipynb"), as_version=4)


@EACH_PAGE
def test_stored_page_keeps_all_rules(text: Path):
    assert check_pair(text, text.with_suffix(".ipynb")) == []
    parameters = inspect_notebook(text.with_suffix(".ipynb"))
    assert parameters["profile"]["inferred_type_name"] == "str"
    assert all(parameter["help"] for parameter in parameters.values()), "explain each parameter"


@EACH_PAGE
def test_stored_page_has_the_metadata_and_numbers_that_jupyterlab_writes(text: Path):
    """JavaScript knows no 9.0 and no 1e-05, so that a page with one would change when opened."""
    numbers: list[str] = []
    content = text.with_suffix(".ipynb").read_text(encoding="utf-8")
    metadata = json.loads(content, parse_float=numbers.append)["metadata"]
    assert not [number for number in numbers if number.endswith(".0") or "e" in number]
    assert metadata["jupytext"] == {"default_lexer": "ipython3"}
    assert metadata["kernelspec"]["display_name"] == "Python 3 (ipykernel)"
    assert "version" in metadata["language_info"]


def test_contents_and_pages_agree():
    contents = yaml.safe_load((REPOSITORY / "book" / "_toc.yml").read_text(encoding="utf-8"))
    files = [chapter["file"] for part in contents["parts"] for chapter in part["chapters"]]
    named = {file for file in files if file.startswith("experiments/")}
    assert named == {f"experiments/{path.stem}.ipynb" for path in PAGES}
    assert {path.stem for path in EXPERIMENTS.glob("*.ipynb")} == {path.stem for path in PAGES}


def test_links_to_a_part_of_a_page_name_a_heading_as_github_does():
    """Small letters, hyphens for blanks, no punctuation; others make such anchors as well."""
    texts = {path: path.read_text("utf-8") for path in (REPOSITORY / "book").glob("**/*.md")}
    anchors = {
        path: {
            re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
            for title in re.findall(r"^#+ (.*)$", text, re.M)
        }
        for path, text in texts.items()
    }
    links = [
        (path, (path.parent / page).resolve() if page else path, anchor)
        for path, text in texts.items()
        for page, anchor in re.findall(r"\]\(([\w./-]*)#([^)]+)\)", text)
    ]
    assert [link for link in links if link[2] not in anchors.get(link[1], ())] == []
    assert len(links) > 10


@EACH_PAGE
def test_viewers_that_trust_no_html_show_each_figure(text: Path):
    """JupyterLab and GitHub take `text/html` before an image, and strip what is drawn in it."""
    for cell in stored(text).cells:
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            is_glued = any(kind.startswith("application/papermill.record/") for kind in data)
            if "cae-figure" in html_of(data) and not is_glued:
                assert "text/html" not in data, cell.source
                assert b64decode(data["image/png"]).startswith(b"\x89PNG")


@EACH_PAGE
def test_page_ends_with_the_command_that_runs_it_again(text: Path):
    bundles = [output.data for output in stored(text).cells[-1].outputs]
    (again,) = [bundle[MIME]["command"] for bundle in bundles if MIME in bundle]
    program, page, out, *words = shlex.split(again)
    assert (program, out) == ("papermill", "out.ipynb")
    assert REPOSITORY / page == text.with_suffix(".ipynb")
    declared = inspect_notebook(text.with_suffix(".ipynb"))
    defaults = {name: ast.literal_eval(declared[name]["default"]) for name in declared}
    expected = {name: str(default) for name, default in defaults.items() if default != ""}
    assert dict(zip(words[1::3], words[2::3], strict=True)) == expected


def stored_quotes(page: Path) -> list[quotes.Quotes]:
    bundles = [
        output.get("data", {}) for cell in stored(page).cells for output in cell.get("outputs", ())
    ]
    return [quotes.Quotes(data[quotes.MIME]) for data in bundles if quotes.MIME in data]


@EACH_PAGE
def test_texts_state_what_a_stored_page_computed(text: Path):
    assert [failure for each in stored_quotes(text) for failure in each.failures()] == []


@pytest.mark.parametrize(
    ("text", "failures"),
    [
        ("It *gains*\n15.3 [points](bindings.md),\nand nothing else gains.", 0),
        ("It gains 15.2 points, and nothing else gains.", 1),
        ("It gains 15.3 points.\n\n```{code-cell}\nquoted(and nothing else gains)\n```", 1),
        ("", 2),
    ],
)
def test_a_statement_counts_as_made_in_prose_with_its_number(home: Path, text: str, failures: int):
    page = home / "book" / "experiments" / "page.md"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(text, encoding="utf-8")
    values = {"It gains {} points": "15.3", "and nothing else gains": True}
    quotes_of_page = quotes.quoted(values, "page")
    assert len(quotes_of_page.failures()) == failures
    assert bool(quotes_of_page._repr_mimebundle_()["text/plain"]) is (failures > 0)
    assert quotes.quoted(values | {"and nothing else gains": False}, "page").failures()


def glued(page: str) -> dict[str, str]:
    """Return the texts that a stored page hands to the book, by name."""
    cells = stored(EXPERIMENTS / f"{page}.md").cells
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    return {
        output.metadata["scrapbook"]["name"]: text
        for output in outputs
        if "scrapbook" in output.metadata
        for kind, text in output.data.items()
        if kind.endswith("text/plain")
    }


def test_claims_and_verdicts_finds_what_the_verdicts_of_other_pages_say():
    finding = quotes.plain_text((EXPERIMENTS / "verdicts.md").read_text(encoding="utf-8"))
    assert "accuracy, text-to-image retrieval and text similarity are negligible" in finding
    accuracy, retrieval = glued("accuracy"), glued("retrieval-and-text")
    negligible = [accuracy["C3_verdict"], accuracy["C4_verdict"]]
    negligible += [retrieval["C5b_verdict"], retrieval["C6_verdict"]]
    assert set(negligible) == {"negligible"}
    assert "none of these gains is supported with the paper's word roles" in finding
    photographs = [glued("photographs")[f"{claim}_verdict"] for claim in ("C3", "C4", "C5b", "C6")]
    photographs += [glued("paired")[f"{claim}_verdict"] for claim in ("C3", "C4")]
    assert not [word for word in photographs if "supported" in word]
    assert glued("attribution")["C1_verdict"].startswith("supported")
    assert glued("attribution")["C2_verdict"] == "undecided", "though its mean is closed"
    words = glued("heat-maps")["C8_clip_verdict"]
    assert "GradCAM supported" in words and "attention, gradient negligible" in words


def test_readme_shows_a_figure_of_the_stored_page():
    image = (REPOSITORY / "book" / "images" / "gap-and-accuracy.svg").read_text(encoding="utf-8")
    assert image == readme_figure(stored(EXPERIMENTS / "gap-and-accuracy.md"))


def test_the_figure_of_readme_is_none_of_smoke(text: Path, home: Path):
    figure = '<svg role="img" aria-label="a figure"><path/></svg>'
    content = text.read_text(encoding="utf-8").replace(
        "1 + 1", f"from IPython.display import HTML\n\nHTML('{figure}')"
    )
    text.with_name("gap-and-accuracy.md").write_text(content, encoding="utf-8")
    for profile in ("smoke", None):
        run_page("gap-and-accuracy", profile)
        image = home / "book" / "images" / "gap-and-accuracy.svg"
        assert image.exists() is (profile is None)


def good_page() -> nbformat.NotebookNode:
    figure = new_output("display_data", {"image/png": "AAAA", "text/plain": "<Figure>"})
    alt = {"mystnb": {"image": {"alt": "Bars: objects .25, relations .06"}}}
    return new_notebook(
        cells=[
            new_markdown_cell("# Title\n\nA ratio 1/2, see https://host/home/page."),
            new_code_cell("plot()", execution_count=1, outputs=[figure], metadata=alt),
            new_code_cell("state()", execution_count=2),
        ]
    )


def output(content: str) -> nbformat.NotebookNode:
    return new_output("display_data", {"text/html": content})


@pytest.mark.parametrize(
    ("place", "name", "value", "complaint"),
    [
        (2, "execution_count", 3, "execution counts"),
        (2, "outputs", [new_output("error", ename="KeyError", evalue="'b'")], "KeyError: 'b'"),
        (2, "metadata", {"tags": ["injected-parameters"]}, "injected parameters"),
        (1, "metadata", {}, "without alt text"),
        (2, "outputs", [output('<svg role="img" aria-label=" "><path/></svg>')], "without alt"),
        (0, "source", "![](x.svg)", "without alt text"),
        (0, "source", "(a-place)=\n## A place", "JupyterLab shows"),
        (0, "source", "it is 88\n% of them", "does not show"),
        (2, "outputs", [new_output("stream", text="see /home/me/x.py:3")], "/home/me"),
        (2, "outputs", [output("<pre>C:\\Users\\me\\x</pre>")], "C:\\Users\\me"),
    ],
)
def test_each_rule_catches_its_fault(place: int, name: str, value: Any, complaint: str):
    page = good_page()
    assert check_notebook(page) == []
    page.cells[place][name] = nbformat.from_dict(value)
    (problem,) = check_notebook(page)
    assert complaint in problem


def test_page_is_current_while_text_and_stored_tables_are_as_they_were(text: Path):
    path = text.with_suffix(".ipynb")

    def state() -> str:
        (row,) = states("mini").itertuples()
        return row.state

    frame = pd.DataFrame({"a": [1]})

    def keep(key: str, seed: int = 0) -> None:
        store.save("t", load_profile("mini"), "base", seed, frame, key=key, provenance={})

    assert state() == "not run yet" and len(check_pair(text, path)) == 1
    keep("one")
    notebook = read_page(text)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for count, cell in enumerate(code, start=1):
        cell.execution_count = count
    nbformat.write(notebook, path)
    assert state() == "has no provenance" and check_pair(text, path) == []
    store.save("t", load_profile("photo"), "base", 0, frame, key="p", provenance={})
    for profile in ("photo", "mini"):  # each is compared with its own profile's tables
        bundle = provenance("page", PARAMETERS | {"profile": profile})._repr_mimebundle_()
        code[-1].outputs = [new_output("execute_result", bundle, execution_count=3)]
        nbformat.write(notebook, path)
        assert state() == "current"
    assert bundle[MIME]["seeds"] == 3
    for dirty in (True, False):
        shown = Provenance(bundle[MIME] | {"dirty": dirty})._repr_mimebundle_()["text/html"]
        assert ("uncommitted" in shown) is dirty
    for key, expected in (("two", "stale"), ("one", "current")):
        keep(key)
        assert state() == expected
    keep("one", seed=1)
    assert state() == "stale", "a further seed"
    text.write_text(text.read_text().replace("# A page", "# Another"))
    (problem,) = check_pair(text, path)
    assert state() == "has another text" and re.search("not those of page.md", problem)
    path.write_text("{")
    assert state() == "cannot be read"
