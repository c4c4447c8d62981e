"""Do one job of the Snakefile: `python workflow/job.py CONFIG RULE OUTPUT ...`.

CONFIG is the Snakemake configuration as JSON. Each OUTPUT is the file NAME/done.json of a run, page
or other product; it is written when that is done.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from cae_lib import grid
from cae_lib.cli import run_reporting_errors
from cae_lib.grid import Selection
from cae_lib.machine import exclusive_gpu, restart_with_one_thread
from cae_lib.profiles import experiment, find_profile
from cae_lib.runtime import environment_info, write_atomic
from cae_lib.variants import BASE, CLIP_FT, DATA_RUN, base_variants

sys.path.append(str(Path(__file__).resolve().parent.parent))  # for data.recipes


def make_data(profile: str, selection: Selection, real: str | None = None) -> None:
    """Build the datasets that are not real, and parse the training captions once before several
    processes need them. In a rehearsal the files of a folder `real` replace drawn ones."""
    from cae_lib.data.training_set import training_set
    from data.recipes.base import build_datasets

    if find_profile(profile).is_rehearsal:
        from rehearsal import lay_out

        lay_out(profile, Path(real) if real else None)
    elif not find_profile(profile).is_real:
        build_datasets(profile)
    for name, tagger in grid.training_sets_of(profile, selection):
        training_set(profile, name, experiment(CLIP_FT, profile).model, tagger)


def make_base(profile: str, selection: Selection) -> None:
    """Train the base model where none is shipped, and for the studies those of fewer steps."""
    from cae_lib.runs import checkpoint_path
    from data.recipes.base import train_base

    if find_profile(profile).is_real:
        return
    if not checkpoint_path(BASE, profile).is_file():
        train_base(profile)
    for steps in find_profile(profile).earlier_bases if selection.studies else ():
        train_base(profile, steps=steps)


def train_and_measure(profile: str, selection: Selection, name: str) -> None:
    """Train and measure a run; with the base model and CLIP-FT their controls for the studies."""
    import book.studies  # noqa: F401  registers the suites of the studies
    from cae_lib.measuring import measure_data, measure_run
    from cae_lib.runs import has_training, train_run

    (row, settings, _), seed, suites = grid.runs(profile, selection)[name]
    without = () if selection.studies else grid.STUDY_ONLY_SUITES
    if row == DATA_RUN:
        measure_data(profile, True)
        return
    if has_training(row, profile, **settings):
        train_run(row, profile, seed, **settings)
    measure_run(row, profile, seed, True, suites, without, **settings)
    if selection.studies and row in (BASE, CLIP_FT) and not settings:
        measure_run(f"{row}-gelu", profile, seed, True)
    if selection.studies and row == BASE:
        for variant in base_variants(profile):
            if variant.run == BASE:
                measure_run(BASE, profile, 0, True, grid.STUDY_RUN_SUITES, **variant.settings)


def execute_page(profile: str, selection: Selection, name: str) -> None:
    """Execute a page: one of the book, or of the copy of the book that the profile has."""
    from book.extension.run import run_page

    if find_profile(profile).own_book is None:
        run_page(name)
    else:
        run_page(name, profile, grid.seed_count(profile, selection))


def main(arguments: list[str]) -> None:
    """Do a job, output by output, and write how long each took and on what machine."""
    text, rule, *outputs = arguments
    config = json.loads(text)
    profile = config.get("profile", "mini")
    selection = grid.parse_selection(profile, config)
    with exclusive_gpu():
        for output in map(Path, outputs):
            start = time.monotonic()
            name = str(output.parent)
            if rule == "data":
                make_data(profile, selection, config.get("real"))
            elif rule == "base":
                make_base(profile, selection)
            elif rule == "run":
                train_and_measure(profile, selection, name)
            elif rule == "page":
                execute_page(profile, selection, output.parent.name)
            else:
                from book.extension.build import build_book

                print(f"The book is {build_book(profile)}")
            record = {"seconds": round(time.monotonic() - start, 1), **environment_info(profile)}
            write_atomic(output.absolute(), json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    restart_with_one_thread()
    sys.exit(run_reporting_errors(lambda: main(sys.argv[1:]), "make reproduce"))
