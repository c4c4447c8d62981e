"""The running process: device, files, progress, and which code, versions and machine it is. PyTorch
is imported where it is needed: a page that only reads results does without."""

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
PACKAGES = ("torch", "open_clip_torch", "spacy", "SceneGraphParser", "numpy")

_STARTED = time.monotonic()

PROGRESS_LINES = "CAE_PROGRESS_LINES"
"""Environment variable: if set, a terminal gets new lines too, as where several processes write."""


def pick_device(name: str | None = None) -> torch.device:
    """The device of that name ("cpu", "cuda", "cuda:1", "mps"), else a GPU when there is one. Of
    several processes started by `torchrun`, each gets a GPU of its own."""
    import torch

    if name is not None:
        return torch.device(name)
    if not torch.cuda.is_available():
        return torch.device("cpu")
    local_rank = os.environ.get("LOCAL_RANK")
    return torch.device("cuda" if local_rank is None else f"cuda:{local_rank}")


@contextmanager
def one_thread(device: torch.device) -> Iterator[None]:
    """Compute on one thread while `device` is a CPU, where sums then have one order. With more
    threads a training run repeats only up to rounding, which grows from step to step."""
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
    """Give a temporary file to fill, which becomes `path` at the end, or is removed by an error. So
    a reader meets the old file or the new one, never half of it. WriteError, which says what to do,
    if the place cannot be written."""
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
            raise  # only that of `torch.save` on a full disk is one of writing
        why = getattr(error, "strerror", None) or error
        raise WriteError(
            f"cannot write {path} ({why}): free some space or make the folder writable, or set "
            "CAE_HOME to a folder of your own"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file by `whole_file`."""
    with whole_file(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def end_with_parent() -> None:
    """End this process, one of `multiprocessing`, once its parent is gone, even one killed."""
    wait = multiprocessing.parent_process().join
    threading.Thread(target=lambda: (wait(), os._exit(1)), daemon=True).start()


def format_seconds(seconds: float) -> str:
    """Write a duration as people say it: ``8 s``, ``3 min 20 s``, ``1 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Progress(tqdm):
    """A bar of `total` units of work on standard error: rewritten in place on a terminal, else new
    lines, at most one in 10 s; nothing at all if `disable`."""

    monitor_interval = 0  # no thread of its own beside processes that fork

    def __init__(self, total: int, label: str, disable: bool = False) -> None:
        in_place = PROGRESS_LINES not in os.environ and sys.stderr.isatty()
        super().__init__(
            total=total,
            desc=label,
            file=None if in_place else _Lines(),
            dynamic_ncols=in_place,
            mininterval=0.1 if in_place else 10.0,
            smoothing=0,
            disable=disable,
        )

    def update(self, n: int = 1, **values: float) -> None:
        """Count `n` more units as done, and show values beside them."""
        if values:
            self.set_postfix(values, refresh=False)
        super().update(n)


class _Lines:
    """Standard error, with new lines in the place of carriage returns."""

    def write(self, text: str) -> None:
        if text.strip():
            sys.stderr.write(text.strip("\r") + "\n")


def changed(files: Iterable[Path] = (PACKAGE,)) -> bool | None:
    """Whether files or folders of the package differ from the last commit; None without git."""
    command = ["git", "status", "--porcelain", "--", *map(str, files)]
    try:
        result = subprocess.run(command, cwd=PACKAGE, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return bool(result.stdout) if result.returncode == 0 else None


def stamp(profile: str, seed: int | None, **extra: Any) -> dict[str, Any]:
    """Describe the state that a table was computed in, as plain JSON values without absolute paths.
    `dirty` says whether the package differed from the last commit (None without git). `seed` is
    None where several were used. `extra` are further entries, or better values for `dtype` (default
    float32) and `wall_seconds` (default: since this module was imported)."""
    return {"dirty": changed(), **circumstances(profile), "seed": seed, "dtype": "float32"} | extra


def circumstances(profile: str) -> dict[str, Any]:
    """Versions, device, profile, manifest of its sets, seconds since the start."""
    places = (paths().raw / name / "manifest.json" for name in (f"world-{profile}", profile))
    data = next((file_hash(path)[:12] for path in places if path.is_file()), None)
    return {
        "versions": versions(),
        "device": device_name(),
        "profile": profile,
        "data": data,
        "wall_seconds": round(time.monotonic() - _STARTED, 1),
    }


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that numbers depend on."""
    known = {package: metadata.version(package) for package in PACKAGES}
    return {"python": platform.python_version()} | known


def device_name() -> str:
    """Name the GPU, or else the processor, with its number of threads where PyTorch is in use."""
    torch = sys.modules.get("torch")  # a page that only reads results does without
    if torch and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    model = platform.processor() or platform.machine()
    cpu = Path("/proc/cpuinfo")
    if cpu.is_file():
        names = [line for line in cpu.read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    return f"{model}, {torch.get_num_threads()} threads" if torch else model
