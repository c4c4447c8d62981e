"""Every stored page keeps the rules and draws its figures in view; the rules catch their faults."""

import ast
import os
import re
import shlex
import shutil
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import nbformat
import pandas as pd
import pytest
import yaml
from conftest import REPOSITORY
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from papermill import inspect_notebook
from rules import MOST_CODE_CELLS, check_notebook, check_pair

from cae_lib import results, shown
from cae_lib.errors import ConfigError
from cae_lib.pages.run import FIGURE, clean, readme_figure, run_page
from cae_lib.pages.source import read_page
from cae_lib.pages.stamp import MIME, Provenance, provenance, states
from cae_lib.plots import show
from cae_lib.profiles import PROFILES

EXPERIMENTS = REPOSITORY / "book" / "experiments"
PAGES = sorted(EXPERIMENTS.glob("*.md"))
SHOWING = ("plots.table", "plots.show", "plots.badge", "plots.forest")
PARAMETERS = {"__annotations__": {"profile": str, "seeds": int}, "seeds": 3}
EACH_PAGE = pytest.mark.parametrize("text", PAGES, ids=lambda path: path.stem)


def stored(text: Path) -> nbformat.NotebookNode:
    return nbformat.read(text.with_suffix(".ipynb"), as_version=4)


def default_of(parameters: dict[str, dict[str, Any]], name: str) -> Any:
    """The value that a page's cell of parameters gives a name."""
    return ast.literal_eval(parameters[name]["default"])


def html_of(cell: nbformat.NotebookNode) -> list[str]:
    """What a cell shows, but for the stamp."""
    stamp = "provenance" in cell.metadata.get("tags", [])
    outputs = [] if stamp else cell.get("outputs", [])
    return [shown.html_of(output.get("data", {})) for output in outputs]


@EACH_PAGE
def test_a_stored_page_keeps_all_rules(text: Path):
    assert check_pair(text, text.with_suffix(".ipynb")) == []
    parameters = inspect_notebook(text.with_suffix(".ipynb"))
    assert parameters["profile"]["inferred_type_name"] == "str"
    others = {
        "photographs": "photo",
        "word-roles": "photo",
        "paired": "paired",
    }
    assert default_of(parameters, "profile") == others.get(text.stem, "mini")
    assert all(parameter["help"] for parameter in parameters.values()), "explain each parameter"


def test_contents_and_pages_agree():
    contents = yaml.safe_load((REPOSITORY / "book" / "_toc.yml").read_text(encoding="utf-8"))
    chapters = [chapter for part in contents["parts"] for chapter in part["chapters"]]
    files = [
        each["file"] for chapter in chapters for each in (chapter, *chapter.get("sections", ()))
    ]
    named = {file for file in files if file.startswith("experiments/")}
    notebooks = {f"experiments/{path.name}" for path in EXPERIMENTS.glob("*.ipynb")}
    assert named == notebooks == {f"experiments/{path.stem}.ipynb" for path in PAGES}
    for file in [contents["root"], *files]:
        path = REPOSITORY / "book" / file
        assert path.suffix == ".ipynb" or path.with_suffix(".md").is_file(), f"{file} is missing"


@EACH_PAGE
def test_a_figure_is_drawn_in_its_cell_with_its_numbers(text: Path):
    for cell in stored(text).cells:
        if 'class="cae-figure"' in "".join(html_of(cell)):
            assert re.search(r"\b(sns|plt|plots)\.(?!show\b)\w+\(", cell.source), cell.source
            (shown,) = [
                node
                for node in ast.walk(ast.parse(cell.source))
                if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "show"
            ]
            assert len(shown.args) > 2 or "imshow(" in cell.source, "no table behind a figure"


@EACH_PAGE
def test_viewers_that_trust_no_html_show_each_figure(text: Path):
    """JupyterLab and GitHub take `text/html` before an image, and strip what is drawn in it."""
    for cell in stored(text).cells:
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "cae-figure" in "".join(map(str, data.values())) and not any(
                kind.startswith("application/papermill.record/") for kind in data
            ):
                assert "image/png" in data and "text/html" not in data, cell.source
                assert b64decode(data["image/png"]).startswith(b"\x89PNG")


@EACH_PAGE
def test_a_page_ends_with_the_command_that_runs_it_again(text: Path):
    """As stored: with the parameters that it has by default."""
    notebook = nbformat.read(text.with_suffix(".ipynb"), as_version=4)
    bundles = [output.data for output in notebook.cells[-1].outputs]
    (told,) = [bundle[MIME]["command"] for bundle in bundles if MIME in bundle]
    called, page, out, *words = shlex.split(told)
    assert (called, REPOSITORY / page) == ("papermill", text.with_suffix(".ipynb"))
    assert out == "out.ipynb" and words[::3] == ["-p"] * len(words[::3])
    given = dict(zip(words[1::3], words[2::3], strict=True))
    declared = inspect_notebook(text.with_suffix(".ipynb"))
    defaults = {name: default_of(declared, name) for name in declared}
    assert given == {name: str(default) for name, default in defaults.items() if default != ""}


@EACH_PAGE
def test_a_page_refuses_a_profile_that_it_does_not_describe(text: Path):
    given, first, *_ = [cell.source for cell in read_page(text).cells if cell.cell_type == "code"]
    default = default_of(inspect_notebook(text.with_suffix(".ipynb")), "profile")
    call = next(
        node
        for node in ast.walk(ast.parse(first))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "check_parameters"
    )
    described = ast.literal_eval(call.keywords[0].value)
    assert default in described
    for profile, known in PROFILES.items():
        names: dict[str, Any] = {}
        exec(given, names)
        names["profile"] = profile
        checked = "from cae_lib.pages.source import check_parameters\n" + ast.unparse(call)
        if profile in described or known.like in described:
            exec(checked, names)
        else:
            with pytest.raises(ConfigError, match=default):
                exec(first, names)


def _code(text: Path) -> Iterator[ast.Module]:
    """The code cells of a page."""
    for cell in read_page(text).cells:
        if cell.cell_type == "code":
            yield ast.parse(cell.source)


def _called(tree: ast.AST) -> set[str]:
    """The names of all functions and methods that are called."""
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return {getattr(call, "attr", getattr(call, "id", "")) for call in calls}


def _names(cell: ast.Module, use: type[ast.expr_context]) -> set[str]:
    """The names that a cell reads (`ast.Load`) or sets (`ast.Store`), those of arguments and of
    frames that get another column too."""
    nodes = [node for node in ast.walk(cell) if isinstance(getattr(node, "ctx", None), use)]
    found = {node.id for node in nodes if isinstance(node, ast.Name)}
    if use is ast.Store:
        found |= {node.arg for node in ast.walk(cell) if isinstance(node, ast.arg)}
        found |= {
            ast.unparse(node).partition("[")[0].partition(".")[0]
            for node in nodes
            if isinstance(node, ast.Subscript)
        }
    return found


def _written(text: ast.expr) -> str:
    """What of a text is written out, without the values of its braces."""
    if isinstance(text, ast.BinOp):
        return _written(text.left) + _written(text.right)
    parts = text.values if isinstance(text, ast.JoinedStr) else [text]
    return "".join(str(part.value) for part in parts if isinstance(part, ast.Constant))


def _discarded(cell: ast.Module) -> list[str]:
    """What a cell makes to be shown and then drops: a notebook displays the value of the last
    statement alone, and only where it stands by itself. A forest on given axes is drawn there."""
    found = []
    for line in ast.walk(cell):
        if isinstance(line, ast.Expr) and line is not cell.body[-1]:
            call = ast.unparse(line.value.func) if isinstance(line.value, ast.Call) else ""
            onto = call and "ax" in [given.arg for given in line.value.keywords]
            if isinstance(line.value, ast.Name) or call in SHOWING and not onto:
                found.append(ast.unparse(line))
    return found


@EACH_PAGE
def test_no_page_drops_a_table_or_a_figure(text: Path):
    assert [dropped for cell in _code(text) for dropped in _discarded(cell)] == []
    assert _discarded(ast.parse("if 1:\n    plots.table(a)\nfor b in c:\n    d\ne")) == [
        "plots.table(a)",
        "d",
    ]


@EACH_PAGE
def test_a_figure_can_be_drawn_again_without_loading_or_testing(text: Path):
    """A change of colour takes a second: what a drawing cell reads, no later cell overwrites."""
    cells = list(_code(text))
    for place, cell in enumerate(cells):
        if "show" not in _called(cell):
            continue
        slow = {"load", "mean_ci", "contrasts", "correlations", "ratios", "holm", "weights", "tag"}
        assert not slow & _called(cell), ast.unparse(cell)
        read = _names(cell, ast.Load) - _names(cell, ast.Store)
        later = set().union(*(_names(other, ast.Store) for other in cells[place + 1 :]))
        assert not read & later, ast.unparse(cell)


@EACH_PAGE
def test_an_alt_text_takes_its_numbers_from_the_cell(text: Path):
    """Those written by hand went stale; 95 % and R@1 are names."""
    for cell in _code(text):
        given = [
            node.args[1]
            for node in ast.walk(cell)
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "show"
        ]
        given += [
            node.value
            for node in ast.walk(cell)
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "alt"
        ]
        for alt in map(_written, given):
            assert not re.search(r"\d", re.sub(r"95 %|R@1", "", alt)), alt


def test_counts_of_stored_tables_are_whole_numbers():
    table = "".join("".join(html_of(cell)) for cell in stored(EXPERIMENTS / "status.md").cells)
    counts = re.findall(r"<th>([\w-]+)</th>" + r"\s*<td>(\d+)</td>" * 3, table)
    assert {name for name, *_ in counts} == {"mini", "photo", "paired"}


def test_the_pages_of_results_have_figures_and_readme_shows_one():
    with_figures = {
        text.stem
        for text in PAGES
        if any("cae-figure" in "".join(html_of(cell)) for cell in stored(text).cells)
    }
    assert with_figures >= {
        "photographs",
        "attribution",
        "faithfulness",
        "accuracy",
        "blind",
        "heat-maps",
        "retrieval-and-text",
        "what-decides",
        "cost",
        "quickgelu",
        "laboratory",
        "verdicts",
        "experiment",
        "sweep",
        "gap-and-accuracy",
    }
    image = (REPOSITORY / "book" / "images" / "gap-and-accuracy.svg").read_text(encoding="utf-8")
    assert image == readme_figure(stored(EXPERIMENTS / "gap-and-accuracy.md"))


def test_a_changed_colour_changes_the_figure_and_nothing_else(home: Path):
    shutil.copytree(REPOSITORY / "book", home / "book", ignore=shutil.ignore_patterns("*.ipynb"))
    shutil.copy(REPOSITORY / "_config.yml", home)
    (home / "data").mkdir()
    os.symlink(REPOSITORY / "data" / "records", home / "data" / "records")

    def html() -> list[str]:
        cells = nbformat.read(run_page("faithfulness"), as_version=4).cells
        return [text for cell in cells for text in html_of(cell)]

    before = html()
    page = home / "book" / "experiments" / "faithfulness.md"
    text = page.read_text(encoding="utf-8")
    call = "ax.axvline(100, color=plots.INK,"
    assert call in text
    page.write_text(text.replace(call, "ax.axvline(100, color='#123456',"), encoding="utf-8")
    after = html()
    assert [FIGURE.sub("", text) for text in before] == [FIGURE.sub("", text) for text in after]
    (first, *rest), (changed, *others) = (
        [FIGURE.search(text)[0] for text in part if FIGURE.search(text)] for part in (before, after)
    )
    assert rest == others and "#123456" not in first and "#123456" in changed


def good_page() -> nbformat.NotebookNode:
    figure = new_output("display_data", {"image/png": "AAAA", "text/plain": "<Figure>"})
    alt = {"mystnb": {"image": {"alt": "Bars: objects .25, relations .06"}}}
    stamp = {"tags": ["remove-input", "provenance"]}
    return new_notebook(
        cells=[
            new_markdown_cell("# Title\n\nA ratio 1/2, see https://host/home/page."),
            new_code_cell("plot()", execution_count=1, outputs=[figure], metadata=alt),
            new_code_cell("stamp()", execution_count=2, metadata=stamp),
        ]
    )


def output(kind: str = "text/html", content: str = "") -> nbformat.NotebookNode:
    return new_output("display_data", {kind: content})


def svg(label: str) -> str:
    return f'<svg role="img" aria-label="{label}"><path/></svg>'


@pytest.mark.parametrize(
    ("place", "name", "value", "complaint"),
    [
        (2, "execution_count", 3, "execution counts are"),
        (2, "execution_count", None, "execution counts are"),
        (
            2,
            "outputs",
            [new_output("error", ename="KeyError", evalue="'b'")],
            "ends in KeyError: 'b'",
        ),
        (2, "metadata", {"tags": ["injected-parameters"]}, "injected parameters"),
        (1, "metadata", {}, "image without alt text"),
        (1, "metadata", {"mystnb": {"image": {"alt": "../abc.png"}}}, "image without alt text"),
        (2, "outputs", [output(content=svg(" "))], "image without alt text"),
        (
            2,
            "outputs",
            [output(content=svg("&quot;" * 301))],
            "alt text of 301 characters, at most 3",
        ),
        (
            2,
            "outputs",
            [output(content='<img src="data:image/png;base64,AA==" width="3">')],
            "image without alt text",
        ),
        (0, "source", "![](x.svg)", "image without alt text"),
        (
            2,
            "outputs",
            [new_output("stream", name="stdout", text="see /home/me/x.py:3")],
            "absolute path /home/me",
        ),
        (
            2,
            "outputs",
            [output(content="<pre>C:\\Users\\me\\x</pre>")],
            "absolute path C:\\Users\\me",
        ),
        (1, "outputs", [output("image/png", "A" * 600_000)], "at most 600000"),
    ],
)
def test_each_rule_catches_its_fault(place: int, name: str, value: Any, complaint: str):
    page = good_page()
    assert check_notebook(page) == []
    page.cells[place][name] = nbformat.from_dict(value)
    (problem,) = check_notebook(page)
    assert complaint in problem


def test_a_page_of_too_many_cells_is_refused_and_what_plots_show_passes():
    page = good_page()
    page.cells += [new_code_cell("1", execution_count=3 + k) for k in range(MOST_CODE_CELLS)]
    (problem,) = check_notebook(page)
    assert f"{MOST_CODE_CELLS + 1} code cells, at most {MOST_CODE_CELLS}" in problem
    page = good_page()
    assert [cell.metadata for cell in clean(page).cells] == [cell.metadata for cell in page.cells]
    figure = show(plt.figure(), 'A "cat" < a car', pd.DataFrame({"a": [1]}))
    image = '<img src="data:image/png;base64,/home/AA==" alt="A cat above a car">'
    page.cells[2].outputs += [
        new_output("display_data", figure._repr_mimebundle_()),
        output(content=image),
    ]
    assert check_notebook(page) == []


def test_readme_shows_a_figure_of_the_book_and_none_of_smoke(text: Path, home: Path):
    content = text.read_text(encoding="utf-8").replace(
        "1 + 1", f"from IPython.display import HTML\n\nHTML('{svg('a figure')}')"
    )
    text.with_name("gap-and-accuracy.md").write_text(content, encoding="utf-8")
    for smoke in (True, False):
        run_page("gap-and-accuracy", "smoke" if smoke else None)
        assert (home / "book" / "images" / "gap-and-accuracy.svg").exists() is not smoke


def test_a_page_is_current_while_text_and_stored_tables_are_as_they_were(text: Path, monkeypatch):
    path = text.with_suffix(".ipynb")

    def state() -> str:
        (row,) = states("mini").itertuples()
        return row.state

    def store(key: str, seed: int = 0) -> None:
        results.save("t", "base", seed, pd.DataFrame({"a": [1]}), "mini", key=key, provenance={})

    assert state() == "not run yet"
    assert check_pair(text, path) == ["page.ipynb is missing: `cae run page` makes it"]
    store("one")
    notebook = read_page(text)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for count, cell in enumerate(code, start=1):
        cell.execution_count = count
    nbformat.write(notebook, path)
    assert state() == "has no provenance" and check_pair(text, path) == []
    bundle = provenance("page", PARAMETERS | {"profile": "mini"})._repr_mimebundle_()
    assert "run on" in bundle["text/html"] and bundle[MIME]["seeds"] == 3
    for dirty in (True, False):
        told = Provenance(bundle[MIME] | {"dirty": dirty})._repr_mimebundle_()["text/html"]
        assert ("uncommitted" in told) is dirty
    code[-1].outputs = [new_output("execute_result", bundle, execution_count=3)]
    nbformat.write(notebook, path)
    assert state() == "current"
    for key, expected in (("two", "stale"), ("one", "current")):
        store(key)
        assert state() == expected
    store("one", seed=1)
    results.discard("t", "base", 0, "mini")
    assert state() == "stale", "of another seed"
    results.save("t", "base", 0, pd.DataFrame({"a": [1]}), "photo", key="p", provenance={})
    for profile in ("photo", "mini"):  # each is held against its own profile's tables
        bundle = provenance("page", PARAMETERS | {"profile": profile})._repr_mimebundle_()
        code[-1].outputs = [new_output("execute_result", bundle, execution_count=3)]
        nbformat.write(notebook, path)
        assert state() == "current"
    del code[-1].outputs[0].data[MIME]["profile"]
    nbformat.write(notebook, path)
    assert state() == "stale"
    text.write_text(text.read_text().replace("# A page", "# Another"))
    (problem,) = check_pair(text, path)
    assert state() == "has another text" and "are not those of page.md" in problem
    path.write_text("{")
    assert state() == "cannot be read"
