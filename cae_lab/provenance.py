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
"""The packages whose uncommitted changes the provenance tells."""

PARENT_FOLDER = Path(__file__).resolve().parent.parent
"""The folder that contains the `PACKAGES`."""


DEPENDENCIES = ("torch", "open_clip_torch", "spacy", "SceneGraphParser", "numpy")
"""Packages whose versions may change the results; the provenance records these versions."""


_START_TIME = time.monotonic()


def has_uncommitted_changes(files: Iterable[Path | str] = PACKAGES) -> bool | None:
    """Return whether any of the given files or folders differ from the last commit.

    Args:
        files: The files or folders, at least one; by default the `PACKAGES`. A relative path starts
            from their `PARENT_FOLDER`.

    Returns:
        Whether there are changed or untracked files; None if git cannot tell, as outside of a
        repository.
    """
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

    Args:
        profile_name: Name of the table's profile.
        seed: The seed; None if several were used.
        **extra: Further entries, which replace those of the same name.

    Returns:
        The entries of `environment_info`, and `seed`, `dtype` ("float32" unless `extra` has another
        value) and `dirty`, the value of `has_uncommitted_changes`.
    """
    state = {"dirty": has_uncommitted_changes(), **environment_info(profile_name)}
    return {**state, "seed": seed, "dtype": "float32"} | extra


def environment_info(profile_name: str) -> dict[str, Any]:
    """Return the software, machine and data of this process, as plain JSON values.

    Args:
        profile_name: Name of a profile.

    Returns:
        `versions` and `device`, see the functions `versions` and `device_name`; `profile`, the
        name; `data`, 12 hexadecimal digits of the SHA-256 of the manifest of the profile's own
        generated datasets (None without a manifest); and `wall_seconds`, the seconds since this
        module was imported.
    """
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
    """Return the name of the GPU or of the processor.

    PyTorch is not imported for this. If it is imported already and finds a GPU, the GPU is named.
    Otherwise the processor is named, followed by PyTorch's number of threads if it is imported.
    """
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    model = platform.processor() or platform.machine()
    cpu = Path("/proc/cpuinfo")
    if cpu.is_file():
        names = [line for line in cpu.read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    return f"{model}, {torch.get_num_threads()} threads" if torch else model
