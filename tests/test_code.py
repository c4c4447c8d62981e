"""Which code a number depends on, and which parts of the package may import which."""

from __future__ import annotations

import ast
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cae_lib import runtime
from cae_lib.runtime import (
    BESIDE,
    PACKAGE,
    SETTLED,
    changed,
    measuring,
    measuring_hash,
    training_hash,
)


@pytest.mark.skipif(shutil.which("git") is None, reason="asks git")
def test_a_change_is_told_from_the_last_commit(tmp_path: Path, monkeypatch) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "one.py").write_text("x = 1\n")
    (package / "two.py").write_text("y = 1\n")
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


CHANGES = [
    (training_hash, ("training/losses.py", "training/run.py", "data/images.py", "models/clip.py",
                     "models/configs/clip-mini.json", "attribution/gradient.py")),
    (measuring_hash, ("evaluation/suites.py", "evaluation/choice.py", "data/benchmarks/aro.py",
                      "data/benchmarks/aro_symmetric.txt", "data/captions.py",
                      "words/alignment.py", "models/clip.py",
                      "models/configs/clip-mini.json", "attribution/faithfulness.py")),
]


@pytest.mark.parametrize(("code", "files"), CHANGES)
def test_a_hash_changes_with_the_code_that_runs_and_with_no_other(code, files, package) -> None:
    before = code(package)
    assert before == code()
    for name in ("cli.py", "runs.py", "config.py", "results.py", "commands/train.py",
                 "pages/run.py", "world/build.py"):
        (package / name).write_text("")
    code.cache_clear()
    assert code(package) == before
    for name in files:
        content = (package / name).read_text()
        if name.endswith(".py"):
            words = f"{content}\n\n# words\n".replace('"""', '"""More ', 1)
            (package / name).write_text(words)
            code.cache_clear()
            assert code(package) == before, f"{name}: words change no number"
        (package / name).write_text(content + ("\nX = 1\n" if name.endswith(".py") else "\n"))
        code.cache_clear()
        assert code(package) != before, name
        (package / name).write_text(content)


def test_what_is_left_out_of_the_hashes_exists() -> None:
    assert all((PACKAGE / name.replace(".", "/")).is_dir()
               or (PACKAGE / f"{name.replace('.', '/')}.py").is_file()
               for name in {*BESIDE, *SETTLED})
    assert len(measuring()) > 50


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of the package, with the file or folder at the top that it belongs to."""
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).parts[0], path


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


LAYERS = (
    {"errors", "config", "runtime"},
    {"words", "models", "attribution"},
    {"data", "results", "statistics", "plots", "world"},
    {"training", "evaluation", "photo"},
    {"runs"},
    {"pages"},
    {"commands"},
    {"cli"},
)
"""The top level of the package, the lowest parts first."""


def test_imports_point_downwards() -> None:
    place = {name: number for number, names in enumerate(LAYERS) for name in names}
    found = {(top.removesuffix(".py"), name.split(".")[1], path)
             for top, path in modules() for name in imported(path)
             if name.startswith("cae_lib.")}
    crossing = {f"{path.relative_to(PACKAGE)} imports {name}" for top, name, path in found
                if place[name] > place[top]}
    assert not crossing, crossing


def test_what_the_loss_rests_on_imports_nothing_above_it() -> None:
    lower = {"attribution", "config.py", "errors.py", "models", "runtime.py", "words"}
    known = {f"cae_lib.{name.removesuffix('.py')}" for name in lower}
    crossing = {
        f"{path.relative_to(PACKAGE)} imports {name}"
        for top, path in modules()
        for name in imported(path)
        if top in lower and name.startswith("cae_lib.")
        if ".".join(name.split(".")[:2]) not in known
    }
    assert not crossing, crossing
