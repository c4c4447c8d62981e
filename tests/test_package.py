"""The package: what the loss needs to be installed, who may import whom, which code a number
depends on."""

import ast
import importlib
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY

from cae_lib import cli, runtime
from cae_lib.evaluation.suites import ALL_SUITES
from cae_lib.fingerprint import BESIDE, SETTLED, measuring_hash, training_hash
from cae_lib.runtime import PACKAGE, changed

GUARDED = """
import builtins, runpy, sys

step, known = sys.argv[1], {*sys.argv[2:], *sys.stdlib_module_names, "cae_lib"}
plain_import = builtins.__import__

def guarded(name, globals=None, locals=None, fromlist=(), level=0):
    importer = (globals or {}).get("__name__", "")
    if level == 0 and importer.startswith("cae_lib") and name.partition(".")[0] not in known:
        raise ModuleNotFoundError(f"{importer} imports {name}", name=name)
    return plain_import(name, globals, locals, fromlist, level)

builtins.__import__ = guarded
import cae_lib.attribution, cae_lib.models, cae_lib.words.dependency, cae_lib.words.phrases
runpy.run_path(step)["step"]()
"""


def _plain(distribution: str) -> str:
    """The name of a distribution, without its version, in the form that compares."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", distribution)[0]).lower()


def test_the_loss_needs_the_dependencies_alone() -> None:
    """The README's lines run where `cae_lib` can import nothing but its own dependencies."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    core = {_plain(requirement) for requirement in project["dependencies"]}
    modules = [module for module, distributions in metadata.packages_distributions().items()
               if core & {_plain(name) for name in distributions}]
    command = [sys.executable, "-c", GUARDED, str(REPOSITORY / ".ci" / "wheel_step.py"), *modules]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_every_data_file_of_the_package_is_shipped() -> None:
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    patterns = settings["setuptools"]["package-data"]["cae_lib"]
    shipped = {path for pattern in patterns for path in PACKAGE.glob(pattern)}
    files = {path for path in PACKAGE.rglob("*.*") if path.is_file()}
    assert {path for path in files if path.suffix not in (".py", ".pyc")} == shipped
    assert PACKAGE / "data" / "sources.yml" in shipped


@pytest.mark.parametrize("name", ["no_such_package", "cae_lib.no_such_module"])
def test_a_command_without_its_extra_says_so(name, monkeypatch, capsys) -> None:
    monkeypatch.setattr(cli, "action", lambda _: lambda parsed: importlib.import_module(name))
    if name.startswith("cae_lib"):  # a mistake of ours, no missing extra
        with pytest.raises(ModuleNotFoundError):
            cli.main(["doctor"])
        return
    assert cli.main(["doctor"]) == 2
    message = capsys.readouterr().err
    assert name in message and 'pip install "cae-lib[lab]"' in message


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_explains_itself(name: str, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([*name.split(), "--help"])
    assert ended.value.code == 0 and f"usage: cae {name} " in capsys.readouterr().out


@pytest.mark.skipif(shutil.which("git") is None, reason="asks git")
def test_a_change_is_told_from_the_last_commit(tmp_path: Path, monkeypatch) -> None:
    package = tmp_path / "package"
    package.mkdir()
    for name in ("one.py", "two.py"):
        (package / name).write_text("x = 1\n")
    identity = ["-c", "user.name=t", "-c", "user.email=t@t"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True)
    monkeypatch.setattr(runtime, "PACKAGE", package)
    assert changed([package]) is False
    (package / "one.py").write_text("x = 2\n")
    assert changed([package]) is True and changed([package / "two.py"]) is False
    monkeypatch.setenv("PATH", "")
    assert changed([package]) is None


@pytest.fixture
def package(tmp_path: Path) -> Iterator[Path]:
    """A copy of the package; what hashes remember is forgotten before and after."""
    copy = tmp_path / "cae_lib"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    yield copy
    training_hash.cache_clear()
    measuring_hash.cache_clear()


def code(suite: str, package: Path = PACKAGE, families: tuple[str, ...] = ("aro", "crepe")) -> str:
    """The hash of what measures a suite."""
    measuring_hash.cache_clear()
    return measuring_hash(ALL_SUITES[suite].modules, families, package)


def trained(package: Path = PACKAGE) -> str:
    training_hash.cache_clear()
    return training_hash(package)


CHANGES = [
    (trained, ("training/losses.py", "training/trainer.py", "data/images.py", "models/clip.py",
               "models/configs/clip-mini.json", "attribution/gradient.py")),
    (partial(code, "benchmarks"), (
        "evaluation/choice.py", "data/benchmarks/read.py", "data/benchmarks/crepe.py",
        "data/benchmarks/aro_symmetric.txt", "models/clip.py", "models/configs/clip-mini.json")),
    (partial(code, "attribution"), (
        "evaluation/attribution.py", "data/captions.py", "words/alignment.py", "models/packed.py",
        "attribution/measures.py", "attribution/gradient.py")),
    (partial(code, "heatmaps"), ("evaluation/heatmaps.py", "attribution/heatmap.py")),
    (partial(code, "data"), ("evaluation/items.py", "data/benchmarks/aro.py")),
]


@pytest.mark.parametrize(("hashed", "files"), CHANGES)
def test_a_hash_changes_with_the_code_that_runs_and_with_no_other(hashed, files, package) -> None:
    before = hashed(package)
    assert before == hashed()
    for name in ("cli.py", "runs.py", "measuring.py", "config.py", "results.py",
                 "commands/train.py", "pages/run.py", "world/build.py"):
        (package / name).write_text("")
    assert hashed(package) == before
    for name in files:
        content = (package / name).read_text()
        if name.endswith(".py"):
            (package / name).write_text(f"{content}\n\n# words\n".replace('"""', '"""More ', 1))
            assert hashed(package) == before, f"{name}: words change no number"
        (package / name).write_text(content + ("\nX = 1\n" if name.endswith(".py") else "\n"))
        assert hashed(package) != before, name
        (package / name).write_text(content)


def stale(package: Path, file: str, old: str, new: str, **known: Any) -> list[str]:
    """The suites that a change of a file makes stale."""
    before = {suite: code(suite, package, **known) for suite in ALL_SUITES}
    path = package / file
    content = path.read_text()
    assert content.count(old) == 1
    path.write_text(content.replace(old, new))
    return [suite for suite in ALL_SUITES if code(suite, package, **known) != before[suite]]


def test_a_constant_of_heat_maps_makes_heat_maps_stale_and_nothing_else(package) -> None:
    trained_before = trained(package)
    path = package / "evaluation" / "heatmaps.py"
    path.write_text(path.read_text() + "\nEDGE = 1\n")
    assert stale(package, "evaluation/heatmaps.py", "\nEDGE = 1\n", "\nEDGE = 2\n") == ["heatmaps"]
    assert trained(package) == trained_before


def test_a_new_benchmark_makes_nothing_stale_and_a_changed_one_what_reads_it(package) -> None:
    table, entry = "data/benchmarks/table.py", 'LAYOUTS: dict[str, Layout] = {\n'
    new = entry + '    "ours": Layout("ours", {"all": 3}, "here", "ours.json", columns="a b"),\n'
    assert stale(package, table, entry, new) == []
    other = new.replace('"here"', '"there"')
    assert stale(package, table, new, other, families=("aro", "ours")) == [*ALL_SUITES]
    assert stale(package, table, '"visual_genome_{file}.json", paper=True',
                 '"visual_{file}.json", paper=True', families=()) == []


def test_what_is_left_out_of_the_hashes_exists() -> None:
    assert all((PACKAGE / name.replace(".", "/")).is_dir()
               or (PACKAGE / f"{name.replace('.', '/')}.py").is_file()
               for name in {*BESIDE, *SETTLED})


def imported(path: Path) -> set[str]:
    """Dotted names that a module imports, at its top or inside of functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import, which this test cannot follow"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


LAYERS = ({"errors", "methods", "config", "runtime", "profiles", "fingerprint", "variants", "grid"},
          {"words", "models", "attribution"},
          {"data", "results", "statistics", "claims", "shown", "plots", "world"},
          {"training", "evaluation", "photo"}, {"runs", "measuring"}, {"pages", "commands"},
          {"cli", "__init__"})
"""The top level of the package, the lowest parts first."""


def test_imports_point_downwards() -> None:
    place = {name: number for number, names in enumerate(LAYERS) for name in names}
    for path in sorted(PACKAGE.rglob("*.py")):
        top = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for name in imported(path):
            if name.startswith("cae_lib."):
                assert place[name.split(".")[1]] <= place[top], f"{path} imports {name}"


def test_the_scripts_that_measure_speed_can_be_imported() -> None:
    names = [f"speed.{path.stem}" for path in (REPOSITORY / "speed").glob("*.py")]
    assert "speed.step_cost" in names
    subprocess.run([sys.executable, "-c", f"import {', '.join(names)}"], check=True, cwd=REPOSITORY)


def test_the_public_names_are_imported_when_asked_for() -> None:
    steps = ("import sys, cae_lib as cae; assert not {'torch', 'pandas'} & sys.modules.keys();"
             "gone = [n for n in cae.__all__ if not hasattr(cae, n)]; assert not gone, gone;"
             "assert {*cae.__all__} <= {*dir(cae)} and not hasattr(cae, 'other')")
    subprocess.run([sys.executable, "-c", steps], check=True)
