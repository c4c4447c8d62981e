"""The running process: its device and precision, files and progress.

PyTorch is imported only in the functions that need it, so that a page that only reads results
starts without it.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from cae_lib.errors import ConfigError, WriteError

if TYPE_CHECKING:
    import torch


# If this environment variable is set, `Progress` prints new lines even on a terminal.
PROGRESS_LINES_VARIABLE = "CAE_PROGRESS_LINES"

# Largest number of workers that a process starts if `ExecutionOptions.workers` is None.
MAX_WORKERS = 16


def available_cores() -> int:
    """Return the number of cores of the CPU that this process may use."""
    # A container or a scheduler may leave it fewer than the machine has.
    has_affinity = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1


@dataclass(frozen=True)
class ExecutionOptions:
    """Options that change the speed and memory of a run, and its numbers only by rounding.

    Attributes:
        workers: Number of processes that prepare batches ahead, 0 for none; None chooses it.
    """

    grad_checkpointing: bool = False
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 0:
            raise ConfigError(f"workers is {self.workers}; expected 0 or more, or None.")

    def worker_count(self, decodes_images: bool) -> int:
        """Return `workers`, or if it is None one for each core if batches decode image files."""
        if self.workers is not None or not decodes_images:
            return self.workers or 0
        # `torchrun` says how many of its processes share this machine.
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        return max(1, min(MAX_WORKERS, available_cores() // processes))


def pick_device(name: str | None = None) -> torch.device:
    """Return the named device; without a name, a CUDA GPU if there is one, else the CPU."""
    import torch

    if name is not None:
        try:
            # Accepts any kind of device that PyTorch knows, whether or not this machine has it.
            return torch.device(name)
        except RuntimeError as error:
            raise ConfigError(f"no kind of device {name!r}: expected cpu, cuda or mps") from error
    if not torch.cuda.is_available():
        return torch.device("cpu")
    # `torchrun` sets LOCAL_RANK, and each of its processes gets a GPU of its own.
    local_rank = os.environ.get("LOCAL_RANK")
    return torch.device("cuda" if local_rank is None else f"cuda:{local_rank}")


@contextmanager
def one_thread(device: torch.device) -> Iterator[None]:
    """Let PyTorch use one CPU thread in a `with` block if `device` is a CPU."""
    import torch

    threads = torch.get_num_threads()
    # One thread fixes the order of sums. With more, two repetitions of a training differ by
    # rounding, and these differences grow from step to step.
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def uses_bf16(precision: str, device: torch.device) -> bool:
    """Return whether a run computes in bfloat16 (autocast) on a device; "auto" if that is fast."""
    if precision not in ("fp32", "bf16", "auto"):
        raise ConfigError(f"unknown precision {precision!r}: expected fp32, bf16 or auto.")
    # Processors without instructions for bfloat16 take several times as long in it.
    native = device.type != "cpu" or has_native_bf16()
    return precision == "bf16" or (precision == "auto" and native)


def has_native_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether the processor has instructions for bfloat16; False outside of Linux."""
    text = cpuinfo.read_text() if cpuinfo.is_file() else ""
    # "flags" on x86 (AVX-512, AMX), "Features" on ARM.
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return bool(flags and {"avx512_bf16", "amx_bf16", "bf16"} & set(flags[1].split()))


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write, which replaces `path` when the block ends without error.

    Readers of `path` see the old file or the complete new one. Every OSError of the block becomes a
    WriteError.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # In the same folder, because `os.replace` is atomic only within one file system.
        handle, name = tempfile.mkstemp(".tmp", ".", path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        # `mkstemp` makes a file that only its owner may read.
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        # On a full disk, `torch.save` raises a RuntimeError that names inline_container.cc.
        if isinstance(error, RuntimeError) and "inline_container" not in str(error):
            raise
        reason = getattr(error, "strerror", None) or error
        raise WriteError(
            f"cannot write {path} ({reason}): free some space or make the folder writable, or set "
            "CAE_HOME to a folder of your own"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write text (as UTF-8) or bytes to a file atomically; see `atomic_file`."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's content, as 64 hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def end_with_parent() -> None:
    """End this `multiprocessing` worker when its parent process ends, even if the parent is killed.

    In a process that `multiprocessing` did not start, nothing is done.
    """
    parent = multiprocessing.parent_process()

    def wait_and_exit() -> None:
        if parent is not None:
            parent.join()
            # `sys.exit` would end only this thread, and the worker would compute on as an orphan.
            os._exit(1)

    # A daemon thread does not keep a worker alive that has finished before its parent.
    threading.Thread(target=wait_and_exit, daemon=True).start()


def format_seconds(seconds: float) -> str:
    """Format a duration, as in ``8 s``, ``3 min 20 s`` or ``1 h 05 min``."""
    # Rounded before it is split, so that 59.7 s are 1 min 00 s and not 60 s.
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Progress(tqdm):
    """Progress bar on standard error: rewritten in place on a terminal, else a line every 10 s."""

    # No monitor thread, because forking a process with threads is unsafe.
    monitor_interval = 0

    def __init__(self, total: int | None, label: str, disable: bool = False) -> None:
        in_place = PROGRESS_LINES_VARIABLE not in os.environ and sys.stderr.isatty()
        super().__init__(
            total=total,
            desc=label,
            file=None if in_place else _Lines(),
            dynamic_ncols=in_place,
            mininterval=0.1 if in_place else 10.0,
            # The remaining time follows the mean rate since the start, not that of recent steps.
            smoothing=0,
            disable=disable,
        )

    def update(self, n: int = 1, **values: Any) -> None:
        """Count `n` more steps or items as done, and show `values` beside the bar."""
        if values:
            # `update` decides whether it is time to draw; a refresh here would draw every step.
            self.set_postfix(values, refresh=False)
        super().update(n)


class _Lines:
    """Standard error, with newlines instead of carriage returns."""

    def write(self, text: str) -> None:
        """Write a text as a line, without carriage returns at its ends; skip a blank text."""
        # tqdm writes "\r" before each state of the bar, and a lone newline when it closes.
        if text.strip():
            sys.stderr.write(text.strip("\r") + "\n")
            _write_to_terminal_of_kernel(text.strip("\r"))


def print_status(text: str) -> None:
    """Print a line at once; from a notebook, also in the terminal that papermill was started in."""
    print(text, flush=True)
    _write_to_terminal_of_kernel(text)


def _write_to_terminal_of_kernel(line: str) -> None:
    """In a notebook, write a line to the standard error that its kernel was started with."""
    # Only there: papermill shows nothing of a cell's output before the cell ends.
    if type(sys.stderr).__module__.partition(".")[0] != "ipykernel":
        return
    # A kernel may have kept no such stream.
    with suppress(OSError, ValueError):
        stream = sys.stderr.fileno()
        # The control sequence clears the line of papermill's own bar.
        start = "\r\x1b[2K" if os.isatty(stream) else ""
        os.write(stream, f"{start}{line}\n".encode())
