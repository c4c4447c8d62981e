"""The grid by Snakemake: on one machine with any number of GPUs, or on a Slurm cluster. What is
done is a stamp, never the weights: a training that was ended goes on, and one that is complete is
found again, whatever happened to the process that watched over it."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from cae_lib.commands.jobs import cpu_workers
from cae_lib.commands.options import GRID, PROFILE, allowed, chosen, grid_words, option, takes
from cae_lib.commands.plan import hours
from cae_lib.commands.stamps import folder, key_of, stamp_path, state_of
from cae_lib.config import repository
from cae_lib.errors import CaeError, ConfigError, Terminated
from cae_lib.grid import Choice, Job, grid
from cae_lib.runtime import format_seconds, write_atomic

HOME = Path(__file__).resolve().parents[2]
"""The clone that this package lies in."""

OPTIONS = "CAE_SNAKEMAKE"
"""Environment variable with further options of Snakemake, which go before those of the profile."""


@takes(option("name", metavar="STAGE/NAME", help="such as run/clip-ft/0"), PROFILE, *GRID)
def run_job(parsed: argparse.Namespace) -> None:
    """`cae job`: do one job of a grid, on a GPU of its own where there are several; stamp it."""
    from cae_lib.commands.perform import perform

    choice = chosen(parsed)
    jobs = grid(parsed.profile, choice)
    if parsed.name not in jobs:
        raise ConfigError(f"no job {parsed.name!r} in the grid of {parsed.profile}; `cae plan` "
                          f"counts them: {', '.join(jobs)}")
    start = time.monotonic()
    with allowed(parsed), own_gpu():
        perform(parsed.profile, choice, parsed.name, jobs[parsed.name])
    key = key_of(parsed.profile, grid(parsed.profile, choice)[parsed.name])
    took = f"{key} {time.monotonic() - start:.1f}"
    write_atomic(stamp_path(parsed.profile, parsed.name), took)


@contextmanager
def own_gpu() -> Iterator[None]:
    """Take a GPU of this machine that no other job of this user has, by a lock that ends with the
    process, before PyTorch looks for one. With one GPU or none, or where a scheduler has given one,
    nothing is done."""
    found = gpus()
    if len(found) < 2:
        yield
        return
    places = Path(os.environ.get("TMPDIR", "/tmp"))
    with ExitStack() as stack:
        while True:
            for gpu in found:
                try:
                    lock = places / f"cae-{getpass.getuser()}-gpu-{gpu}.lock"
                    stack.enter_context(FileLock(lock, timeout=0))
                except Timeout:
                    continue
                os.environ["CUDA_VISIBLE_DEVICES"] = gpu
                yield
                return
            time.sleep(5)


def gpus() -> list[str]:
    """The GPUs that this process may use, by number or name."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name]
    if not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout
    return [str(number) for number, _ in enumerate(listed.splitlines())]


def run_workflow(profile_name: str, choice: Choice, engine: str, allow_missing: str) -> None:
    """Go through a grid by Snakemake with the profile `workflow/profiles/ENGINE`, one controller at
    a time. CaeError if a job failed, with the place of its log; the same command goes on."""
    if repository() is None or shutil.which("snakemake", path=_path()) is None:
        raise CaeError("this needs a clone of the repository and Snakemake: pip install -e "
                       '".[cluster]"')
    work = folder(profile_name)
    work.mkdir(parents=True, exist_ok=True)
    jobs = grid(profile_name, choice)
    words = command(profile_name, choice, engine, allow_missing)
    try:
        with FileLock(work / "controller.lock", timeout=0):
            for label, job in jobs.items():
                if state_of(profile_name, label, job) == "stale":
                    stamp_path(profile_name, label).unlink()
            code = _snakemake(profile_name, words, environment(engine), jobs)
    except Timeout as error:
        raise CaeError(f"another controller is at work on the profile {profile_name} "
                       f"({work / 'controller.lock'}); wait for it") from error
    if code:
        open_ = [label for label in jobs if state_of(profile_name, label, jobs[label]) != "done"]
        raise CaeError(
            f"{len(open_)} of {len(jobs)} jobs are not done, the first is {open_[0]}. Their logs "
            f"are in {work / 'logs'}, the scheduler's is {work / 'controller.log'}. The same "
            "command goes on."
        )


def _path() -> str:
    """Where programs are looked for: beside this interpreter first."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def command(profile_name: str, choice: Choice, engine: str, allow_missing: str) -> list[str]:
    """Snakemake with the grid of a choice and the profile of an engine."""
    place = HOME / "workflow"
    options = ["--profile", profile_name, *grid_words(choice)]
    options += ["--allow-missing", allow_missing] if allow_missing else []
    words = ["snakemake", "--snakefile", place / "Snakefile", "--workflow-profile",
             place / "profiles" / engine, "--directory", folder(profile_name), "--nolock",
             "--config", f"options={json.dumps(options)}"]
    if engine == "local" and (found := gpus()):
        words += ["--resources", f"gpu={len(found)}"]
    elif engine == "local":  # as the processes of a laptop: one a core, with one thread each
        words += ["--cores", cpu_workers()]
    return [*map(str, words), *shlex.split(os.environ.get(OPTIONS, ""))]


def environment(engine: str) -> dict[str, str]:
    """The environment of Snakemake and of its jobs, which find this package's own command."""
    found = os.environ | {"PATH": _path(), "PYTHONPATH": str(HOME)}
    return found | ({"OMP_NUM_THREADS": "1"} if engine == "local" and not gpus() else {})


def _snakemake(profile_name: str, words: list[str], environment: Mapping[str, str],
               jobs: Mapping[str, Job]) -> int:
    """Run Snakemake, whose own words go to a log, and say how far it is; returns its exit code."""
    with open(folder(profile_name) / "controller.log", "a", encoding="utf-8") as log:
        process = subprocess.Popen(words, env=environment, stdout=log, stderr=log)
    watcher = threading.Thread(target=_watch, args=(profile_name, jobs, process), daemon=True)
    watcher.start()
    try:
        code = process.wait()
    except KeyboardInterrupt as interrupt:  # Ctrl-C reached Snakemake and its jobs, too
        if isinstance(interrupt, Terminated):
            _interrupt(process)
        process.wait()  # its jobs save their state
        raise
    watcher.join()
    return code


def _interrupt(process: subprocess.Popen) -> None:
    """Do to Snakemake what Ctrl-C does: it starts no further job. It waits for those on this
    machine, so they get SIGTERM."""
    import psutil  # which Snakemake needs

    with suppress(psutil.NoSuchProcess):
        jobs = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        for job in jobs:
            with suppress(psutil.NoSuchProcess):
                if job.name() == "cae":
                    job.terminate()


def _watch(profile_name: str, jobs: Mapping[str, Job], process: subprocess.Popen) -> None:
    """Say how many jobs are done whenever it changes, and how long the others may take."""
    table = hours(profile_name, jobs).set_index("job")["hours"].reindex(jobs).fillna(0.01)
    told, before, start = -1, None, time.monotonic()
    while True:
        ended = process.poll() is not None
        done = [label for label in jobs if stamp_path(profile_name, label).is_file()]
        work = table[done].sum()
        before = work if before is None else before
        if len(done) != told:
            told, line = len(done), f"{len(done)} of {len(jobs)} jobs done"
            if work > before:
                left = (time.monotonic() - start) / (work - before) * (table.sum() - work)
                line += f", about {format_seconds(left)} left"
            print(line, flush=True)
        if ended:
            return
        time.sleep(1)
