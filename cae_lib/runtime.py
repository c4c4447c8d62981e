"""The running process: its device, its seeds, its files and its one progress line.

PyTorch is imported where it is needed: a page that only reads results does without.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np

from cae_lib.errors import DataError

if TYPE_CHECKING:
    import torch

PROGRESS_FILE = "CAE_PROGRESS_FILE"
"""Environment variable: a file that progress lines go to instead of standard error."""

PROGRESS_LINES = "CAE_PROGRESS_LINES"
"""Environment variable: if set, a terminal gets new lines too, as where several processes write."""


def pick_device(name: str | None = None) -> torch.device:
    """Choose the device to compute on: the named one, else a GPU when there is one.

    Of several processes started by `torchrun`, each gets a GPU of its own.

    Args:
        name: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``; None picks cuda, then cpu.
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
    """Compute on one thread while `device` is a CPU, where sums then have one order.

    With more threads a training run repeats only up to rounding, which grows from step to step.
    """
    import torch

    threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def seed_everything(seed: int) -> torch.Generator:
    """Seed Python, NumPy and PyTorch, and return a fresh CPU generator with the same seed."""
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    return torch.Generator().manual_seed(seed)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary file to fill, which becomes `path` at the end, or is removed by an error.

    So a reader meets the old file or the new one, never half of it.

    Raises:
        DataError: The place cannot be written; the message says what to do.
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
    except OSError as error:
        raise DataError(
            f"cannot write {path} ({error.strerror or error}): free some space or make the folder "
            "writable, or set CAE_HOME to a folder of your own"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file by `whole_file`."""
    with whole_file(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


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


class Progress:
    """One progress line: rewritten in place on a terminal, else a new line at most every 10 s.

    The line reads ``label 120/500 | loss 2.310 | 35.2/s | 11 s left``. In a page run by
    ``cae run`` it goes to the runner, so that it never ends up in the page's output.

    Args:
        total: number of units of work.
        label: what is being done.
        stream: where to write; standard error by default.
        every: least seconds between two lines; None means 0.2 on a terminal, else 10.
    """

    def __init__(
        self, total: int, label: str, stream: TextIO | None = None, every: float | None = None
    ) -> None:
        self.total = total
        self.label = label
        self.done = 0
        self._file = os.environ.get(PROGRESS_FILE) if stream is None else None
        self._stream = sys.stderr if stream is None else stream
        in_place = self._file is None and PROGRESS_LINES not in os.environ
        self._tty = in_place and self._stream.isatty()
        self._every = (0.2 if self._tty else 10.0) if every is None else every
        self._start = self._last = time.monotonic()
        self._width = 0
        self._values: dict[str, float | int | str] = {}
        self._closed = False

    def update(self, n: int = 1, **values: float | int | str) -> None:
        """Count ``n`` more units as done and remember the values to show beside them."""
        self.done += n
        self._values.update(values)
        now = time.monotonic()
        if now - self._last >= self._every:
            self._last = now
            self._write(self.line())

    def line(self) -> str:
        """Compose the current line."""
        seconds = time.monotonic() - self._start
        parts = [f"{self.label} {self.done}/{self.total}"]
        parts += [
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in self._values.items()
        ]
        if self.done and seconds > 0:
            rate = self.done / seconds
            parts.append(f"{rate:.3g}/s")
            if self.done < self.total:
                parts.append(f"{format_seconds((self.total - self.done) / rate)} left")
        return " | ".join(parts)

    def close(self) -> None:
        """Write the last line, with the time all of it took."""
        if self._closed:
            return
        self._closed = True
        seconds = time.monotonic() - self._start
        self._write(f"{self.line()} | took {format_seconds(seconds)}", last=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _write(self, text: str, last: bool = False) -> None:
        if self._file is not None:
            with Path(self._file).open("a", encoding="utf-8") as stream:
                stream.write(text + "\n")
            return
        if self._tty:
            padding = " " * max(0, self._width - len(text))
            self._stream.write(f"\r{text}{padding}" + ("\n" if last else ""))
            self._width = len(text)
        else:
            self._stream.write(text + "\n")
        self._stream.flush()
