"""The running process: its device, files and progress.

PyTorch is imported only in the functions that need it, so that a page that only reads results
starts without it.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from cae_lib.errors import ConfigError, WriteError

if TYPE_CHECKING:
    import torch


PROGRESS_LINES_VARIABLE = "CAE_PROGRESS_LINES"
"""Environment variable: if it is set, `Progress` prints new lines even on a terminal."""


def pick_device(name: str | None = None) -> torch.device:
    """Return the device to compute on.

    Args:
        name: Name of the device, such as "cpu", "cuda", "cuda:1" or "mps". None picks a CUDA GPU if
            there is one, else the CPU; each process started by `torchrun` gets a GPU of its own.
            Whether the machine has a named device is not checked.

    Raises:
        ConfigError: If PyTorch knows no such kind of device.
    """
    import torch

    if name is not None:
        try:
            return torch.device(name)
        except RuntimeError as error:
            raise ConfigError(f"no kind of device {name!r}: expected cpu, cuda or mps") from error
    if not torch.cuda.is_available():
        return torch.device("cpu")
    local_rank = os.environ.get("LOCAL_RANK")
    return torch.device("cuda" if local_rank is None else f"cuda:{local_rank}")


@contextmanager
def one_thread(device: torch.device) -> Iterator[None]:
    """Let PyTorch use one CPU thread in a `with` block if `device` is a CPU.

    The order of sums is then fixed. With more threads, two repetitions of a training differ by
    rounding, and these differences grow from step to step.
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
def atomic_file(path: Path) -> Iterator[Path]:
    """Write a file atomically: readers of `path` see the old file or the complete new one.

    Args:
        path: The file to write. Its folder is created if it does not exist.

    Yields:
        The path of a temporary file in the same folder, for the `with` block to write. The
        temporary file replaces `path` after the block. If the block raises, the temporary file is
        removed, and `path` stays as it was.

    Raises:
        WriteError: If the file cannot be written. It replaces every OSError of the block, and the
            RuntimeError that `torch.save` raises on a full disk.
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
    """Write text (as UTF-8) or bytes to a file atomically; see `atomic_file`."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's content, as 64 hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def end_with_parent() -> None:
    """End this `multiprocessing` worker when its parent process ends, even if the parent is killed.

    A thread waits for the parent. In a process that `multiprocessing` did not start, nothing is
    done.
    """
    parent = multiprocessing.parent_process()

    def wait_and_exit() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait_and_exit, daemon=True).start()


def format_seconds(seconds: float) -> str:
    """Format a duration, as in ``8 s``, ``3 min 20 s`` or ``1 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Progress(tqdm):
    """Progress bar on standard error: rewritten in place on a terminal, else a line every 10 s.

    If `PROGRESS_LINES_VARIABLE` is set, there are lines on a terminal, too.

    Args:
        total: Number of steps or items after which the work is done; None if it is not known.
        label: Text in front of the bar.
        disable: Print nothing.
    """

    monitor_interval = 0  # no monitor thread, since forking a process with threads is unsafe

    def __init__(self, total: int | None, label: str, disable: bool = False) -> None:
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
        """Count `n` more steps or items as done, and show `values` beside the bar."""
        if values:
            self.set_postfix(values, refresh=False)
        super().update(n)


class _Lines:
    """Standard error, with newlines instead of carriage returns."""

    def write(self, text: str) -> None:
        """Write a text as a line, without carriage returns at its ends; skip a blank text."""
        if text.strip():
            sys.stderr.write(text.strip("\r") + "\n")
            _write_to_terminal_of_kernel(text.strip("\r"))


def print_status(text: str) -> None:
    """Print a line at once; from a notebook, also in the terminal that papermill was started in."""
    print(text, flush=True)
    _write_to_terminal_of_kernel(text)


def _write_to_terminal_of_kernel(line: str) -> None:
    """In a notebook, write a line to the standard error that its kernel was started with.

    Of a cell's output, papermill shows nothing before the cell ends.
    """
    if type(sys.stderr).__module__.partition(".")[0] != "ipykernel":
        return
    with suppress(OSError, ValueError):  # a kernel that has kept no such stream
        stream = sys.stderr.fileno()
        start = "\r\x1b[2K" if os.isatty(stream) else ""  # which clears papermill's own bar
        os.write(stream, f"{start}{line}\n".encode())
