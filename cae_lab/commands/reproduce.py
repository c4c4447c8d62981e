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
from cae_lab.estimates import (
    LARGE_RUN,
    SECONDS_PER_PAIR,
    SECONDS_PER_TABLE,
    SMALL_MODELS,
    Job,
    seconds_left,
)
from cae_lab.machine import find_gpus, max_cpu_jobs
from cae_lab.names import DATA_RUN, GELU_CONTROLS
from cae_lab.profiles import load_profile, use_profile_home
from cae_lab.required_data import check_real_data
from cae_lab.suites import suites_of
from cae_lib.config import paths, repository_root
from cae_lib.errors import CaeError, Terminated
from cae_lib.runtime import format_seconds

SNAKEMAKE_OPTIONS_VARIABLE = "CAE_SNAKEMAKE"  # environment variable with options of Snakemake

# `GLIBC_TUNABLES` of jobs: freed memory stays with the process, in large pages. A training step
# frees and takes gigabytes; where the system hands out every page anew, as on virtual machines,
# this took a third of the time. The numbers do not change, and other systems ignore it.
KEEP_MEMORY = ":".join(
    f"glibc.malloc.{name}={value}"
    for name, value in {
        "hugetlb": 1,
        "mmap_max": 0,
        "trim_threshold": 2**34,
        "top_pad": 2**30,
    }.items()
)

# Expected times to execute a page and to render the book, on one core of a CPU.
PAGE_SECONDS, BOOK_SECONDS = 15.0, 60.0


def reproduce_profile(config: Mapping[str, Any], executor: str) -> None:
    """Execute all jobs of a reproduction that are not done yet.

    `config` has the options of `cae reproduce`. If a job fails, the CaeError quotes the end of a
    log.
    """
    home, profile = repository_root(), load_profile(config["profile"])
    if home is None or find_spec("snakemake") is None:
        raise CaeError(
            "this needs a clone of the repository and Snakemake: pip install -e '.[book]'"
        )
    selection = grid.parse_selection(profile, config)
    use_profile_home(profile)  # before the first use of `paths()` below
    if profile.is_real:
        check_real_data(profile)
    folder = paths().runs / profile.name
    folder.mkdir(parents=True, exist_ok=True)
    planned = grid.planned_runs(selection)
    runs = [folder / name / "done.json" for name in planned]
    words = {folder / name / "done.json" for run in planned.values() for name in grid.words_of(run)}
    pages = [folder / "pages" / page / "done.json" for page in grid.pages_of(selection)]
    # Snakemake sees only done.json: datasets that were removed since have to be built again.
    if not profile.root.is_dir():
        (folder / "data" / "done.json").unlink(missing_ok=True)
    print(
        f"Runs start once the datasets and the base model are there. All logs lie below {folder}."
    )
    lock = folder / "controller.lock"
    # The system releases the lock of a killed process, which Snakemake's own lock would survive.
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
    outputs = [*sorted(words), *runs, *pages, *([folder / "book" / "done.json"] if pages else [])]
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
    """Say how many jobs lack their file `done.json`, and quote the end of the first log of them."""
    first = [folder / "data" / "done.json", folder / "base" / "done.json"]
    unfinished = [path for path in (*first, *outputs) if not path.is_file()]
    text = f"{len(unfinished)} of {len(outputs) + 2} jobs are not done."
    for path in unfinished:
        # A job that executes all seeds of a run has its log one folder above.
        for log in (path.with_name("log.txt"), path.parents[1] / "log.txt"):
            if log.is_file():
                lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
                return "\n".join([f"{text} {log} ends:", *lines[-5:]])
    return text


def _snakemake_command(home: Path, config: Mapping[str, Any], executor: str) -> list[str]:
    """Return the command line of Snakemake; `SNAKEMAKE_OPTIONS_VARIABLE` comes last."""
    workflow, gpus = home / "workflow", find_gpus()
    profile = workflow / "profiles" / ("slurm" if executor == "slurm" else "default")
    # --nolock: its lock would remain when it is killed. `reproduce_profile` takes one instead.
    words = ["--snakefile", workflow / "Snakefile", "--workflow-profile", profile, "--nolock"]
    if executor == "local":
        words += ["--resources", f"gpu={len(gpus)}"] if gpus else ["--cores", max_cpu_jobs()]
    entries = [f"{key}={value}" for key, value in config.items() if value not in (None, "", False)]
    options = shlex.split(os.environ.get(SNAKEMAKE_OPTIONS_VARIABLE, ""))
    return [sys.executable, "-m", "snakemake", *map(str, [*words, "--config", *entries]), *options]


def run_snakemake(
    command: list[str], log: Path, jobs: Mapping[Path, Job], n_parallel: int | None
) -> int:
    """Run Snakemake in the folder of its log, report progress, and return its exit code."""
    # Tunables that the user has set take precedence.
    environment = {"GLIBC_TUNABLES": KEEP_MEMORY} | os.environ
    folders = (str(repository_root()), os.environ.get("PYTHONPATH"))
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, folders))
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
    except KeyboardInterrupt as interrupt:
        # Ctrl-C reached Snakemake and its jobs, too; SIGTERM perhaps this process alone.
        if isinstance(interrupt, Terminated):
            _terminate_snakemake(process)
        process.wait()  # its jobs save their state
        raise
    reporter.join()
    return code


def _terminate_snakemake(process: subprocess.Popen) -> None:
    """Stop Snakemake and its jobs, as Ctrl-C does."""
    import psutil  # which Snakemake needs

    with suppress(psutil.NoSuchProcess):
        # Listed first, because the jobs leave this tree of processes when Snakemake ends.
        children = psutil.Process(process.pid).children(recursive=True)
        # After SIGINT it starts no further job but waits for the running ones.
        process.send_signal(signal.SIGINT)
        for child in children:
            with suppress(psutil.NoSuchProcess):
                # Only the jobs, which save their state on SIGTERM, and not the shells around them.
                if any(word.endswith("workflow/job.py") for word in child.cmdline()[1:2]):
                    child.terminate()


def expected_jobs(selection: grid.Selection) -> dict[Path, Job]:
    """Return the jobs with their expected durations, by the file `done.json` that each writes."""
    profile = selection.profile
    folder = paths().runs / profile.name
    # data/0 and base/0 are measurements. The jobs that make the datasets and the base model, which
    # come first, are left out.
    stored = store.provenance_table(profile).groupby("suite")["wall_seconds"].median()
    jobs: dict[Path, Job] = {}
    for name, run in grid.planned_runs(selection).items():
        suites = [DATA_RUN]
        if run.entry != DATA_RUN:
            suites = [each.name for each in suites_of(run, with_studies=selection.studies)]
        measuring = sum(float(stored.get(suite, SECONDS_PER_TABLE)) for suite in suites)
        # A control has the weights that another run trains.
        is_control = run.entry in GELU_CONTROLS
        pairs = 0 if is_control else run.config.steps * run.config.batch_size
        is_run = run.is_trained_here or run.is_external
        kind = "run" if is_run else GELU_CONTROLS.get(run.entry, run.entry)
        if run.is_trained_here and run.config.model not in SMALL_MODELS:
            kind = LARGE_RUN
        output = folder / name / "done.json"
        # A resumed reproduction finds the run trained, and measures it.
        if not output.is_file() and run.is_trained_here and run.path.is_file():
            pairs = 0
        training = pairs * SECONDS_PER_PAIR
        expected = training + (measuring or SECONDS_PER_TABLE)
        jobs[output] = Job(kind, expected, training=training)
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
    """Print how many runs and pages are finished, and the time left, whenever one finishes.

    `poll` returns None while the process runs. Without `n_parallel`, no time is printed.
    """
    printed = None
    runs = {output for output, job in jobs.items() if job.kind not in ("page", "book")}
    pages = {output for output, job in jobs.items() if job.kind == "page"}
    before = {path: _time_written(path) for path in jobs}
    while True:
        # Asked before the files are counted, so that the last count is complete.
        has_ended = poll() is not None
        done = {path for path in jobs if _time_written(path)}
        new = {path for path in done if _time_written(path) != before[path]}
        n_done = len(done & runs)
        # After a run of this call, pages of an earlier one are drawn anew.
        if not has_ended and (n_done < len(runs) or new & runs):
            done = done & runs | new
        n_pages = len(done & pages)
        if (n_done, n_pages) != printed:
            line = f"{n_done} of {len(runs)} runs done"
            if n_pages:
                line = f"{n_done} of {len(runs)} runs and {n_pages} of {len(pages)} pages done"
            states = [
                _with_duration(job, path) if path in done else job for path, job in jobs.items()
            ]
            left = seconds_left(states, n_parallel) if n_parallel else None
            if left and not has_ended:
                line += f", about {format_seconds(round(left, -1))} left"
            if n_done == len(runs) < len(jobs) and not n_pages and not has_ended:
                line += "; pages and book follow"
            print(line, flush=True)
            printed = n_done, n_pages
        if has_ended:
            return
        sleep(1)


def _time_written(path: Path) -> float:
    """Return when a file was written, in seconds as `time.time`; 0.0 if it is gone."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _with_duration(job: Job, output: Path) -> Job:
    """Return a job with the seconds that it took, from the file that it has written, if any."""
    try:
        record = json.loads(output.read_text(encoding="utf-8"))
        seconds = record["seconds"]
    except (OSError, ValueError, LookupError):
        return job
    # A job that found its run trained says how long measuring takes, and nothing about trainings;
    # one that found everything done says nothing.
    if not record.get("trained", True):
        is_measured = record.get("measured", True)
        job = job._replace(expected=job.expected - job.training if is_measured else 0.0)
    return job._replace(seconds=seconds)
