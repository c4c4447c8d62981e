"""The GPUs of this machine, without PyTorch, which decides for good when it is first used."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


def find_gpus() -> list[str]:
    """Return the GPUs that this process may use, by number or name."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name]
    if not shutil.which("nvidia-smi"):
        return []
    listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout
    return [str(number) for number, _ in enumerate(listing.splitlines())]


@contextmanager
def exclusive_gpu() -> Iterator[None]:
    """Take a GPU of this machine that no other job of this user has, before PyTorch looks for one.

    The lock ends with the process. With one GPU or none, or where a scheduler has assigned one,
    nothing is done.
    """
    gpus = find_gpus()
    if len(gpus) < 2:
        yield
        return
    folder = Path(os.environ.get("TMPDIR", "/tmp"))
    with ExitStack() as stack:
        while True:
            for gpu in gpus:
                try:
                    lock = folder / f"cae-{getpass.getuser()}-gpu-{gpu}.lock"
                    stack.enter_context(FileLock(lock, timeout=0))
                except Timeout:
                    continue
                os.environ["CUDA_VISIBLE_DEVICES"] = gpu
                yield
                return
            time.sleep(5)
