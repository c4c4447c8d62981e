"""One job of the Snakefile: `python workflow/job.py CONFIG RULE NAME ...`, where CONFIG is the
configuration of Snakemake as JSON. For each name a file done.json says that it was done."""

from __future__ import annotations

import getpass
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from cae_lib import grid
from cae_lib.cli import guarded
from cae_lib.commands.reproduce import find_gpus, incomplete, require_data
from cae_lib.grid import Choice
from cae_lib.profiles import experiment, find_profile
from cae_lib.runtime import environment_info, write_atomic
from cae_lib.variants import BASE, TUNED, base_variants


def data(profile: str, choice: Choice, real: str) -> None:
    """Build the datasets, or see that they are here; parse the training captions once, before
    several processes need them. In a rehearsal the files of a folder `real` replace drawn ones."""
    from rehearsal import lay_out

    from cae_lib.commands.base import build_sets
    from cae_lib.data.training_set import training_set

    if find_profile(profile).drawn:
        lay_out(profile, Path(real) if real else None)
    elif find_profile(profile).real:
        require_data(profile)
    else:
        build_sets(profile)
    for name, tagger in grid.captions_of(profile, choice):
        training_set(profile, name, experiment(TUNED, profile).model, tagger)


def base(profile: str, choice: Choice, _: str) -> None:
    """Train the base model where none is shipped, and for the studies those of fewer steps."""
    from cae_lib.commands.base import train_base
    from cae_lib.runs import checkpoint_path

    if find_profile(profile).real:
        return
    if not checkpoint_path(BASE, profile).is_file():
        train_base(profile)
    for steps in find_profile(profile).earlier_bases if choice.studies else ():
        train_base(profile, steps=steps)


def run(profile: str, choice: Choice, name: str) -> None:
    """Train and measure a run; with the base model and CLIP-FT their controls for the studies."""
    from cae_lib.measuring import measure_data, measure_run
    from cae_lib.runs import train_run

    (row, settings, _), seed, suites = grid.runs(profile, choice)[name]
    without = () if choice.studies else grid.OF_STUDIES
    if row == grid.DATA_RUN:
        measure_data(profile, True)
        return
    if row != BASE:
        train_run(row, profile, seed, **settings)
    measure_run(row, profile, seed, True, suites, without, **settings)
    if choice.studies and row in (BASE, TUNED) and not settings:
        measure_run(f"{row}-gelu", profile, seed, True)
    if choice.studies and row == BASE:
        for variant in base_variants(profile):
            if variant.run == BASE:
                measure_run(BASE, profile, 0, True, grid.STUDY_SUITES, **variant.settings)


def page(profile: str, choice: Choice, name: str) -> None:
    """Execute a page: one of the book, or of the copy of the book that the profile has."""
    from cae_lib.pages.run import run_page
    from cae_lib.pages.source import experiments_folder, page_parameters, read_page

    if find_profile(profile).own_book is None or name == grid.RELEASED_PAGE:
        run_page(name)
        return
    known = page_parameters(read_page(experiments_folder() / f"{name}.md"), name)
    seeds = {"seeds": str(grid.seeds_of(profile, choice))} if "seeds" in known else {}
    run_page(name, seeds, profile)


def book(profile: str, choice: Choice, _: str) -> None:
    """Render the book from the executed pages."""
    from cae_lib.pages.build import build_book

    print(f"The book is {build_book(profile)}")


ONE_CORE: Mapping[str, str] = {
    "OMP_NUM_THREADS": "1",
    "THP_MEM_ALLOC_ENABLE": "1",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=4294967296:"
    "glibc.malloc.trim_threshold=4294967296",
}
"""Environment of a job on one core of a CPU. Small models gain little from a second thread, and
sums on one thread have one order. The rest lets torch and glibc take tensors from huge pages and
keep them: a tenth of a perturbation step's time."""

RULES: Mapping[str, Callable[[str, Choice, str], None]] = {
    "data": data,
    "base": base,
    "run": run,
    "page": page,
    "book": book,
}


@contextmanager
def own_gpu() -> Iterator[None]:
    """Take a GPU of this machine that no other job of this user has, by a lock that ends with the
    process, before PyTorch looks for one. With one GPU or none, or where a scheduler has given one,
    nothing is done."""
    found = find_gpus()
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


def main(words: list[str]) -> None:
    """Do a job, name by name, and write how long each took and on what machine."""
    text, rule, *names = words
    config = json.loads(text)
    profile = config.get("profile", "mini")
    choice = grid.choice(profile, config)
    with incomplete(config), own_gpu():
        for name in names:
            start = time.monotonic()
            RULES[rule](profile, choice, config.get("real", "") if rule == "data" else name)
            told = {"seconds": round(time.monotonic() - start, 1), **environment_info(profile)}
            folder = Path("pages" if rule == "page" else "", name).absolute()
            write_atomic(folder / "done.json", json.dumps(told, indent=1) + "\n")


def on_one_core() -> bool:
    """Whether this process has a core of its own and no more: on a machine without GPU where no
    scheduler has given it cores, since as many jobs run side by side as there are cores."""
    return not find_gpus() and "SLURM_JOB_ID" not in os.environ


if __name__ == "__main__":
    if on_one_core() and not ONE_CORE.items() <= os.environ.items():  # read when a process starts
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | ONE_CORE)
    sys.exit(guarded(lambda: main(sys.argv[1:]), "make reproduce"))
