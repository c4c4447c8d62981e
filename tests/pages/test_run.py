"""The page runner: text to executed, published notebook."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from cae_lib.cli import main
from cae_lib.commands.pages import parse_assignments
from cae_lib.errors import CaeError, ConfigError, DataError
from cae_lib.pages.check import check_pair
from cae_lib.pages.run import run_page
from cae_lib.pages.source import page_parameters, parse_parameters, read_page


def text_of(home: Path) -> Path:
    return home / "book" / "experiments" / "page.md"


def change(home: Path, old: str, new: str) -> None:
    text = text_of(home).read_text(encoding="utf-8")
    assert old in text
    text_of(home).write_text(text.replace(old, new), encoding="utf-8")


def outputs(path: Path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    return "".join(o.get("text", "") for c in cells if c.cell_type == "code" for o in c.outputs)


def test_a_page_is_published_from_its_defaults(book_home: Path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.setenv("JUPYTER_PATH", "/nowhere")
    run_page("page")
    path = book_home / "book" / "experiments" / "page.ipynb"
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert check_pair(text_of(book_home), path) == []
    assert [cell.id for cell in notebook.cells] == ["page-00", "page-01", "page-02", "page-03"]
    assert outputs(path) == "mini: 3 seeds at 0.001, fast: False\nTrue\n", "no stderr, our kernel"
    stored = path.read_text(encoding="utf-8")
    assert "papermill" not in stored and "execution" not in stored.replace("execution_count", "")
    assert list((book_home / "runs").iterdir()) == []


def test_a_variant_stays_out_of_the_book(book_home: Path):
    path = run_page("page", {"seeds": "1", "rate": "2", "fast": "true"})
    assert path.parent == book_home / "runs" and path.name.startswith("page-")
    assert outputs(path).startswith("mini: 1 seeds at 2.0, fast: True")
    assert not (book_home / "book" / "experiments" / "page.ipynb").exists()
    other = run_page("page", {"seeds": "2"})
    assert other != path and path.exists()


def test_giving_the_defaults_is_no_variant(book_home: Path):
    path = run_page("page", {"seeds": "3"}, "mini")
    assert path == book_home / "book" / "experiments" / "page.ipynb"


def test_the_smoke_profile_is_published_into_a_copy(book_home: Path):
    path = run_page("page", profile_name="smoke")
    assert path == book_home / "build" / "smoke-book" / "experiments" / "page.ipynb"
    assert outputs(path).startswith("smoke: 3 seeds")
    assert (book_home / "build" / "smoke-book" / "_toc.yml").exists()
    assert not (book_home / "book" / "experiments" / "page.ipynb").exists()


def test_a_failing_page_shows_the_cell_and_keeps_the_old_notebook(book_home: Path):
    stored = book_home / "book" / "experiments" / "page.ipynb"
    stored.write_text("as it was")
    change(book_home, "1 + 1", "{'a': 1}['b']")
    with pytest.raises(CaeError) as caught:
        run_page("page")
    message = str(caught.value)
    assert "page page failed in its code cell 3" in message
    assert "{'a': 1}['b']" in message and "KeyError: 'b'" in message and "\x1b" not in message
    assert stored.read_text() == "as it was"
    assert [path.suffixes for path in (book_home / "runs").iterdir()] == [[".partial", ".ipynb"]]


def test_a_page_that_breaks_a_rule_is_not_published(book_home: Path):
    change(book_home, "1 + 1", "print('/home/somebody/x')")
    with pytest.raises(CaeError, match="not published:\n.*absolute path /home/somebody"):
        run_page("page")
    assert not (book_home / "book" / "experiments" / "page.ipynb").exists()


@pytest.mark.parametrize(("given", "message"), [
    ({"seed": "1"}, "no parameter 'seed'; it has:\n.*\n  seeds: int = 3  # runs to average"),
    ({"seeds": "two"}, "seeds='two' is not of type int"),
    ({"seeds": "1.5"}, "seeds='1.5' is not of type int"),
    ({"rate": "fast"}, "rate='fast' is not of type float"),
    ({"fast": "1"}, "fast='1' is not of type bool"),
])
def test_wrong_parameters_list_the_known_ones(book_home: Path, given: dict, message: str):
    with pytest.raises(ConfigError, match=message) as caught:
        run_page("page", given)
    assert "rate: float = 1e-3  # learning rate" in str(caught.value)


def test_values_are_typed_by_their_parameter(book_home: Path):
    known = page_parameters(read_page(text_of(book_home)), "page")
    given = {"profile": "007", "rate": "1e-4", "fast": "True", "seeds": "3"}
    values = parse_parameters(known, given, "page")
    assert values == {"profile": "007", "rate": 1e-4, "fast": True}, "3 is the default"
    assert parse_assignments(["a=b=c", " x = 1"]) == {"a": "b=c", "x": "1"}
    with pytest.raises(ConfigError, match="-p seeds: expected key=value"):
        parse_assignments(["seeds"])


@pytest.mark.parametrize(("old", "new", "message"), [
    ("seeds: int = 3", "seeds = 3", "parameters cell, line 2: expected"),
    ("seeds: int = 3", "seeds: int = 2 + len('x')", "parameters cell, line 2: expected"),
    ("seeds: int = 3", "seeds: int = '3'", "parameters cell, line 2: expected"),
    ("seeds: int = 3", "seeds: list = []", "parameters cell, line 2: expected"),
    (":tags: [parameters]\n", "", "0 cells tagged 'parameters'"),
])
def test_a_malformed_parameters_cell_is_an_error(book_home: Path, old: str, new: str, message: str):
    change(book_home, old, new)
    with pytest.raises(DataError, match=message):
        run_page("page")


def test_the_command_ends_in_one_message(book_home: Path, capsys):
    assert main(["run", "nowhere"]) == 2
    assert capsys.readouterr().err == "cae: no page 'nowhere'; the pages are: page\n"
    assert main(["run", "page", "--profile", "huge"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("cae: ") and "huge" in message and "smoke" in message
    assert "Traceback" not in message


@pytest.mark.parametrize(("error", "code", "message"), [
    (KeyboardInterrupt(), 130, "the same command goes on"),
    (PermissionError(13, "Permission denied", "/some/folder"), 2,
     "no permission to use /some/folder"),
])
def test_what_stops_a_command_is_explained(
    book_home: Path, monkeypatch, capsys, error: BaseException, code: int, message: str
):
    def stop(*_: object) -> None:
        raise error

    monkeypatch.setattr("cae_lib.commands.pages.run_page", stop)
    assert main(["run", "page"]) == code
    assert message in capsys.readouterr().err


def test_the_doctor_names_what_is_missing(book_home: Path, capsys):
    assert main(["doctor"]) == 0
    report = capsys.readouterr().out
    assert "torch 2" in report and "0 of 1 executed" in report
    assert "not built (`cae world build --profile mini`)" in report
