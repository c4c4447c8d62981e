"""Where a result comes from: code, versions, machine, data, seed."""

from __future__ import annotations

import hashlib
import platform
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from cae_lib.config import paths
from cae_lib.fingerprint import PRESENTING, committed_hash, measuring_hash, tree_hash

PACKAGES = ("torch", "open_clip_torch", "spacy", "SceneGraphParser", "numpy")

MEASURING, TREE = measuring_hash(), tree_hash()
"""The code that runs here: taken at the start, since files may change while it runs."""

_STARTED = time.monotonic()


def stamp(profile: str, seed: int | None, **extra: Any) -> dict[str, Any]:
    """Describe the state that a record was computed in.

    Args:
        profile: the profile the record belongs to.
        seed: its seed; None where several seeds were used.
        extra: further entries, or better values for ``dtype`` (default float32) and
            ``wall_seconds`` (default: since this module was imported).

    Returns:
        A dict of plain JSON values without absolute paths. ``code`` identifies the code that can
        change a number: see `cae_lib.fingerprint.PRESENTING` for what it leaves out. ``dirty``
        says whether that code differed from the last commit (None without git).
    """
    committed = committed_hash(without=PRESENTING)
    code = {"code": MEASURING, "dirty": _differ(committed, MEASURING)}
    return code | _circumstances(profile, seed) | extra


def page_stamp(profile: str, **extra: Any) -> dict[str, Any]:
    """Describe the state that a page was run in: that of a record, but for the code.

    ``tree`` stands for ``code`` and identifies the whole package, since a page depends on all of
    it; ``dirty`` is about the whole package too.
    """
    code = {"tree": TREE, "dirty": _differ(committed_hash(), TREE)}
    return code | _circumstances(profile, None) | extra


def _differ(committed: str | None, present: str) -> bool | None:
    return None if committed is None else committed != present


def _circumstances(profile: str, seed: int | None) -> dict[str, Any]:
    return {
        "versions": versions(),
        "device": device_name(),
        "dtype": "float32",
        "profile": profile,
        "seed": seed,
        "wall_seconds": round(time.monotonic() - _STARTED, 1),
        "data": data_hash(profile),
    }


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
