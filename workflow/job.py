"""Do one job of the Snakefile: `python workflow/job.py CONFIG RULE OUTPUT ...`.

CONFIG is the Snakemake configuration as JSON. Each OUTPUT is the file NAME/done.json of a run, page
or other product; it is written when that is done.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))  # for book and data.recipes

from book.studies import ALL_SUITES
from cae_lab import grid
from cae_lab.cli import run_reporting_errors
from cae_lab.grid import Selection
from cae_lab.machine import exclusive_gpu, restart_with_one_thread
from cae_lab.names import BASE, CLIP_FT, DATA_RUN
from cae_lab.profiles import load_profile
from cae_lab.provenance import environment_info
from cae_lab.runs import Profile, Run
from cae_lab.suites import suites_of
from cae_lib.runtime import write_atomic


def make_data(profile: Profile, real: str | None = None) -> None:
    """Build the datasets that are not real; in a rehearsal, files of `real` replace drawn ones."""
    from data.recipes.base import build_datasets

    if profile.is_rehearsal:
        from rehearsal import lay_out

        lay_out(profile, Path(real) if real else None)
    elif not profile.is_real:
        build_datasets(profile)


def parse_captions(profile: Profile, name: str, tagger: str) -> None:
    """Parse the captions of a training set once, before several trainings need them."""
    from cae_lab.training_set import training_set
    from cae_lib.models.clip import load_clip

    clip = load_clip(profile.experiment(CLIP_FT).model)  # for its tokenizer and image size
    training_set(profile, clip.tokenizer, clip.image_size, name, tagger)


def make_base(selection: Selection) -> None:
    """Train the base model unless it is there, and for the studies those of fewer steps."""
    from data.recipes.base import train_base

    profile = selection.profile
    if profile.is_real:
        return
    if not profile.run(BASE).path.is_file():
        train_base(profile)
    for steps in profile.earlier_bases if selection.studies else ():
        train_base(profile, steps=steps)


def train_and_measure(run: Run, with_studies: bool) -> int:
    """Train and measure a run, and return how many results had to be measured."""
    from cae_lab.measuring import measure, measure_data

    # A reproduction measures again what came with the clone.
    if run.entry == DATA_RUN:
        measure_data(run.profile, remeasure=True)
        return 1  # not counted: jobs of this kind say nothing about the pace of others
    if run.is_trained_here:
        run.train()
    return measure(run, suites_of(run, ALL_SUITES, with_studies), remeasure=True)


def weights_time(run: Run) -> int:
    """Return when the weights of a run that is trained here were written; 0 without any."""
    is_there = run.is_trained_here and run.path.is_file()
    return run.path.stat().st_mtime_ns if is_there else 0


def execute_page(selection: Selection, name: str) -> None:
    """Execute a page of the book, or of the copy of the book that the profile has."""
    from book.extension.run import run_page

    if selection.profile.own_book is None:
        run_page(name)
    else:
        run_page(name, selection.profile.name, selection.seeds)


def export_models(profile: Profile) -> None:
    """Write the trained models that run in readers' browsers, in place of the published ones."""
    from book.extension.build import own_live_folder
    from book.extension.live import write_files

    shutil.rmtree(own_live_folder(), ignore_errors=True)
    write_files(profile.name, own_live_folder())


def main(arguments: list[str]) -> None:
    """Do a job, output by output, and write how long each took and on which machine."""
    text, rule, *outputs = arguments
    config = json.loads(text)
    profile = load_profile(config.get("profile", "mini"))
    selection = grid.parse_selection(profile, config)
    # The functions above import PyTorch, which fixes at first use which GPUs it sees.
    with exclusive_gpu():
        for output in map(Path, outputs):
            start, record = time.monotonic(), {}
            if rule == "data":
                make_data(profile, config.get("real"))
            elif rule == "words":
                parse_captions(profile, *output.parts[-3:-1])
            elif rule == "base":
                make_base(selection)
            elif rule == "run":
                run = grid.planned_runs(selection)[str(output.parent)]
                before = weights_time(run)
                n_measured = train_and_measure(run, selection.studies)
                # Without these, the time of a run that was trained or measured already would pass
                # for the time of the whole job.
                record["trained"] = weights_time(run) != before
                record["measured"] = n_measured > 0
            elif rule == "page":
                execute_page(selection, output.parent.name)
            else:
                from book.extension.build import PUBLISHED, build_book

                if profile.name == PUBLISHED:
                    export_models(profile)
                print(f"The book is {build_book(profile.name)}")
            record |= {"seconds": round(time.monotonic() - start, 1)}
            record |= environment_info(profile.name)
            write_atomic(output.absolute(), json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    restart_with_one_thread()
    sys.exit(run_reporting_errors(lambda: main(sys.argv[1:]), "make reproduce"))
