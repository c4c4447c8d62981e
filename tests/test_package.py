"""The package: what the loss needs to be installed, who may import whom, the command line."""

import ast
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import REPOSITORY

import cae_lib
from cae_lab import cli, provenance
from cae_lab.provenance import DECLARED, PACKAGES, has_uncommitted_changes
from cae_lib import config

IMPORTS = """
import builtins, importlib, runpy, sys

step, library, evaluator, known = sys.argv[1], *(words.split() for words in sys.argv[2:])
known = {*known, *sys.stdlib_module_names, "cae_lib"}
plain_import = builtins.__import__

def guarded(name, globals=None, locals=None, fromlist=(), level=0):
    importer = (globals or {}).get("__name__", "")
    if level == 0 and importer.startswith("cae_lib") and name.partition(".")[0] not in known:
        raise ModuleNotFoundError(f"{importer} imports {name}", name=name)
    return plain_import(name, globals, locals, fromlist, level)

def hide(*names):
    for name in [name for name, module in sys.modules.items() if module is None]:
        del sys.modules[name]
    sys.modules.update(dict.fromkeys(names))

# The method without tables and figures.
hide("pandas", "pyarrow", "statsmodels", "matplotlib", "cae_bench", "cae_lab")
builtins.__import__ = guarded
import cae_lib.attribution, cae_lib.models, cae_lib.words.dependency, cae_lib.words.phrases
runpy.run_path(step)["step"]()
builtins.__import__ = plain_import
for name in library:
    importlib.import_module(name)

# What needs more than the loss says what to install.
hide("pandas")
import cae_bench
for name in ("evaluate", "score_weights", "statistics", "attribute"):
    try:
        getattr(cae_lib if name == "attribute" else cae_bench, name)
    except ModuleNotFoundError as error:
        print(error)

# The evaluator without profiles and records.
hide("cae_lab", "matplotlib", "pyarrow")
for name in evaluator:
    importlib.import_module(name)
"""


def _plain(distribution: str) -> str:
    """The name of a distribution, without its version, in the form that compares."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", distribution)[0]).lower()


def _modules(package: str) -> str:
    """All modules of a package but that of `attribute`, which gives tables."""
    paths = sorted((REPOSITORY / package).rglob("*.py"))
    return " ".join(
        ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
        for path in paths
        if path.stem not in ("__init__", "pair")
    )


def test_packages_import_nothing_that_they_do_not_need() -> None:
    """The README's lines run where `cae_lib` can import nothing but its own dependencies; each
    package is imported without those that it does not need. One process, as imports take long."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    core = {_plain(requirement) for requirement in project["dependencies"]}
    known = [
        module
        for module, distributions in metadata.packages_distributions().items()
        if core & {_plain(name) for name in distributions}
    ]
    step = str(REPOSITORY / ".ci" / "wheel_step.py")
    lists = _modules("cae_lib"), _modules("cae_bench"), " ".join(known)
    command = [sys.executable, "-c", IMPORTS, step, *lists]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    messages = run.stdout.splitlines()
    assert len(messages) == 4, run.stderr
    assert all("pandas" in line and f'"{REPOSITORY}[lab]"' in line for line in messages)


def test_every_data_file_of_the_package_is_shipped() -> None:
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    for package in PACKAGES:
        folder, patterns = REPOSITORY / package, settings["setuptools"]["package-data"][package]
        shipped = {path for pattern in patterns for path in folder.glob(pattern)}
        files = {path for path in folder.rglob("*.*") if path.is_file()}
        unlike_code = {path for path in files if path.suffix not in (".py", ".pyc", ".md")}
        assert unlike_code == shipped, package


def _import(name: str) -> None:
    importlib.import_module(name)


def test_a_command_without_its_extra_says_so(capsys) -> None:
    assert cli.run_reporting_errors(lambda: _import("no_such_package"), "cae") == 2
    message = capsys.readouterr().err
    assert "no_such_package" in message and f'pip install -e "{REPOSITORY}[lab]"' in message
    with pytest.raises(ModuleNotFoundError):  # a mistake of ours, no missing extra
        cli.run_reporting_errors(lambda: _import("cae_lib.no_such_module"), "cae")


COMMIT = {"vcs": "git", "commit_id": "b56aa"}


@pytest.mark.parametrize(
    ("record", "source"),
    [
        ({"url": "file:///w/cae_lib.whl"}, "cae-lib[lab] @ file:///w/cae_lib.whl"),
        ({"url": "https://h/r", "vcs_info": COMMIT}, "cae-lib[lab] @ git+https://h/r@b56aa"),
        (None, "PATH[lab]"),
    ],
)
def test_without_a_clone_a_hint_names_where_the_package_came_from(
    record, source, capsys, monkeypatch
) -> None:
    """No index has the package, and whoever registered its name there would be installed."""
    installed = SimpleNamespace(read_text=lambda _: record and json.dumps(record))
    monkeypatch.setattr(config, "repository_root", lambda: None)
    monkeypatch.setattr(config.metadata, "distribution", lambda _: installed)
    cli.run_reporting_errors(lambda: _import("no_such_package"), "cae")
    assert f'pip install "{source}"' in capsys.readouterr().err


def test_the_command_without_click_says_what_to_install() -> None:
    code = "import sys; sys.modules['click'] = None; import cae_lab.cli"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert run.returncode == 1 and run.stderr.count("\n") == 1
    assert "click" in run.stderr and f'pip install -e "{REPOSITORY}[lab]"' in run.stderr


@pytest.mark.parametrize("arguments", ["data list", "--help", "runs", "run nosuch", "nosuch"])
def test_a_command_whose_output_no_one_reads_ends_quietly(arguments: str) -> None:
    """As in `cae data list | head`; 141 is the exit code of a program that SIGPIPE ends."""
    reading, writing = os.pipe()
    os.close(reading)
    outputs = {"stdout": writing, "stderr": subprocess.PIPE}
    if arguments.endswith("nosuch"):  # prints an error
        outputs = {"stdout": subprocess.PIPE, "stderr": writing}
    command = [sys.executable, "-m", "cae_lab.cli", *arguments.split()]
    run = subprocess.run(command, cwd=REPOSITORY, text=True, **outputs)
    os.close(writing)
    assert (run.returncode, run.stdout or "", run.stderr or "") == (141, "", "")


def test_a_broken_pipe_elsewhere_is_not_hidden() -> None:
    def fail() -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        cli.run_reporting_errors(fail, "cae")


def test_names_and_helps_of_commands_need_no_pytorch() -> None:
    code = """
import sys
import cae_lib
from cae_lab.cli import cae, main
for name, command in cae.commands.items():
    for more in getattr(command, "commands", [None]):
        assert main([word for word in (name, more, "--help") if word]) == 0
assert {*cae_lib.__all__} <= {*dir(cae_lib)}
assert not {"torch", "pandas", "matplotlib"} & sys.modules.keys()
"""
    command = [sys.executable, "-c", code]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for name in ("data get", "train", "evaluate", "reproduce", "run", "explore", "live"):
        assert f"Usage: cae {name} " in shown
    assert all(hasattr(cae_lib, name) for name in cae_lib.__all__)
    assert not hasattr(cae_lib, "other")


def test_an_unknown_benchmark_is_refused_without_pytorch() -> None:
    code = """
import sys
sys.modules["torch"] = None  # an import would be an error of another kind
from cae_lab.cli import main
sys.exit(main(["evaluate", "base", "--only", "sugarcrape"]))
"""
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert run.returncode == 2 and "unknown: sugarcrape" in run.stderr


@pytest.mark.skipif(shutil.which("git") is None, reason="asks git")
def test_a_change_is_told_from_the_last_commit(tmp_path: Path, monkeypatch) -> None:
    package, profile = tmp_path / "package", tmp_path / "configs" / "mini.yaml"
    for file in (package / "one.py", package / "two.py", profile):
        file.parent.mkdir(exist_ok=True)
        file.write_text("x = 1\n")
    identity = ["-c", "user.name=t", "-c", "user.email=t@t"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True)
    monkeypatch.setattr(provenance, "PARENT_FOLDER", tmp_path)
    assert has_uncommitted_changes([package]) is False
    (package / "one.py").write_text("x = 2\n")
    assert (
        has_uncommitted_changes([package]) is True
        and has_uncommitted_changes([package / "two.py"]) is False
    )
    assert has_uncommitted_changes() is False, "no package of the project's"
    profile.write_text("x: 2\n")
    assert has_uncommitted_changes() is True
    monkeypatch.setenv("PATH", "")
    assert has_uncommitted_changes([package]) is None


def imported(path: Path) -> set[str]:
    """Dotted names that a module imports, at its top or inside of functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import, which this test cannot follow"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


BELOW = {"cae_lib": set(), "cae_bench": {"cae_lib"}, "cae_lab": {"cae_lib", "cae_bench"}}
"""The packages that each package may import, beside itself."""

ABOVE = {"book", "data", "workflow", "speed", "tests"}
"""Folders that use the packages, and that no package imports."""


@pytest.mark.parametrize("package", BELOW)
def test_imports_point_downwards(package: str) -> None:
    for path in sorted((REPOSITORY / package).rglob("*.py")):
        tops = {name.partition(".")[0] for name in imported(path)}
        assert not tops & ABOVE, f"{path} imports {tops & ABOVE}"
        assert tops & {*BELOW} <= BELOW[package] | {package}, path


def test_recipes_import_nothing_of_the_book() -> None:
    for path in sorted((REPOSITORY / "data" / "recipes").rglob("*.py")):
        assert not {name for name in imported(path) if name.startswith("book")}, path


def test_the_scripts_that_measure_speed_can_be_imported() -> None:
    names = [path.stem for path in (REPOSITORY / "speed").glob("*.py")]
    scripts = {name: importlib.import_module(f"speed.{name}") for name in names}
    assert scripts["step_cost"].main


@pytest.fixture
def fake_environment(tmp_path: Path) -> Path:
    """A folder with the script, whose Python writes 300 lines as pip and ends with `CODE`."""
    for name in ("scripts/environment.sh", "pyproject.toml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(REPOSITORY / name, tmp_path / name)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(
        '#!/bin/sh\ncase "$*" in *"pip install"*) seq 300 | sed "s/^/line /"; exit $CODE;; esac\n'
    )
    python.chmod(0o755)
    return tmp_path


def test_the_environment_is_made_with_few_lines_and_a_log(fake_environment: Path) -> None:
    command = ["sh", fake_environment / "scripts" / "environment.sh"]
    log = fake_environment / ".venv" / "install.log"
    for code in (1, 0):
        run = subprocess.run(
            command, env=os.environ | {"CODE": str(code)}, capture_output=True, text=True
        )
        assert run.returncode == code and ".venv/install.log" in run.stdout
        assert len(run.stdout.splitlines()) < 10
        assert "line 299\nline 300\n" in log.read_text()
        assert ("line 300" in run.stderr and ".venv/install.log" in run.stderr) == bool(code)
    assert "bytecode" in run.stdout
    run = subprocess.run(command, capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, ""), "there is nothing left to do"


def test_the_wheel_is_built_without_warnings_and_has_the_folders_of_data(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    for path in REPOSITORY.iterdir():
        if path.is_file():
            shutil.copy(path, tmp_path)
    for name in DECLARED:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / name, tmp_path / name, ignore=ignored)
    code = "from setuptools import build_meta; build_meta.build_wheel('dist')"
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}  # would be a warning of its own
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env=environment
    )
    assert run.returncode == 0, run.stderr
    assert "warning" not in (run.stdout + run.stderr).lower()
    (wheel,) = (tmp_path / "dist").iterdir()
    names = zipfile.ZipFile(wheel).namelist()
    assert "cae_lab/configs/mini.yaml" in names and "cae_lib/models/configs/clip-mini.json" in names
