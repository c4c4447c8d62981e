"""Where a result comes from: code, versions, machine, data and seed, each known by a hash or name.

A number depends on the code that its measurement imports, and a run on the code that its training
imports; both are found by following imports, so that a change elsewhere makes nothing stale.
"""

from __future__ import annotations

import ast
import hashlib
import platform
import subprocess
import sys
import time
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from cae_lib.config import paths

PACKAGE = Path(__file__).resolve().parent
TRAINING, MEASURING = "cae_lib.training.loop", "cae_lib.evaluation.suites"
CONFIGS, BENCHMARKS = "models/configs", "data/benchmarks"
"""Folders with data of the code; the modules of benchmarks are imported by name."""

BESIDE = ("config", "errors", "runtime", "fingerprint", "results")
"""Modules that decide no number by themselves."""

SETTLED = ("config", "errors", "runtime", "fingerprint", "data.captions", "words")
"""Modules that decide no number of a run, or one that its settings and data hold."""

PACKAGES = ("torch", "open_clip_torch", "spacy", "SceneGraphParser", "numpy")

_STARTED = time.monotonic()


@cache
def training_hash(package: Path = PACKAGE) -> str:
    """Hash the code of a run's steps: all that `TRAINING` imports, but for `SETTLED`."""
    return _hash_of(imported([TRAINING], SETTLED, package), package, CONFIGS)


@cache
def measuring_hash(package: Path = PACKAGE) -> str:
    """Hash the code of the measurements: all that `measuring` names, and its data."""
    return _hash_of(measuring(package), package, CONFIGS, BENCHMARKS)


def measuring(package: Path = PACKAGE) -> dict[str, Path]:
    """The modules that `MEASURING` and the benchmarks import, but for `BESIDE`, and their files."""
    names = sorted(path.stem for path in (package / BENCHMARKS).glob("*.py"))
    starts = [f"cae_lib.{BENCHMARKS.replace('/', '.')}.{name}" for name in names]
    return imported([MEASURING, *starts], BESIDE, package)


def imported(
    starts: Iterable[str], without: tuple[str, ...] = (), package: Path = PACKAGE
) -> dict[str, Path]:
    """The modules of the package that some import, directly or not, with these, and their files.

    Args:
        starts: Dotted names of modules.
        without: Beginnings of names, below the package, that are left out with what they import.
        package: Folder of `cae_lib`.
    """
    known: dict[str, Path] = {}
    names = list(starts)
    while names:
        name = names.pop().removeprefix("cae_lib.")
        path = package.joinpath(*name.split("."))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if name in known or name.startswith(without) or not path.is_file():
            continue
        known[name] = path
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cae_lib"):
                names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return known


def tree_hash(folder: Path = PACKAGE) -> str:
    """Hash the files of a folder as git does, so that it needs no git and no commit.

    On a clean checkout the result equals ``git rev-parse HEAD:cae_lib``. Caches of Python are left
    out.
    """
    entries: list[tuple[str, str, str]] = []
    for path in folder.iterdir():
        if path.name == "__pycache__" or path.suffix == ".pyc":
            continue
        if path.is_dir():
            digest = tree_hash(path)
            if digest != object_hash("tree", b""):  # git knows no empty folders
                entries.append(("40000", path.name, digest))
            continue
        try:
            mode = "100755" if path.stat().st_mode & 0o100 else "100644"
            entries.append((mode, path.name, object_hash("blob", path.read_bytes())))
        except FileNotFoundError:
            continue  # an editor's temporary file that is gone by now
    # Git sorts a folder as if its name ended in "/".
    entries.sort(key=lambda entry: (entry[1] + "/" * (entry[0] == "40000")).encode())
    content = b"".join(f"{mode} {name}\0".encode() + bytes.fromhex(digest)
                       for mode, name, digest in entries)
    return object_hash("tree", content)


def changed(files: Iterable[Path] = (PACKAGE,)) -> bool | None:
    """Whether files or folders of the package differ from the last commit; None without git."""
    command = ["git", "status", "--porcelain", "--", *map(str, files)]
    try:
        result = subprocess.run(command, cwd=PACKAGE, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return bool(result.stdout) if result.returncode == 0 else None


def stamp(profile: str, seed: int | None, **extra: Any) -> dict[str, Any]:
    """Describe the state that a table was computed in.

    Args:
        profile: The profile that it belongs to.
        seed: Its seed; None where several seeds were used.
        extra: Further entries, or better values for ``dtype`` (default float32) and
            ``wall_seconds`` (default: since this module was imported).

    Returns:
        A dict of plain JSON values without absolute paths. ``code`` identifies the code that can
        change a number; ``dirty`` says whether it differed from the last commit (None without git).
    """
    files = [*measuring().values(), PACKAGE / CONFIGS, PACKAGE / BENCHMARKS]
    return {"code": measuring_hash(), "dirty": changed(files), **circumstances(profile),
            "seed": seed, "dtype": "float32"} | extra


def circumstances(profile: str) -> dict[str, Any]:
    """Versions, device, profile, manifest of the small world, seconds since the start."""
    manifest = paths().raw / f"world-{profile}" / "manifest.json"
    data = hashlib.sha256(manifest.read_bytes()).hexdigest()[:12] if manifest.is_file() else None
    return {"versions": versions(), "device": device_name(), "profile": profile, "data": data,
            "wall_seconds": round(time.monotonic() - _STARTED, 1)}


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that numbers depend on."""
    return {"python": platform.python_version()} | {
        package: metadata.version(package) for package in PACKAGES
    }


def device_name() -> str:
    """Name the GPU, or else the processor, with its number of threads where PyTorch is in use."""
    torch = sys.modules.get("torch")  # a page that only reads results does without
    if torch and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass  # not Linux: the name the platform gives is good enough
    return f"{model}, {torch.get_num_threads()} threads" if torch else model


def _hash_of(modules: dict[str, Path], package: Path, *folders: str) -> str:
    """Hash modules by name and content, and whole folders of the package."""
    known = {name: object_hash("blob", path.read_bytes()) for name, path in modules.items()}
    known |= {Path(folder).name: tree_hash(package / folder) for folder in folders}
    return object_hash("tree", repr(sorted(known.items())).encode())


def object_hash(kind: str, content: bytes) -> str:
    """Git's hash of an object."""
    header = f"{kind} {len(content)}\0".encode()
    return hashlib.sha1(header + content, usedforsecurity=False).hexdigest()
