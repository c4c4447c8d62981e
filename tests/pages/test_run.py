"""A page from its text to the published notebook; and a page by papermill alone."""

import re
from pathlib import Path
from unittest.mock import Mock

import jupytext
import nbformat
import papermill
import pytest
from conftest import REPOSITORY
from rules import check_pair

from book.extension.__main__ import main
from book.extension.run import run_page
from book.extension.source import read_page
from cae_lab import cli
from cae_lib.errors import CaeError, ConfigError, Terminated


def change(text: Path, old: str, new: str) -> None:
    content = text.read_text(encoding="utf-8")
    assert old in content
    text.write_text(content.replace(old, new), encoding="utf-8")


def printed(path: Path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    return "".join(o.get("text", "") for c in cells if c.cell_type == "code" for o in c.outputs)


def test_a_page_is_published_from_its_defaults(text: Path, home: Path):
    path = run_page("page")
    assert path == text.with_suffix(".ipynb") and list((home / "runs").iterdir()) == []
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert check_pair(text, path) == []
    assert [cell.id for cell in notebook.cells] == ["page-00", "page-01", "page-02", "page-03"]
    assert printed(path) == "mini: 3 seeds at 0.001, fast: False\nTrue\n", "no stderr, our kernel"
    stored = path.read_text(encoding="utf-8")
    assert "papermill" not in stored and "execution" not in stored.replace("execution_count", "")
    run_page("page")
    assert path.read_text(encoding="utf-8") == stored


def test_a_copy_of_the_book_gets_the_pages_of_its_profile(text: Path, home: Path):
    text.with_name("other.ipynb").write_text("of mini")
    path = run_page("page", "smoke", 1)
    assert path == home / "build" / "smoke-book" / "experiments" / "page.ipynb"
    assert printed(path).startswith("smoke: 1 seeds")
    assert path.with_name("other.ipynb").read_text() == "of mini", "not run for smoke yet"
    assert not text.with_suffix(".ipynb").exists()
    text.with_suffix(".ipynb").write_text("of mini")
    change(text, "seeds: int", "numbers: int")
    change(text, "{seeds} seeds", "{numbers}")
    assert printed(run_page("page", "smoke", 1)).startswith("smoke: 3 at"), "it has no seeds"
    assert text.with_suffix(".ipynb").read_text() == "of mini"
    with pytest.raises(ConfigError, match="photo"):
        run_page("page", "photo")


def test_another_home_runs_the_repositorys_pages_and_changes_none(tmp_path: Path, monkeypatch):
    book = REPOSITORY / "book" / "experiments"
    before = {path: path.stat().st_mtime_ns for path in book.iterdir()}
    monkeypatch.setenv("CAE_HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setattr(
        papermill, "execute_notebook", lambda page, *_, **__: nbformat.read(page, 4)
    )
    assert run_page("reproducibility").parent == tmp_path / "elsewhere" / "runs"
    assert {path: path.stat().st_mtime_ns for path in book.iterdir()} == before


def test_a_failing_page_names_the_cell_and_keeps_the_stored_notebook(text: Path, home: Path):
    text.with_suffix(".ipynb").write_text("as it was")
    change(text, "1 + 1", "{'a': 1}['b']")
    with pytest.raises(CaeError) as caught:
        run_page("page")
    (draft,) = (home / "runs").iterdir()
    for part in ("page page, code cell 3", "KeyError: 'b'", str(draft)):
        assert part in str(caught.value)
    assert text.with_suffix(".ipynb").read_text() == "as it was"


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"seeds": 1}, None),
        ({"seed": 1}, "seed.*profile, seeds, rate, fast"),
    ],
)
def test_papermill_alone_runs_a_page_and_is_refused_what_the_page_does_not_have(
    text: Path, tmp_path: Path, parameters: dict, message: str | None
):
    change(
        text,
        "import sys\n",
        "import sys\n\nfrom book.extension.parameters import check_parameters\n"
        "\ncheck_parameters(globals(), profiles=('smoke', 'mini'))\n\nimport tqdm.auto\n",
    )
    source, output = text.with_suffix(".ipynb"), tmp_path / "output.ipynb"
    jupytext.write(read_page(text), source)
    stored = source.read_bytes()
    if message is None:
        papermill.execute_notebook(source, output, parameters, progress_bar=False)
        assert "mini: 1 seeds" in printed(output)
        assert "IProgress" not in printed(output), "libraries ask for a widget that is not here"
    else:
        with pytest.raises(papermill.PapermillExecutionError, match=message):
            papermill.execute_notebook(source, output, parameters, progress_bar=False)
    assert source.read_bytes() == stored


@pytest.mark.parametrize(
    ("words", "error", "code", "message"),
    [
        (["nowhere"], None, 2, "'nowhere'.*page"),
        (["page"], KeyboardInterrupt(), 130, "cae run page"),
        (["page"], Terminated(), 143, "cae run page"),
        (["page"], OSError(28, "full"), 2, "full"),
    ],
)
def test_a_command_ends_in_one_message(text, monkeypatch, capsys, words, error, code, message):
    if error:
        monkeypatch.setattr("book.extension.run.run_page", Mock(side_effect=error))
    assert main(["run", *words]) == code
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert re.search(message, line)


def test_cae_calls_the_commands_of_a_clone_alone(home: Path, monkeypatch, capfd):
    assert cli.main(["run", "nowhere"]) == 2
    assert "'nowhere'" in capfd.readouterr().err
    monkeypatch.setattr(cli, "repository_root", lambda: None)
    assert cli.main(["run", "nowhere"]) == 2
    assert "clone" in capfd.readouterr().err
