"""Which code a number depends on. A number depends on the code that its measurement imports, a run
on the code that its training imports; both are found by following imports, so that a change
elsewhere makes nothing stale."""

from __future__ import annotations

import ast
import hashlib
import io
import tokenize
from collections.abc import Collection, Iterable
from functools import cache
from pathlib import Path

from cae_lib.methods import methods
from cae_lib.runtime import PACKAGE, file_hash

TRAINING = "cae_lib.training.trainer"
CONFIGS, BENCHMARKS = "models/configs", "data/benchmarks"
"""Folders with data of the code."""

LAYOUTS = "data.benchmarks.table"
"""The module whose entries decide the numbers of their own benchmarks alone."""

BESIDE = ("config", "profiles", "errors", "methods", "fingerprint", "runtime", "results",
          "data.needs", "data.sources", "data.completeness")
"""Modules that decide no number by themselves."""

SETTLED = ("config", "profiles", "errors", "methods", "fingerprint", "runtime", "data.captions",
           "words")
"""Modules that decide no number of a run, or one that its settings and data hold."""


@cache
def training_hash(package: Path = PACKAGE, method: str | None = "all") -> str:
    """Hash the code of a run's steps: all that `TRAINING` and its attribution method import, but
    for `SETTLED`; `method` is None for a run without, "all" for whatever run."""
    names = [*methods()] if method == "all" else [method] if method else []
    starts = [TRAINING, *map(_module, names)]
    return _hash_of(imported(starts, SETTLED, package), package, CONFIGS)


def _module(method: str) -> str:
    return f"cae_lib.attribution.{method}"


@cache
def measuring_hash(modules: tuple[str, ...], families: tuple[str, ...] = (),
                   package: Path = PACKAGE) -> str:
    """Hash the code of a measurement: all that its modules (dotted names) import, but for `BESIDE`,
    with the configurations of models; and of the benchmarks that it reads, `families`, their
    entries in `LAYOUTS` and what these name, with the data beside them."""
    table = package.joinpath(*LAYOUTS.split(".")).with_suffix(".py")
    others, named = _entries(table, families)
    starts = [*modules, *(f"{LAYOUTS.rpartition('.')[0]}.{name}" for name in named)]
    known = imported(starts, (*BESIDE, LAYOUTS), package)
    folders = (CONFIGS, BENCHMARKS) if families else (CONFIGS,)
    return _hash_of(known, package, *folders, also=what_runs(table, others))


def _entries(table: Path, families: tuple[str, ...]) -> tuple[set[int], set[str]]:
    """Of the dictionary of layouts: the lines of entries other than `families`, and the names that
    these have in them, of modules beside it too."""
    others, named = set(), set()
    for entries in (node.value for node in ast.parse(table.read_bytes()).body
                    if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Dict)):
        for key, value in zip(entries.keys, entries.values, strict=True):
            if ast.literal_eval(key) not in families:
                others |= {*range(key.lineno, value.end_lineno + 1)}
                continue
            named |= {node.id for node in ast.walk(value) if isinstance(node, ast.Name)}
            named |= {ast.literal_eval(word.value) for word in value.keywords
                      if word.arg == "loader"}
    return others, named


def imported(starts: Iterable[str], without: tuple[str, ...] = (),
             package: Path = PACKAGE) -> dict[str, Path]:
    """The modules of the package that `starts` (dotted names) import, directly or not, with these,
    and their files. `without` are beginnings of names, below the package, that are left out with
    what they import; `package` is the folder of `cae_lib`."""
    known: dict[str, Path] = {}
    names = list(starts)
    while names:
        name = names.pop().removeprefix("cae_lib.")
        path = package.joinpath(*name.split("."))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if name in known or name.startswith(without) or not path.is_file():
            continue
        known[name] = path
        names += _imports(path.read_bytes())
    return known


@cache
def _imports(source: bytes) -> tuple[str, ...]:
    """The modules of the package that a module names, and what it takes from them."""
    found = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)
             and (node.module or "").startswith("cae_lib"))
    return tuple(name for node in found for name in (
        node.module, *(f"{node.module}.{alias.name}" for alias in node.names)))


def _hash_of(modules: dict[str, Path], package: Path, *folders: str, also: str = "") -> str:
    """Hash modules by name and what runs of them, the data files in folders of the package, and
    `also`."""
    data = {path.name: path for folder in folders for path in (package / folder).glob("*.*")
            if path.suffix in (".json", ".txt")}
    known = [(name, what_runs(path)) for name, path in sorted(modules.items())]
    known += [(name, file_hash(path)) for name, path in sorted(data.items())]
    return hashlib.sha256(repr((known, also)).encode()).hexdigest()


def what_runs(path: Path, without: Collection[int] = ()) -> str:
    """A module's lines without docstrings, comments of whole lines, empty lines, and those of the
    numbers `without`; taken by lines, since what Python makes of them depends on its version."""
    return _what_runs(path.read_text(encoding="utf-8"), frozenset(without))


@cache
def _what_runs(source: str, without: frozenset[int]) -> str:
    lines = {number: line for number, line in enumerate(source.splitlines(), start=1)
             if number not in without}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            for number in range(node.lineno, node.end_lineno + 1):
                lines.pop(number, None)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and token.line.strip() == token.string:
            lines.pop(token.start[0], None)
    return "\n".join(line.rstrip() for line in lines.values() if line.strip())
