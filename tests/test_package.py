"""What is installed with the package: the loss needs its dependencies alone, commands say more."""

from __future__ import annotations

import argparse
import importlib
import re
import subprocess
import sys
import tomllib
from importlib import metadata

import pytest
from conftest import REPOSITORY

from cae_lib import cli

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
    modules = [
        module
        for module, distributions in metadata.packages_distributions().items()
        if core & {_plain(name) for name in distributions}
    ]
    command = [sys.executable, "-c", GUARDED, str(REPOSITORY / ".ci" / "wheel_step.py"), *modules]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


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


def actions(parser: argparse.ArgumentParser) -> list[str]:
    """What the commands of a parser do, and those below them."""
    kinds = [kind for part in parser._actions if isinstance(part, argparse._SubParsersAction)
             for kind in part.choices.values()]
    own = [parser.get_default("action")] if not kinds else []
    return own + [name for kind in kinds for name in actions(kind)]


def test_every_command_has_its_action() -> None:
    names = actions(cli.build_parser())
    assert len(names) == len(set(names)) == 15
    assert all(callable(cli.action(name)) for name in names)
