"""The hashes of the code: git's own, and a split between measuring and presenting that holds."""

from __future__ import annotations

import ast
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cae_lib import provenance
from cae_lib.fingerprint import (
    PACKAGE,
    PRESENTING,
    committed_hash,
    measuring_hash,
    training_hash,
    tree_hash,
)

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="compares with git")


class Repository:
    """A git repository with a package that has every kind of file."""

    def __init__(self, root: Path) -> None:
        self.root, self.package = root, root / "package"
        self.package.mkdir()
        (self.package / "empty").mkdir()
        for name, text in {
            "a/one.py": "x = 1\n",
            "a/report/kept.py": "a name counts at the top only\n",
            "a/__pycache__/one.pyc": "cache",
            "a.txt": "sorted before the folder a, as git does\n",
            "report/table.py": "caption = 'old'\n",
            "cli.py": "y = 1\n",
            "tool.sh": "#!/bin/sh\n",
        }.items():
            (self.package / name).parent.mkdir(parents=True, exist_ok=True)
            (self.package / name).write_text(text)
        (self.package / "tool.sh").chmod(0o755)
        (root / ".gitignore").write_text("__pycache__\n")
        self.git("init", "-q")
        self.commit()

    def git(self, *arguments: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "core.fileMode=true"]
        command = ["git", *identity, *arguments]
        return subprocess.run(
            command, cwd=self.root, check=True, capture_output=True, text=True
        ).stdout.strip()

    def commit(self) -> None:
        self.git("add", ".")
        self.git("commit", "-qm", "x")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


@needs_git
def test_the_tree_hash_is_gits(repository: Repository) -> None:
    package = repository.package
    assert tree_hash(package) == repository.git("rev-parse", "HEAD:package")
    assert committed_hash(package) == tree_hash(package)
    (package / "a" / "one.py").write_text("x = 2\n")
    (package / ".#lock").symlink_to("nothing")
    assert tree_hash(package) != committed_hash(package)
    assert committed_hash(package) == repository.git("rev-parse", "HEAD:package")


@needs_git
def test_parts_left_out_do_not_count(repository: Repository) -> None:
    package, without = repository.package, {"report", "cli.py", "never was"}
    part = tree_hash(package, without)
    assert part == committed_hash(package, without) != tree_hash(package)
    (package / "report" / "table.py").write_text("caption = 'new'\n")
    assert tree_hash(package, without) == part
    assert tree_hash(package) != committed_hash(package)
    (package / "a" / "report" / "kept.py").write_text("changed\n")
    assert tree_hash(package, without) != part == committed_hash(package, without)
    repository.commit()
    repository.git("rm", "-rq", "--cached", "package/report", "package/cli.py")
    assert tree_hash(package, without) == repository.git("write-tree", "--prefix=package/")


def test_without_git_nothing_is_committed(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "package").mkdir()
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert committed_hash(tmp_path / "package") is None
    monkeypatch.setenv("PATH", "")
    assert committed_hash() is None


def test_records_and_pages_state_the_code_that_they_depend_on(home: Path, monkeypatch) -> None:
    """A change of what only presents makes pages dirty, and leaves records clean."""

    def committed(without=()) -> str:
        return "measures" if without == PRESENTING else "another"

    monkeypatch.setattr(provenance, "committed_hash", committed)
    monkeypatch.setattr(provenance, "MEASURING", "measures")
    monkeypatch.setattr(provenance, "TREE", "all")
    record, page = provenance.stamp("mini", 3), provenance.page_stamp("mini", seeds=2)
    assert record["code"] == "measures" and record["dirty"] is False
    assert page["tree"] == "all" and page["dirty"] is True and page["seeds"] == 2
    assert "tree" not in record and "code" not in page
    monkeypatch.setattr(provenance, "committed_hash", lambda without=(): None)
    assert provenance.stamp("mini", 3)["dirty"] is None


def test_the_package_is_measured_in_part(monkeypatch) -> None:
    assert provenance.MEASURING != provenance.TREE
    assert measuring_hash() == tree_hash(without=PRESENTING) != tree_hash(without=["report"])


def test_the_code_of_training_is_what_a_step_runs(tmp_path: Path) -> None:
    package = tmp_path / "cae_lib"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("config.py", "cli.py", "data/training_set.py"):
        (package / name).write_text("")
    for name in ("report", "pages", "evaluation", "words"):
        shutil.rmtree(package / name, ignore_errors=True)
    before = training_hash()
    assert training_hash(package) == before
    for name in ("training/losses.py", "training/optim.py", "data/crops.py", "models/clip.py",
                 "models/configs/clip-mini.json", "attribution/gradient.py"):  # fmt: skip
        content = (package / name).read_text()
        (package / name).write_text(content + "\n")
        training_hash.cache_clear()
        assert training_hash(package) != before, name
        (package / name).write_text(content)


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


def test_what_measures_imports_nothing_that_presents() -> None:
    presenting = {f"cae_lib.{name.removesuffix('.py')}" for name in PRESENTING}
    measuring = [path for top, path in modules() if top not in PRESENTING]
    assert len(measuring) > 100
    crossing = {
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in measuring
        for name in imported(path)
        if ".".join(name.split(".")[:2]) in presenting
    }
    assert not crossing, crossing


def test_what_the_loss_rests_on_imports_nothing_above_it() -> None:
    lower = {"attribution", "errors.py", "files.py", "models", "words"}
    known = {f"cae_lib.{name.removesuffix('.py')}" for name in lower}
    crossing = {
        f"{path.relative_to(PACKAGE)} imports {name}"
        for top, path in modules()
        for name in imported(path)
        if top in lower and name.startswith("cae_lib.")
        if ".".join(name.split(".")[:2]) not in known
    }
    assert not crossing, crossing


def test_what_presents_exists_and_stores_no_record() -> None:
    assert {name for name in PRESENTING if not (PACKAGE / name).exists()} == set()
    storing = {"cae_lib.records.load_or_run", "cae_lib.records.save_record", "cae_lib.records"}
    found = [path for top, path in modules() if top in PRESENTING and imported(path) & storing]
    assert not found, found
