"""Where a result comes from: code, versions, machine, data, seed."""

from __future__ import annotations

import hashlib
import platform
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from cae_lib.config import paths

PACKAGE = Path(__file__).resolve().parent
PACKAGES = ("torch", "open_clip_torch", "spacy", "SceneGraphParser", "numpy")
_STARTED = time.monotonic()


def stamp(profile: str, seed: int | None, **extra: Any) -> dict[str, Any]:
    """Describe the state that a result was computed in; the same dict serves pages and records.

    Args:
        profile: the profile the result belongs to.
        seed: its seed; None where several seeds were used.
        extra: further entries, or better values for ``dtype`` (default float32) and
            ``wall_seconds`` (default: since this module was imported).

    Returns:
        A dict of plain JSON values without absolute paths. ``tree`` identifies the code: see
        `tree_hash`. ``dirty`` says whether the code differs from the last commit (None without
        git).
    """
    tree = tree_hash()
    committed = committed_tree()
    entry = {
        "tree": tree,
        "dirty": None if committed is None else committed != tree,
        "versions": versions(),
        "device": device_name(),
        "dtype": "float32",
        "profile": profile,
        "seed": seed,
        "wall_seconds": round(time.monotonic() - _STARTED, 1),
        "data": data_hash(profile),
    }
    return entry | extra


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that numbers depend on."""
    return {"python": platform.python_version()} | {
        package: metadata.version(package) for package in PACKAGES
    }


def device_name() -> str:
    """Name the GPU, or else the processor and its number of threads in use."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass  # not Linux: the name the platform gives is good enough
    return f"{model}, {torch.get_num_threads()} threads"


def data_hash(profile: str) -> str | None:
    """Hash the manifest of the profile's small world; None when it is not built here."""
    manifest = paths().raw / f"world-{profile}" / "manifest.json"
    if not manifest.is_file():
        return None
    return hashlib.sha256(manifest.read_bytes()).hexdigest()[:12]


def tree_hash(folder: Path = PACKAGE) -> str:
    """Hash the files of a folder as git does, so that it needs no git and no commit.

    On a clean checkout the result equals ``git rev-parse HEAD:cae_lib``. Uncommitted work has
    the hash that it will have once committed: a result does not turn stale by the commit itself.
    Caches of Python are left out.
    """
    entries = []
    for path in folder.iterdir():
        if path.name == "__pycache__" or path.suffix == ".pyc":
            continue
        if path.is_dir():
            digest = tree_hash(path)
            if digest == _object_hash("tree", b""):
                continue  # git knows no empty folders
            entries.append((path.name + "/", "40000", path.name, digest))
        else:
            mode = "100755" if path.stat().st_mode & 0o100 else "100644"
            entries.append((path.name, mode, path.name, _object_hash("blob", path.read_bytes())))
    content = b"".join(
        f"{mode} {name}\0".encode() + bytes.fromhex(digest)
        for _, mode, name, digest in sorted(entries, key=lambda entry: entry[0].encode())
    )
    return _object_hash("tree", content)


def committed_tree() -> str | None:
    """Return git's hash of the committed package; None without git or before the first commit."""
    try:
        result = subprocess.run(
            ["git", "rev-parse", "--verify", "-q", f"HEAD:./{PACKAGE.name}"],
            cwd=PACKAGE.parent,
            capture_output=True,
            text=True,
            timeout=20,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None if result.returncode == 0 else None


def _object_hash(kind: str, content: bytes) -> str:
    header = f"{kind} {len(content)}\0".encode()
    return hashlib.sha1(header + content, usedforsecurity=False).hexdigest()
