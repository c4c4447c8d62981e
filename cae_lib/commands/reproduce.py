"""`cae reproduce`: data, base, runs, measurements, pages, book. The jobs are those of
`cae_lib.grid`; on a laptop a few processes that stay go through them, elsewhere Snakemake does
(`cae_lib.commands.workflow`)."""

from __future__ import annotations

import argparse
import time
from functools import partial
from typing import Any

from cae_lib import runs
from cae_lib.commands import evaluate, tune
from cae_lib.commands.base import build_sets, train_base
from cae_lib.commands.jobs import run_jobs
from cae_lib.commands.options import allowed, chosen
from cae_lib.commands.plan import require
from cae_lib.config import experiment, profile
from cae_lib.data.needs import is_real
from cae_lib.data.training_set import training_set
from cae_lib.grid import (
    BASE,
    BOOK,
    OF_STUDIES,
    RELEASED_PAGE,
    SETS,
    STUDY_PAGES,
    STUDY_SUITES,
    TABLES,
    TUNED,
    Choice,
    Job,
    base_variants,
    grid,
    levels,
    rows_of,
    seeds_of,
)
from cae_lib.pages.build import OWN_BOOKS, build_book
from cae_lib.pages.run import run_page
from cae_lib.pages.source import experiments_folder, page_parameters, read_page
from cae_lib.runs import measure_data, measure_run
from cae_lib.runtime import format_seconds


def run(parsed: argparse.Namespace) -> None:
    """Run all jobs, each one only as far as it is not done yet; safe to interrupt and repeat."""
    name, choice = parsed.profile, chosen(parsed)
    engine = parsed.on or ("local" if is_real(name) else "pool")
    if engine != "pool":
        from cae_lib.commands.workflow import run_workflow

        with allowed(parsed):
            require(name)
        run_workflow(name, choice, engine, parsed.allow_missing)
        return
    jobs, took, steps = grid(name, choice), {}, []
    start = before = time.monotonic()
    with allowed(parsed):
        require(name)
        for step in levels(jobs):
            took |= run_jobs({label: partial(perform, name, choice, label, jobs[label])
                              for label in step})
            stages = ", ".join(sorted({label.partition("/")[0] for label in step}))
            now = time.monotonic()
            steps.append(f"  {len(step)} of {stages}: {format_seconds(now - before)}")
            before = now
    print(f"All steps took {format_seconds(before - start)}:", *steps, "The slowest:", sep="\n")
    for label, outcome in sorted(took.items(), key=lambda item: -item[1].seconds)[:5]:
        print(f"  {label}: {format_seconds(outcome.seconds)}")
    if name == "mini" and not choice.studies:
        done = {variant.run for variant in rows_of(name, choice)}
        rows = sorted(profile(name).methods.keys() - done)
        print(f"Left as they were, for `cae reproduce --all`: pages {', '.join(STUDY_PAGES)}; "
              f"rows {', '.join(rows)}; tables {', '.join(OF_STUDIES)}")
    if BOOK in took:
        print(f"The book is {took[BOOK].value}", flush=True)


def perform(profile_name: str, choice: Choice, label: str, job: Job) -> Any:
    """Do one job of a grid."""
    stage, _, name = label.partition("/")
    studies = choice.studies
    if label == SETS:
        return _sets(profile_name, studies)
    if label == TABLES:
        return measure_data(profile_name, True)
    if label == BOOK:
        return build_book(profile_name)
    if label == f"run/{BASE}/0":
        return _measure_base(profile_name, studies)
    if stage == "captions":
        data, _, tagger = name.partition("+")
        return _captions(profile_name, data, tagger)
    if stage == "tune":
        return tune.trial(name.partition("/")[0], job.variant, profile_name)
    if stage == "chosen":
        return tune.CHOOSERS[name](profile_name)
    if stage == "released":
        return evaluate.measure_one(name)
    if stage == "page":
        return _page(profile_name, name, seeds_of(profile_name, choice))
    return _train_and_measure(profile_name, job, studies)


def _captions(profile_name: str, data: str, tagger: str) -> None:
    """Parse the captions of training once, before several processes need them."""
    model = experiment(TUNED, profile_name).model
    training_set(profile_name, data, model, tagger)  # as a run asks for it


def _page(profile_name: str, name: str, seeds: int) -> Any:
    """A page of the book, or with the results of a profile that has a copy of the book."""
    if profile_name not in OWN_BOOKS or name == RELEASED_PAGE:
        return run_page(name)
    known = page_parameters(read_page(experiments_folder() / f"{name}.md"), name)
    given = {"seeds": str(seeds)} if "seeds" in known else {}
    return run_page(name, given, profile_name)


def _train_and_measure(profile_name: str, job: Job, studies: bool) -> None:
    """A run, and for the studies the control of CLIP-FT."""
    run, settings, _ = job.variant
    runs.train_run(run, profile_name, job.seed, **settings)
    measure_run(run, profile_name, job.seed, True, job.suites, _left_out(studies), **settings)
    if studies and run == TUNED and not settings:
        measure_run(f"{TUNED}-gelu", profile_name, job.seed, True)


def _left_out(studies: bool) -> tuple[str, ...]:
    return () if studies else OF_STUDIES


def _measure_base(profile_name: str, studies: bool) -> None:
    """The base, and for the studies its control and the bases of fewer steps."""
    for name in (BASE, f"{BASE}-gelu") if studies else (BASE,):
        measure_run(name, profile_name, 0, True, (), _left_out(studies))
    for variant in base_variants(profile_name):
        if studies and variant.run == BASE:
            measure_run(BASE, profile_name, 0, True, STUDY_SUITES, **variant.settings)


def _sets(profile_name: str, studies: bool = True) -> None:
    """Build the sets; where no base models are shipped (smoke), train them. Real data were found
    before any job began."""
    if is_real(profile_name):
        return
    build_sets(profile_name)
    if not runs.checkpoint_path(BASE, profile_name).is_file():
        train_base(profile_name)
    for steps in profile(profile_name).earlier_bases if studies else ():
        train_base(profile_name, steps=steps)
