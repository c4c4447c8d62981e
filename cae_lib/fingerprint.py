"""Which code this is: git's hash of the package, whole or without what cannot change a number."""

from __future__ import annotations

import ast
import hashlib
import subprocess
from collections.abc import Collection, Iterable
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent

PRESENTING = frozenset(
    {
        "report", "pages",
        "cli.py", "cli_data.py", "actions.py", "run.py", "reproduce.py",
        "doctor.py", "export.py", "attribute.py",
    }
)  # fmt: skip
"""Parts of the package that show results or start commands, and measure nothing themselves.

No other part imports one of them. `jobs.py` is none of them: it sets the number of threads, which
decides in which order sums are taken.
"""

SETTLED = ("config", "data.captions", "words", "errors", "runtime", "fingerprint")
"""Modules that decide no number of a run, or one that its settings and data hold."""

Entry = tuple[str, str, str]
"""Mode, name and hash of what a folder holds, in git's terms."""


def tree_hash(folder: Path = PACKAGE, without: Collection[str] = ()) -> str:
    """Hash the files of a folder as git does, so that it needs no git and no commit.

    On a clean checkout the result equals ``git rev-parse HEAD:cae_lib``. Uncommitted work has
    the hash that it will have once committed: a result does not turn stale by the commit itself.
    Caches of Python are left out.

    Args:
        folder: what to hash.
        without: names in the folder itself that are left out.
    """
    entries: list[Entry] = []
    for path in folder.iterdir():
        if path.name == "__pycache__" or path.suffix == ".pyc" or path.name in without:
            continue
        if path.is_dir():
            digest = tree_hash(path)
            if digest != _object_hash("tree", b""):  # git knows no empty folders
                entries.append(("40000", path.name, digest))
            continue
        try:
            mode = "100755" if path.stat().st_mode & 0o100 else "100644"
            entries.append((mode, path.name, _object_hash("blob", path.read_bytes())))
        except FileNotFoundError:
            continue  # an editor's temporary file that is gone by now
    return _folder_hash(entries)


def measuring_hash() -> str:
    """Hash the part of the package that can change a number: all but `PRESENTING`."""
    return tree_hash(without=PRESENTING)


@cache
def training_hash(package: Path = PACKAGE) -> str:
    """Hash the code of a run's steps: all that `training.loop` imports, but for `SETTLED`."""
    known = {"configs": tree_hash(package / "models" / "configs")}
    names = ["cae_lib.training.loop"]
    while names:
        name = names.pop().removeprefix("cae_lib.")
        path = package.joinpath(*name.split("."))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if name in known or name.startswith(SETTLED) or not path.is_file():
            continue
        content = path.read_bytes()
        known[name] = _object_hash("blob", content)
        for node in ast.walk(ast.parse(content)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("cae_lib"):
                names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return _object_hash("tree", repr(sorted(known.items())).encode())


def committed_hash(folder: Path = PACKAGE, without: Collection[str] = ()) -> str | None:
    """Return what `tree_hash` was at the last commit; None without git or before a commit.

    Args:
        folder: a folder of a git work tree.
        without: names in the folder itself that are left out.
    """
    try:
        result = subprocess.run(
            ["git", "ls-tree", "-z", f"HEAD:./{folder.name}"],
            cwd=folder.parent,
            capture_output=True,
            text=True,
            timeout=20,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if result.returncode != 0:
        return None
    entries = []
    for line in result.stdout.split("\0")[:-1]:
        facts, name = line.split("\t", 1)
        mode, _, digest = facts.split()
        if name not in without:
            entries.append((mode.lstrip("0"), name, digest))
    return _folder_hash(entries)


def _folder_hash(entries: Iterable[Entry]) -> str:
    """Hash of git's object for a folder; git sorts a folder as if its name ended in "/"."""

    def place(entry: Entry) -> bytes:
        mode, name, _ = entry
        return (name + "/" * (mode == "40000")).encode()

    content = b"".join(
        f"{mode} {name}\0".encode() + bytes.fromhex(digest)
        for mode, name, digest in sorted(entries, key=place)
    )
    return _object_hash("tree", content)


def _object_hash(kind: str, content: bytes) -> str:
    header = f"{kind} {len(content)}\0".encode()
    return hashlib.sha1(header + content, usedforsecurity=False).hexdigest()
