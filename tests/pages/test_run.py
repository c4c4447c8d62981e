"""The page runner: text to executed, published notebook; and the commands around it."""

import hashlib
from pathlib import Path
from unittest.mock import Mock

import nbformat
import pytest
from conftest import REPOSITORY
from rules import check_pair

from cae_lib.cli import main
from cae_lib.errors import CaeError, ConfigError, DataError, Terminated
from cae_lib.pages.build import own_book
from cae_lib.pages.run import _execute, run_page
from cae_lib.pages.source import page_parameters, parse_parameters, read_page
from cae_lib.profiles import experiment
from cae_lib.runs import weights_path


def change(text: Path, old: str, new: str) -> None:
    content = text.read_text(encoding="utf-8")
    assert old in content
    text.write_text(content.replace(old, new), encoding="utf-8")


def outputs(path: Path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    return "".join(o.get("text", "") for c in cells if c.cell_type == "code" for o in c.outputs)


def test_a_page_is_published_from_its_defaults(text: Path, home: Path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.setenv("JUPYTER_PATH", "/nowhere")
    path = run_page("page", {"seeds": "3"}, "mini")
    assert path == text.with_suffix(".ipynb") and list((home / "runs").iterdir()) == []
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert check_pair(text, path) == []
    assert [cell.id for cell in notebook.cells] == ["page-00", "page-01", "page-02", "page-03"]
    assert outputs(path) == "mini: 3 seeds at 0.001, fast: False\nTrue\n", "no stderr, our kernel"
    stored = path.read_text(encoding="utf-8")
    assert "papermill" not in stored and "execution" not in stored.replace("execution_count", "")


def test_variants_and_the_smoke_profile_stay_out_of_the_book(text: Path, home: Path):
    path = run_page("page", {"seeds": "1", "rate": "2", "fast": "true"})
    digest = hashlib.sha256(b'{"fast": true, "rate": 2.0, "seeds": 1}').hexdigest()[:8]
    assert path == home / "runs" / f"page-{digest}.ipynb", "another one for other values"
    assert outputs(path).startswith("mini: 1 seeds at 2.0, fast: True")
    smoke = run_page("page", profile_name="smoke")
    assert smoke == home / "build" / "smoke-book" / "experiments" / "page.ipynb"
    assert outputs(smoke).startswith("smoke: 3 seeds") and path.exists()
    assert (home / "build" / "smoke-book" / "_toc.yml").exists()
    assert not text.with_suffix(".ipynb").exists()
    for name in ("page", "other"):  # which no smoke run has stored yet
        text.with_name(f"{name}.ipynb").write_text("of mini")
    own_book("smoke")
    assert outputs(smoke).startswith("smoke") and smoke.with_name("other.ipynb").exists()


def test_another_home_runs_the_repositorys_pages_and_changes_none(tmp_path: Path, monkeypatch):
    book = REPOSITORY / "book"
    before = {path: path.stat().st_mtime_ns for path in book.rglob("*") if path.is_file()}
    monkeypatch.setenv("CAE_HOME", str(tmp_path / "elsewhere"))
    path = run_page("status")
    assert path.parent == tmp_path / "elsewhere" / "runs"
    assert {path: path.stat().st_mtime_ns for path in book.rglob("*") if path.is_file()} == before
    assert weights_path(experiment("clip-ft", "mini")) == REPOSITORY / "data/mini/base.safetensors"
    assert main(["doctor"]) == 0, "of a folder that is not there yet"


def test_a_failing_page_shows_the_cell_and_keeps_the_old_notebook(text: Path, home: Path):
    stored = text.with_suffix(".ipynb")
    stored.write_text("as it was")
    change(text, "1 + 1", "def f(n):\n    return f(n - 1) if n else {'a': 1}['b']\n\nf(5)")
    with pytest.raises(CaeError, match="page page failed in its code cell 3") as caught:
        run_page("page")
    message = str(caught.value)
    assert "{'a': 1}['b']" in message and "KeyError: 'b'" in message and "\x1b" not in message
    assert len(message.splitlines()) < 20, "the end of a long traceback alone"
    assert stored.read_text() == "as it was"
    assert [path.suffixes for path in (home / "runs").iterdir()] == [[".partial", ".ipynb"]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seed": "1"}, "no parameter 'seed'; it has:\n.*\n  seeds: int = 3  # runs to average"),
        ({"seeds": "two"}, "seeds='two' is not of type int"),
        ({"rate": "fast"}, "rate='fast' is not of type float"),
        ({"fast": "1"}, "fast='1' is not of type bool"),
    ],
)
def test_wrong_parameters_list_the_known_ones(text: Path, given: dict, message: str):
    with pytest.raises(ConfigError, match=message) as caught:
        run_page("page", given)
    assert "rate: float = 1e-3  # learning rate" in str(caught.value)
    known = page_parameters(read_page(text), "page")
    right = {"profile": "007", "rate": "1e-4", "fast": "True", "seeds": "3"}
    values = parse_parameters(known, right, "page")
    assert values == {"profile": "007", "rate": 1e-4, "fast": True}, "3 is the default"
    change(text, "= 1e-3", "= 1")
    assert type(page_parameters(read_page(text), "page")["rate"].default) is float


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seeds": 1}, None),
        ({"profile": "photo"}, "ConfigError.*smoke, mini|smoke, mini"),
        ({"seed": 1}, "seed.*profile, seeds, rate, fast"),
    ],
)
def test_a_page_refuses_what_papermill_injects_and_it_does_not_have(
    text: Path, tmp_path: Path, given: dict, message: str | None
):
    change(
        text,
        "import sys\n",
        "import sys\n\nfrom cae_lib.pages.source import check_parameters\n"
        "\ncheck_parameters(globals(), profiles=('smoke', 'mini'))\n",
    )
    output = tmp_path / "output.ipynb"
    if message is None:
        _execute(read_page(text), output, given, "page")
        assert outputs(output).startswith("mini: 1 seeds")
        return
    with pytest.raises(CaeError, match=message):
        _execute(read_page(text), output, given, "page")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds: int = 3", "seeds = 3", "parameters cell, line 2: expected"),
        ("seeds: int = 3", "seeds: int = 2 + len('x')", "parameters cell, line 2: expected"),
        ("seeds: int = 3", "seeds: int = '3'", "parameters cell, line 2: expected"),
        ("seeds: int = 3", "seeds: list = []", "parameters cell, line 2: expected"),
        (":tags: [parameters]\n", "", "0 cells tagged 'parameters'"),
    ],
)
def test_a_malformed_parameters_cell_is_an_error(text: Path, old: str, new: str, message: str):
    change(text, old, new)
    with pytest.raises(DataError, match=message):
        run_page("page")


@pytest.mark.parametrize(
    ("words", "error", "code", "message"),
    [
        (["nowhere"], None, 2, "cae: no page 'nowhere'; the pages are: page\n"),
        (
            ["page", "--profile", "huge"],
            None,
            2,
            "cae: unknown profile 'huge': expected one of mini",
        ),
        (["page"], KeyboardInterrupt(), 130, "\ncae: interrupted; the same command "),
        (["page"], Terminated(), 143, "\ncae: interrupted; the same command "),
        (["page"], PermissionError(13, "no", "/folder"), 2, "cae: cannot use /folder (no): "),
        (["page"], OSError(30, "read-only", "/folder"), 2, "cae: cannot use /folder (read-only): "),
        (["page"], OSError(28, "full"), 2, "cae: cannot use the disk (full): "),
    ],
)
def test_a_command_ends_in_one_message(text, monkeypatch, capsys, words, error, code, message):
    if error:
        monkeypatch.setattr("cae_lib.commands.book.run_page", Mock(side_effect=error))
    assert main(["run", *words]) == code
    told = capsys.readouterr().err
    assert told.startswith(message) and (code == 2 or "cae run page" in told)


def test_without_a_name_the_pages_are_listed(text: Path, capsys):
    text.with_name("another.md").write_text(text.read_text())
    assert main(["run"]) == 0
    assert capsys.readouterr().out.split() == ["another", "page"]
    for page in text.parent.glob("*.md"):
        page.unlink()
    assert main(["run"]) == 2
    assert str(text.parent) in capsys.readouterr().err


def test_the_doctor_names_what_is_missing(text: Path, capsys):
    assert main(["doctor"]) == 0
    report = capsys.readouterr().out
    assert "torch 2" in report and "0 of 1 executed" in report
    assert "not built (`cae world build --profile mini`)" in report
