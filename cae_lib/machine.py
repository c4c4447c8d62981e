"""GPUs and cores of this machine, found without PyTorch, which fixes its choice at first use."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

BYTES_PER_JOB = 5_300_000_000
"""Upper limit of the memory of a job on a CPU (the profile `mini` takes 5.2 GB)."""

ONE_THREAD_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "THP_MEM_ALLOC_ENABLE": "1",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=4294967296:"
    "glibc.malloc.trim_threshold=4294967296",
}
"""Environment of a job on one core of a CPU. Small models gain little from a second thread, and
sums on one thread have one order. The rest lets torch and glibc take tensors from huge pages and
keep them: a tenth of a perturbation step's time."""


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
    """Reserve a GPU for a `with` block, and wait until one is free of this user's other jobs.

    `CUDA_VISIBLE_DEVICES` is set and stays set, so enter before PyTorch looks for a GPU. The lock
    ends with the block or the process. Nothing is done if at most one GPU is visible, as when a
    scheduler has assigned one.
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


def max_cpu_jobs() -> int:
    """Return how many jobs can run at once on this CPU: one for each core, if memory allows it."""
    has_affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(cores, memory // BYTES_PER_JOB))


def shares_cpu() -> bool:
    """Return whether this job shares a machine without GPU with as many others as it has cores."""
    return not find_gpus() and "SLURM_JOB_ID" not in os.environ


def restart_with_one_thread() -> None:
    """Start this script anew with the environment `ONE_THREAD_ENVIRONMENT`, if it shares a machine.

    The variables are read when a process starts.
    """
    if shares_cpu() and not ONE_THREAD_ENVIRONMENT.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | ONE_THREAD_ENVIRONMENT)
