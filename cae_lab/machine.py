"""GPUs and cores of this machine.

PyTorch is not imported here, because it fixes at first use which GPUs it sees.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from cae_lib.runtime import available_cores

BYTES_PER_JOB = 5_300_000_000  # upper limit for a job on a CPU; the profile `mini` takes 5.2 GB

# Environment variables of a job on one core of a CPU. Small models gain little from a second
# thread, and with one thread the order of sums is fixed.
ONE_THREAD_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    # torch and glibc take tensors from huge pages and keep these pages, which saves a tenth of the
    # time of a training step with the method "perturbation".
    "THP_MEM_ALLOC_ENABLE": "1",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=4294967296:"
    "glibc.malloc.trim_threshold=4294967296",
}


def find_gpus() -> list[str]:
    """Return the GPUs that this process may use, as entries of `CUDA_VISIBLE_DEVICES`."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = [name.strip() for name in visible.split(",")]
        return [name for name in names if name not in ("", "-1")]  # CUDA takes -1 for no GPU
    if not shutil.which("nvidia-smi"):
        return []
    listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
    lines = listing.stdout.splitlines() if listing.returncode == 0 else []
    return [str(number) for number in range(sum(line.startswith("GPU ") for line in lines))]


@contextmanager
def exclusive_gpu() -> Iterator[None]:
    """Reserve a GPU for a `with` block; wait until other jobs have left one free.

    `CUDA_VISIBLE_DEVICES` stays set after the block. PyTorch must not have looked for GPUs before.
    """
    gpus = find_gpus()
    # A scheduler that assigns one GPU makes only this one visible.
    if len(gpus) < 2:
        yield
        return
    folder = Path(os.environ.get("TMPDIR", "/tmp"))
    with ExitStack() as stack:
        while True:
            for gpu in gpus:
                try:
                    # The system releases the lock of a killed process. All users may open it.
                    lock = FileLock(folder / f"cae-gpu-{gpu}.lock", timeout=0, mode=0o666)
                    stack.enter_context(lock)
                except Timeout:
                    continue
                os.environ["CUDA_VISIBLE_DEVICES"] = gpu
                yield
                return
            time.sleep(5)


def max_cpu_jobs() -> int:
    """Return how many jobs can run at once on the CPU: one for each core, if memory allows it."""
    # Of the whole machine, whether or not it is in use.
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(available_cores(), memory // BYTES_PER_JOB))


def shares_cpu() -> bool:
    """Return whether jobs compute side by side on the CPU of this machine, each on one core."""
    return not find_gpus() and "SLURM_JOB_ID" not in os.environ


def restart_with_one_thread() -> None:
    """Restart this script with `ONE_THREAD_ENVIRONMENT` if it shares the CPU with other jobs."""
    # glibc reads its tunables only when a process starts.
    if shares_cpu() and not ONE_THREAD_ENVIRONMENT.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | ONE_THREAD_ENVIRONMENT)
