"""The running process: device, files, progress, and the versions and machine that it runs on.

PyTorch is imported where it is needed: a page that only reads results does without.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from cae_lib.config import paths
from cae_lib.errors import WriteError

if TYPE_CHECKING:
    import torch

PACKAGE = Path(__file__).resolve().parent
DEPENDENCIES = ("torch", "open_clip_torch", "spacy", "SceneGraphParser", "numpy")
"""Packages whose versions numbers depend on."""

_STARTED = time.monotonic()

PROGRESS_LINES_VARIABLE = "CAE_PROGRESS_LINES"
"""Environment variable: if set, progress is printed as new lines on a terminal, too."""


def pick_device(name: str | None = None) -> torch.device:
    """Return a device by its name; by default a GPU if there is one.

    Of several processes started by `torchrun`, each gets a GPU of its own.

    Args:
        name: Such as "cpu", "cuda", "cuda:1" or "mps".
    """
    import torch

    if name is not None:
        return torch.device(name)
    if not torch.cuda.is_available():
        return torch.device("cpu")
    local_rank = os.environ.get("LOCAL_RANK")
    return torch.device("cuda" if local_rank is None else f"cuda:{local_rank}")


@contextmanager
def one_thread(device: torch.device) -> Iterator[None]:
    """Compute on one thread if `device` is a CPU, so that the order of sums is fixed.

    With more threads, two runs of a training differ by rounding, and these differences grow from
    step to step.
    """
    import torch

    threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary file to fill, which becomes `path` at the end; an error removes it.

    Readers of `path` see the old file or the complete new one.

    Raises:
        WriteError: The file cannot be written.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(".tmp", ".", path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "inline_container" not in str(error):
            raise  # `torch.save` raises this one on a full disk
        reason = getattr(error, "strerror", None) or error
        raise WriteError(
            f"cannot write {path} ({reason}): free some space or make the folder writable, or set "
            "CAE_HOME to a folder of your own"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file so that readers see the old one or the complete new one; see `whole_file`."""
    with whole_file(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def end_with_parent() -> None:
    """End this process of `multiprocessing` once its parent is gone, even if that was killed."""
    parent = multiprocessing.parent_process()

    def wait_and_exit() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait_and_exit, daemon=True).start()


def format_seconds(seconds: float) -> str:
    """Format a duration: ``8 s``, ``3 min 20 s``, ``1 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Progress(tqdm):
    """Progress bar on standard error: rewritten in place on a terminal, else a line every 10 s.

    Args:
        total: Number of units of work.
        label: Name of the work.
        disable: Print nothing.
    """

    monitor_interval = 0  # no thread of its own beside processes that fork

    def __init__(self, total: int, label: str, disable: bool = False) -> None:
        in_place = PROGRESS_LINES_VARIABLE not in os.environ and sys.stderr.isatty()
        super().__init__(
            total=total,
            desc=label,
            file=None if in_place else _Lines(),
            dynamic_ncols=in_place,
            mininterval=0.1 if in_place else 10.0,
            smoothing=0,
            disable=disable,
        )

    def update(self, n: int = 1, **values: Any) -> None:
        """Count `n` more units as done, and show values beside them."""
        if values:
            self.set_postfix(values, refresh=False)
        super().update(n)


class _Lines:
    """Standard error, with newlines instead of carriage returns."""

    def write(self, text: str) -> None:
        """Write a line without its carriage returns."""
        if text.strip():
            sys.stderr.write(text.strip("\r") + "\n")


def has_uncommitted_changes(files: Iterable[Path] = (PACKAGE,)) -> bool | None:
    """Return whether files of the package differ from the last commit; None without git."""
    command = ["git", "status", "--porcelain", "--", *map(str, files)]
    try:
        result = subprocess.run(command, cwd=PACKAGE, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return bool(result.stdout) if result.returncode == 0 else None


def current_provenance(profile: str, seed: int | None, **extra: Any) -> dict[str, Any]:
    """Describe where a table was computed, as plain JSON values without absolute paths.

    Args:
        profile: The profile of the table.
        seed: The seed, None if several were used.
        extra: Further entries, or other values for `dtype` (default float32) and `wall_seconds`
            (default: since this module was imported).

    Returns:
        `environment_info`, with `dirty`: whether the package differed from the last commit (None
        without git).
    """
    state = {"dirty": has_uncommitted_changes(), **environment_info(profile)}
    return {**state, "seed": seed, "dtype": "float32"} | extra


def environment_info(profile: str) -> dict[str, Any]:
    """Return versions, device, profile, digest of its data, and seconds since the start."""
    manifests = [paths().raw / name / "manifest.json" for name in (f"world-{profile}", profile)]
    data = next((file_hash(path)[:12] for path in manifests if path.is_file()), None)
    return {
        "versions": versions(),
        "device": device_name(),
        "profile": profile,
        "data": data,
        "wall_seconds": round(time.monotonic() - _STARTED, 1),
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that numbers depend on."""
    packages = {package: metadata.version(package) for package in DEPENDENCIES}
    return {"python": platform.python_version()} | packages


def device_name() -> str:
    """Return the name of the GPU or, without one, of the processor.

    PyTorch is not imported for this, since a page that only reads results does without it. Unless
    it is imported already, the processor is named. If it is, the number of its threads follows.
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
