"""`cae reproduce`: calls Snakemake on `workflow/Snakefile`, and says how far it is."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cae_lib import grid
from cae_lib.commands.options import ON, PROFILE, REPRODUCED, add_arguments, allow
from cae_lib.config import paths, repository, shipped
from cae_lib.errors import CaeError, Terminated
from cae_lib.keys import digest
from cae_lib.profiles import enter_home, find_profile
from cae_lib.runtime import file_hash, format_seconds

OPTIONS = "CAE_SNAKEMAKE"
"""Environment variable with further options of Snakemake."""

JOB_BYTES = 5_300_000_000
"""What a job on a CPU may take of the memory (mini: 5.2 GB)."""


@add_arguments(PROFILE, *REPRODUCED, ON)
def run(parsed: argparse.Namespace) -> None:
    """Do all that is not done yet; safe to interrupt and repeat."""
    home = repository()
    if home is None or shutil.which("snakemake", path=search_path()) is None:
        raise CaeError(
            'this needs a clone of the repository and Snakemake: pip install -e ".[book]"'
        )
    config = {
        "profile": parsed.profile,
        "all": parsed.all,
        "rows": parsed.rows,
        "seeds": parsed.seeds,
        "allow_missing": parsed.allow_missing,
        "real": parsed.real and parsed.real.resolve(),
    }
    choice = grid.choice(parsed.profile, config)
    enter_home(parsed.profile)
    folder = runs_folder(parsed.profile)
    runs = [folder / name / "done.json" for name in grid.runs(parsed.profile, choice)]
    pages = [
        folder / "pages" / name / "done.json" for name in grid.pages_of(parsed.profile, choice)
    ]
    with incomplete(config):
        require_data(parsed.profile)
    words = command(home, config, parsed.on)
    lock = folder / "controller.lock"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock, timeout=0):
            code = run_snakemake(words, folder / "snakemake.log", runs, not pages)
    except Timeout as error:
        raise CaeError(
            f"another call is at work on the profile {parsed.profile} ({lock}); wait for it"
        ) from error
    if code:
        jobs = [
            folder / "data" / "done.json",
            folder / "base" / "done.json",
            *runs,
            *pages,
            *[folder / "book" / "done.json"] * bool(pages),
        ]
        left = [path.parent for path in jobs if not path.is_file()]
        raise CaeError(
            f"{len(left)} of {len(jobs)} jobs are not done{last_words(left)}\nThe log "
            f"of Snakemake is {folder / 'snakemake.log'}. The same command goes on."
        )
    tell_the_rest(parsed.profile, choice)


def runs_folder(profile_name: str) -> Path:
    """Return the folder where Snakemake works on a profile."""
    return paths().runs / profile_name


def last_words(jobs: Sequence[Path]) -> str:
    """Return which of some jobs that are not done is the first, and how its log ends."""
    begun = [job / "log.txt" for job in jobs if (job / "log.txt").is_file()]
    if not begun:
        return "."
    lines = begun[0].read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f", first of them {begun[0].parent}; its log.txt ends:\n" + "\n".join(lines[-5:])


def search_path() -> str:
    """Return where programs are looked for: beside this interpreter first."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def incomplete(config: Mapping[str, Any]) -> AbstractContextManager[None]:
    """Let datasets be incomplete: those that a configuration names, or all of a profile that says
    so. ConfigError for an unknown one, or where datasets are built whole."""
    profile = config.get("profile", "mini")
    everything = "all" if find_profile(profile).incomplete else ""
    return allow(profile, str(config.get("allow_missing") or everything))


def require_data(profile_name: str) -> None:
    """Say what may be missing of real data; DataError, which says how to get it, for the rest."""
    if find_profile(profile_name).real and not find_profile(profile_name).drawn:
        from cae_lib.data import needs
        from cae_lib.runs import wanted

        for line in needs.raise_if_missing(needs.check_sources(wanted(profile_name))):
            print(line, flush=True)


def data_key(profile_name: str, choice: grid.Choice) -> str:
    """Return a digest of what the datasets are made from, and of how their captions are parsed; of
    real ones of what is here and what is missing."""
    captions, profile = grid.captions_of(profile_name, choice), find_profile(profile_name)
    if profile.drawn or profile.photographs:
        return digest(captions)
    if profile.real:
        from cae_lib.data.needs import check_sources, sources_digest
        from cae_lib.runs import wanted

        names = wanted(profile_name)
        return digest(captions, sources_digest(check_sources(names), names))
    from cae_lib.world.config import world_config

    return digest(captions, world_config(profile_name).key())


def base_key(profile_name: str, choice: grid.Choice) -> str:
    """Return a digest of the weights that runs start from, or of what they are trained with."""
    profile = find_profile(profile_name)
    weights = shipped(f"data/{profile.training.get('weights')}")
    known = file_hash(weights) if weights.is_file() and profile.recorded else ""
    earlier = profile.earlier_bases if choice.studies else ()
    return digest(profile.base, profile.training.get("weights"), known, earlier)


def find_gpus() -> list[str]:
    """Return the GPUs that this process may use, by number or name."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name]
    if not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout
    return [str(number) for number, _ in enumerate(listed.splitlines())]


def count_cores() -> int:
    """Return the number of jobs side by side on a CPU: one a core, as far as the memory goes."""
    linux = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if linux else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(cores, memory // JOB_BYTES))


def command(home: Path, config: Mapping[str, Any], engine: str) -> list[str]:
    """Return the words that call Snakemake. Its own lock stays behind when it is killed, so a file
    lock, which does not, takes the lock's place."""
    place = home / "workflow"
    profile = "slurm" if engine == "slurm" else "default"
    words: list[Any] = [
        "snakemake",
        "--snakefile",
        place / "Snakefile",
        "--workflow-profile",
        place / "profiles" / profile,
        "--nolock",
    ]
    if engine == "local":
        found = find_gpus()
        words += ["--resources", f"gpu={len(found)}"] if found else ["--cores", count_cores()]
    given = [f"{key}={value}" for key, value in config.items() if value not in (None, "", False)]
    return [*map(str, [*words, "--config", *given]), *shlex.split(os.environ.get(OPTIONS, ""))]


def run_snakemake(words: list[str], log: Path, runs: Sequence[Path], alone: bool) -> int:
    """Run Snakemake, whose own words go to a log, and say how far it is; returns its exit code.
    `alone`: no pages follow the runs."""
    environment = os.environ | {"PATH": search_path(), "PYTHONPATH": str(repository())}
    with log.open("a", encoding="utf-8") as file:
        process = subprocess.Popen(words, env=environment, stdout=file, stderr=file, cwd=log.parent)
    watcher = threading.Thread(target=watch, args=(process.poll, runs, alone), daemon=True)
    watcher.start()
    try:
        code = process.wait()
    except KeyboardInterrupt as interrupt:  # Ctrl-C reached Snakemake and its jobs, too
        if isinstance(interrupt, Terminated):
            terminate(process)
        process.wait()  # its jobs save their state
        raise
    watcher.join()
    return code


def terminate(process: subprocess.Popen) -> None:
    """Do to Snakemake what Ctrl-C does: it starts no further job. It waits for those on this
    machine, so they get SIGTERM."""
    import psutil  # which Snakemake needs

    with suppress(psutil.NoSuchProcess):
        jobs = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        for job in jobs:
            with suppress(psutil.NoSuchProcess):
                if any(word.endswith("workflow/job.py") for word in job.cmdline()[1:2]):
                    job.terminate()


def watch(
    code: Callable[[], int | None],
    runs: Sequence[Path],
    alone: bool = False,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Say how many runs are done whenever it changes, and how long the others may take if each
    takes as long as those that were done meanwhile; until there is an exit `code`."""
    told, first, start = -1, None, time.monotonic()
    while True:
        ended = code() is not None
        done = sum(path.is_file() for path in runs)
        if done != told:
            line = f"{done} of {len(runs)} runs done"
            if first is not None and first < done < len(runs):
                each = (time.monotonic() - start) / (done - first)
                line += f", about {format_seconds(each * (len(runs) - done))} left"
            elif done == len(runs) and not (ended or alone):
                line += "; pages and book follow"
            print(line, flush=True)
            if first is None or done < first:
                first, start = done, time.monotonic()
            told = done
        if ended:
            return
        wait(1)


def tell_the_rest(profile_name: str, choice: grid.Choice) -> None:
    """Say what belongs to the studies and was left as it was; and where the book is."""
    known = find_profile(profile_name)
    if choice.rows:
        return
    if not (choice.studies or known.real):
        rows = sorted(known.runs.keys() - {row.run for row in grid.rows_of(profile_name, choice)})
        print(
            f"Left as they were, for `cae reproduce --all`: pages {', '.join(grid.STUDY_PAGES)}; "
            f"rows {', '.join(rows)}; tables {', '.join(grid.OF_STUDIES)}"
        )
    log = runs_folder(profile_name) / "book" / "log.txt"
    if log.is_file():
        print(log.read_text(encoding="utf-8").splitlines()[-1])
