"""How and where a result was computed."""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from cae_lib.config import paths
from cae_lib.runtime import file_hash

PACKAGES = ("cae_lib", "cae_bench", "cae_lab")
DECLARED = (*PACKAGES, "configs")  # what decides a number, besides data and weights
PARENT_FOLDER = Path(__file__).resolve().parent.parent  # of the `DECLARED` folders
# Other packages whose versions may change the results.
DEPENDENCIES = ("torch", "open_clip_torch", "spacy", "SceneGraphParser", "numpy")
_START_TIME = time.monotonic()


def has_uncommitted_changes(files: Iterable[Path | str] = DECLARED) -> bool | None:
    """Return whether files or folders differ from the last commit; None if git cannot tell."""
    command = ["git", "status", "--porcelain", "--", *map(str, files)]
    try:
        result = subprocess.run(
            command, cwd=PARENT_FOLDER, capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return bool(result.stdout) if result.returncode == 0 else None


def current_provenance(profile_name: str, seed: int | None, **extra: Any) -> dict[str, Any]:
    """Describe how and where a table was computed, as plain JSON values without absolute paths.

    `seed` is None if several were used; `extra` replaces entries of the same name.
    """
    state = {"dirty": has_uncommitted_changes(), **environment_info(profile_name)}
    return {**state, "seed": seed, "dtype": "float32"} | extra


def environment_info(profile_name: str) -> dict[str, Any]:
    """Return the software, machine and data of this process, as plain JSON values."""
    # Synthetic scenes lie in world-NAME, datasets made from photographs in NAME; real data have no
    # manifest.
    manifests = [
        paths().raw / name / "manifest.json" for name in (f"world-{profile_name}", profile_name)
    ]
    data = next((file_hash(path)[:12] for path in manifests if path.is_file()), None)
    return {
        "versions": versions(),
        "device": device_name(),
        "profile": profile_name,
        "data": data,
        "wall_seconds": round(time.monotonic() - _START_TIME, 1),
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the `DEPENDENCIES`, by name."""
    packages = {package: metadata.version(package) for package in DEPENDENCIES}
    return {"python": platform.python_version()} | packages


def device_name() -> str:
    """Return the name of the GPU or of the processor, with PyTorch's number of threads."""
    # Not imported for this: a process without PyTorch has not computed on a GPU.
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    model = platform.processor() or platform.machine()
    cpu = Path("/proc/cpuinfo")
    if cpu.is_file():
        names = [line for line in cpu.read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    return f"{model}, {torch.get_num_threads()} threads" if torch else model
