"""Run the whole reproduction: `cae reproduce` calls `workflow/Snakefile` and reports progress."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cae_lab import grid, store
from cae_lab.estimates import SECONDS_PER_PAIR, SECONDS_PER_TABLE, Job, seconds_left
from cae_lab.machine import find_gpus, max_cpu_jobs
from cae_lab.names import DATA_RUN, GELU_CONTROLS
from cae_lab.profiles import load_profile, use_profile_home
from cae_lab.suites import suites_of
from cae_lib.config import paths, repository_root
from cae_lib.errors import CaeError, Terminated
from cae_lib.runtime import format_seconds

SNAKEMAKE_OPTIONS_VARIABLE = "CAE_SNAKEMAKE"
"""Name of the environment variable that holds further options of Snakemake."""

KEEP_MEMORY = ":".join(
    f"glibc.malloc.{name}={value}"
    for name, value in {
        "hugetlb": 1,
        "mmap_max": 0,
        "trim_threshold": 2**34,
        "top_pad": 2**30,
    }.items()
)
"""Value of `GLIBC_TUNABLES` for jobs: freed memory stays with the process, in large pages.

A training step frees and takes gigabytes. Where the system hands out every page anew, as on virtual
machines, this took a third of the time. The numbers do not change. Other systems ignore it.
"""

PAGE_SECONDS, BOOK_SECONDS = 15.0, 60.0
"""Expected times to execute a page and to render the book, on one core of a CPU."""


def reproduce_profile(config: Mapping[str, Any], executor: str) -> None:
    """Execute all jobs of a reproduction that are not done yet.

    It is safe to interrupt the call and to repeat it. For a rehearsal, the call sets `CAE_HOME`, as
    `use_profile_home` describes.

    Args:
        config: The Snakemake configuration with the keys `profile`, `all`, `rows`, `seeds` and
            `real`, which are the options of `cae reproduce`.
        executor: Where the jobs run: "local" or "slurm".

    Raises:
        CaeError: If there is no clone of the repository or no Snakemake, if another process
            reproduces the profile, or if a job fails. After a failure, the message quotes the end
            of a job's log.
        ConfigError: If the profile, a selected run or one of its settings is unknown.
        DataError: If real data or weights that training needs are missing or incomplete, or a file
            of any of the real data is malformed.
    """
    home, profile = repository_root(), load_profile(config["profile"])
    if home is None or find_spec("snakemake") is None:
        raise CaeError(
            "this needs a clone of the repository and Snakemake: pip install -e '.[book]'"
        )
    selection = grid.parse_selection(profile, config)
    use_profile_home(profile)
    if profile.is_real:
        from cae_lab.needs import check_real_data  # which imports PyTorch

        check_real_data(profile)
    folder = paths().runs / profile.name
    folder.mkdir(parents=True, exist_ok=True)
    runs = [folder / name / "done.json" for name in grid.planned_runs(selection)]
    pages = [folder / "pages" / page / "done.json" for page in grid.pages_of(selection)]
    if not profile.root.is_dir():  # removed since: build the datasets again
        (folder / "data" / "done.json").unlink(missing_ok=True)
    print(
        f"Runs start once the datasets and the base model are there. All logs lie below {folder}."
    )
    lock = folder / "controller.lock"
    try:
        with FileLock(lock, timeout=0):
            command = _snakemake_command(home, config, executor)
            jobs = expected_jobs(selection)
            n_parallel = None  # a scheduler decides
            if executor == "local":
                n_parallel = len(find_gpus()) or max_cpu_jobs()
            code = run_snakemake(command, folder / "snakemake.log", jobs, n_parallel)
    except Timeout as error:
        raise CaeError(
            f"profile {profile.name}: another call is running ({lock}); wait for it"
        ) from error
    outputs = [*runs, *pages, *([folder / "book" / "done.json"] if pages else [])]
    if code:
        raise CaeError(
            f"{_describe_unfinished(folder, outputs)}\nThe log of Snakemake is "
            f"{folder / 'snakemake.log'}. The same command resumes the work."
        )
    if pages:
        print((folder / "book" / "log.txt").read_text(encoding="utf-8").splitlines()[-1])
    if pages and not selection.studies:
        print("The studies beside the paper are left as they were; `cae reproduce --all` does them")


def _describe_unfinished(folder: Path, outputs: Sequence[Path]) -> str:
    """Describe how many jobs are not done, and quote the end of the first log of such a job.

    If no such job has a log, only the number is given. Each run and seed counts as a job, even if
    one job of Snakemake executes several of them.

    Args:
        folder: Folder of the profile's jobs.
        outputs: Files `done.json` that the jobs write. Those of the two jobs that make the datasets
            and the base model are added.
    """
    first = [folder / "data" / "done.json", folder / "base" / "done.json"]
    unfinished = [path for path in (*first, *outputs) if not path.is_file()]
    text = f"{len(unfinished)} of {len(outputs) + 2} jobs are not done."
    for path in unfinished:
        for log in (path.with_name("log.txt"), path.parents[1] / "log.txt"):
            if log.is_file():
                lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
                return "\n".join([f"{text} {log} ends:", *lines[-5:]])
    return text


def _snakemake_command(home: Path, config: Mapping[str, Any], executor: str) -> list[str]:
    """Return the command line of Snakemake as a list of words.

    Snakemake's own lock is disabled because it remains when Snakemake is killed. The file lock that
    `reproduce_profile` takes replaces it. The options in `SNAKEMAKE_OPTIONS_VARIABLE` come last.

    Args:
        home: Root of the repository.
        config: Configuration entries that are passed on; empty ones are left out.
        executor: Where the jobs run: "local" or "slurm".
    """
    workflow, gpus = home / "workflow", find_gpus()
    profile = workflow / "profiles" / ("slurm" if executor == "slurm" else "default")
    words = ["--snakefile", workflow / "Snakefile", "--workflow-profile", profile, "--nolock"]
    if executor == "local":
        words += ["--resources", f"gpu={len(gpus)}"] if gpus else ["--cores", max_cpu_jobs()]
    entries = [f"{key}={value}" for key, value in config.items() if value not in (None, "", False)]
    options = shlex.split(os.environ.get(SNAKEMAKE_OPTIONS_VARIABLE, ""))
    return [sys.executable, "-m", "snakemake", *map(str, [*words, "--config", *entries]), *options]


def run_snakemake(
    command: list[str], log: Path, jobs: Mapping[Path, Job], n_parallel: int | None
) -> int:
    """Run Snakemake, redirect its messages to a log, and report progress.

    Args:
        command: The command line.
        log: File to which the messages are appended. Snakemake is started in its folder.
        jobs: The jobs, by the file that each writes when it is done; see `expected_jobs`.
        n_parallel: How many jobs run side by side; None if it is not known.

    Returns:
        The exit code of Snakemake.

    Raises:
        KeyboardInterrupt: After Ctrl-C or SIGTERM, as soon as Snakemake has ended.
    """
    environment = {"GLIBC_TUNABLES": KEEP_MEMORY} | os.environ
    environment["PYTHONPATH"] = str(repository_root())
    with log.open("a", encoding="utf-8") as file:
        process = subprocess.Popen(
            command, env=environment, stdout=file, stderr=file, cwd=log.parent
        )
    reporter = threading.Thread(
        target=_print_progress, args=(process.poll, jobs, n_parallel), daemon=True
    )
    reporter.start()
    try:
        code = process.wait()
    except KeyboardInterrupt as interrupt:  # Ctrl-C reached Snakemake and its jobs, too
        if isinstance(interrupt, Terminated):
            _terminate_snakemake(process)
        process.wait()  # its jobs save their state
        raise
    reporter.join()
    return code


def _terminate_snakemake(process: subprocess.Popen) -> None:
    """Stop Snakemake and its jobs, as Ctrl-C does.

    Snakemake gets SIGINT, after which it starts no further job but waits for the running ones. Its
    jobs on this machine get SIGTERM, so that they save their state and end.
    """
    import psutil  # which Snakemake needs

    with suppress(psutil.NoSuchProcess):
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        for child in children:
            with suppress(psutil.NoSuchProcess):
                if any(word.endswith("workflow/job.py") for word in child.cmdline()[1:2]):
                    child.terminate()


def expected_jobs(selection: grid.Selection) -> dict[Path, Job]:
    """Return the jobs of a reproduction with the duration that is expected of each.

    The datasets and the base model, which come first, are left out. A run takes the time of its
    training, and for each of its suites in `SUITES` the median time that is stored for the suite.

    Args:
        selection: Part of the profile that is reproduced.

    Returns:
        The jobs by the file `done.json` that each of them writes.
    """
    profile = selection.profile
    folder = paths().runs / profile.name
    stored = store.provenance_table(profile).groupby("suite")["wall_seconds"].median()
    jobs: dict[Path, Job] = {}
    for name, run in grid.planned_runs(selection).items():
        suites = [DATA_RUN]
        if run.entry != DATA_RUN:
            suites = [each.name for each in suites_of(run, with_studies=selection.studies)]
        measuring = sum(float(stored.get(suite, SECONDS_PER_TABLE)) for suite in suites)
        is_control = run.entry in GELU_CONTROLS  # of weights that another run trains
        pairs = 0 if is_control else run.config.steps * run.config.batch_size
        is_run = run.is_trained_here or run.is_external
        kind = "run" if is_run else GELU_CONTROLS.get(run.entry, run.entry)
        seconds = pairs * SECONDS_PER_PAIR + (measuring or SECONDS_PER_TABLE)
        jobs[folder / name / "done.json"] = Job(kind, seconds)
    pages = grid.pages_of(selection)
    for page in pages:
        jobs[folder / "pages" / page / "done.json"] = Job("page", PAGE_SECONDS)
    if pages:
        jobs[folder / "book" / "done.json"] = Job("book", BOOK_SECONDS)
    return jobs


def _print_progress(
    poll: Callable[[], int | None],
    jobs: Mapping[Path, Job],
    n_parallel: int | None,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Print the number of finished runs, and the time left, whenever a run finishes.

    Args:
        poll: Function that returns the exit code of the process, or None while it runs.
        jobs: The jobs, by the file that each writes when it is done.
        n_parallel: How many jobs run side by side; None if it is not known, and then no time is
            printed.
        sleep: Function that waits for a number of seconds.
    """
    n_printed = -1
    runs = [output for output, job in jobs.items() if job.kind not in ("page", "book")]
    while True:
        has_ended = poll() is not None
        n_done = sum(path.is_file() for path in runs)
        if n_done != n_printed:
            line = f"{n_done} of {len(runs)} runs done"
            states = [job._replace(seconds=_seconds_of(path)) for path, job in jobs.items()]
            left = seconds_left(states, n_parallel) if n_parallel else None
            if left and not has_ended:
                line += f", about {format_seconds(round(left, -1))} left"
            if n_done == len(runs) < len(jobs) and not has_ended:
                line += "; pages and book follow"
            print(line, flush=True)
            n_printed = n_done
        if has_ended:
            return
        sleep(1)


def _seconds_of(output: Path) -> float | None:
    """Return how long a job took, from the file that it has written; None if it is not done."""
    try:
        return json.loads(output.read_text(encoding="utf-8"))["seconds"]
    except (OSError, ValueError, LookupError):
        return None
