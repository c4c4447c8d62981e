"""`cae reproduce`: data, base, runs, measurements, pages, book."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from cae_lib import runs
from cae_lib.commands.base import build_sets, train_base
from cae_lib.commands.jobs import run_jobs
from cae_lib.config import METHODS, experiment, profile
from cae_lib.data.training_set import training_set
from cae_lib.errors import ConfigError
from cae_lib.pages.build import build_book
from cae_lib.pages.run import run_page
from cae_lib.pages.source import experiments_folder, page_names, page_parameters, read_page
from cae_lib.runs import BASE, CONTROL, TUNED, Variant, measure_data, measure_run
from cae_lib.runtime import format_seconds

STUDY_SUITES = ("benchmarks", "attribution")
CONTROL_SUITES = (*STUDY_SUITES, "retrieval", "bindings")
HARD_SUITES = (*CONTROL_SUITES, "phrases")
MAIN = {TUNED, CONTROL, "cae-binding", "placebo-binding",
        *(f"{kind}-{method}" for kind in ("cae", "negclip-cae", "placebo") for method in METHODS)}
"""The paper's rows, a placebo of each method, and bindings with one; all else is of the studies."""

"""What the pages show of runs with hard negatives; `cae evaluate` measures all of them."""

STUDY_PAGES = ("what-decides", "faithfulness", "blind")
"""Pages of the studies beside the paper, which have runs or suites of their own."""

OF_STUDIES = ("faithfulness", "sensitivity", "blind")
"""Suites that only these pages show."""

LAST_PAGE = "status"
"""It lists the other pages as they are stored."""

Jobs = dict[str, Callable[[], Any]]


def run(parsed: argparse.Namespace) -> None:
    """Run all steps, each one only as far as it is not done yet; safe to interrupt and repeat."""
    name = parsed.profile
    if profile(name).base is None:
        raise ConfigError(
            f"profile {name} runs page by page, since it needs downloads and a GPU: "
            f"`cae run NAME --profile {name}`"
        )
    pages = _pages(name)
    studies = parsed.all or name != "mini"  # at smoke they take seconds, of photo none is apart
    if not studies:
        pages = {label: job for label, job in pages.items()
                 if label.removeprefix("page ") not in STUDY_PAGES}
    last = {f"page {LAST_PAGE}": pages.pop(f"page {LAST_PAGE}")}
    took, start = {}, time.monotonic()
    for jobs in (
        {"the sets": partial(_sets, name, studies)},
        {f"captions, {data}, {tagger}": partial(_captions, name, data, tagger)
         for data, tagger in sorted(_captions_of(name, studies))},
        {"the data": partial(measure_data, name, True)} | _run_jobs(name, studies),
        pages,
        last,
        {"book": partial(build_book, name)},
    ):
        took |= run_jobs(jobs)
    print(f"All steps took {format_seconds(time.monotonic() - start)}; the slowest:")
    for label, outcome in sorted(took.items(), key=lambda item: -item[1].seconds)[:5]:
        print(f"  {label}: {format_seconds(outcome.seconds)}")
    if not studies:
        rows = sorted(profile(name).methods.keys() - _rows(name, studies))
        print(f"Left as they were, for `cae reproduce --all`: pages {', '.join(STUDY_PAGES)}; "
              f"rows {', '.join(rows)}; tables {', '.join(OF_STUDIES)}")
    print(f"The book is {took['book'].value}", flush=True)


def _pages(profile_name: str) -> Jobs:
    """The pages that show a profile, and the last one; of smoke all pages, with its results."""
    if profile_name == "smoke":
        return {f"page {name}": partial(run_page, name, None, "smoke") for name in page_names()}
    found = {}
    for name in page_names():
        known = page_parameters(read_page(experiments_folder() / f"{name}.md"), name)
        if name == LAST_PAGE or known["profile"].default == profile_name:
            found[f"page {name}"] = partial(run_page, name)
    return found


def _run_jobs(profile_name: str, studies: bool = True) -> Jobs:
    """Training and measuring: the runs with the longest steps first, then those of the studies."""
    jobs: Jobs = {"base": partial(_measure_base, profile_name, studies)}
    rows = _rows(profile_name, studies)
    found = [(Variant(name, {}), seed, _suites(row, studies))
             for seed in range(profile(profile_name).seeds) for name, row in reversed(rows.items())]
    if studies:
        found += [(variant, seed, STUDY_SUITES) for variant, seed in runs.study_runs(profile_name)]
    for variant, seed, suites in found:
        label = f"{variant.name(profile_name)}/{seed}"
        jobs[label] = partial(_train_and_measure, variant, profile_name, seed, suites, studies)
    return jobs


def _rows(profile_name: str, studies: bool) -> dict[str, Mapping[str, Any]]:
    """The rows that are trained: all of them, or without the studies `MAIN`."""
    return {name: row for name, row in profile(profile_name).methods.items()
            if studies or name in MAIN}


def _suites(row: Mapping[str, Any], studies: bool) -> tuple[str, ...]:
    """What is measured of a row of a profile; empty for everything. Only `studies` show attribution
    in placebos and in NegCLIP with CAE."""
    if row.keys() & {"roles", "tagger", "foils"}:
        suites = CONTROL_SUITES
    elif row.get("negatives"):
        suites = HARD_SUITES
    else:
        return ()
    shown = studies or not row.get("method")
    return tuple(suite for suite in suites if shown or suite != "attribution")


def _left_out(studies: bool) -> tuple[str, ...]:
    return () if studies else OF_STUDIES


def _captions_of(profile_name: str, studies: bool) -> set[tuple[str, str]]:
    """The training data of the runs, and what finds the roles of words in them."""
    found = [Variant(name, {}) for name in _rows(profile_name, studies)]
    found += [variant for variant, _ in runs.study_runs(profile_name) if studies]
    configs = (experiment(run, profile_name, **settings) for run, settings, _ in found)
    return {(config.train_data, config.tagger) for config in configs}


def _captions(profile_name: str, data: str, tagger: str) -> None:
    """Parse the captions of training once, before several processes need them."""
    model = experiment(TUNED, profile_name).model
    training_set(profile_name, data, model, tagger)  # as a run asks for it


def _train_and_measure(variant: Variant, profile_name: str, seed: int,
                       suites: Iterable[str], studies: bool) -> None:
    """A run, and for the studies the control of CLIP-FT."""
    run, settings, _ = variant
    runs.train_run(run, profile_name, seed, **settings)
    measure_run(run, profile_name, seed, True, suites, _left_out(studies), **settings)
    if studies and run == TUNED and not settings:
        measure_run(f"{TUNED}-gelu", profile_name, seed, True)


def _measure_base(profile_name: str, studies: bool) -> None:
    """The base, and for the studies its control and the bases of fewer steps."""
    for name in (BASE, f"{BASE}-gelu") if studies else (BASE,):
        measure_run(name, profile_name, 0, True, (), _left_out(studies))
    for variant in runs.base_variants(profile_name):
        if studies and variant.run == BASE:
            measure_run(BASE, profile_name, 0, True, STUDY_SUITES, **variant.settings)


def _sets(profile_name: str, studies: bool = True) -> None:
    """Build the sets; where no base models are shipped (smoke), train them."""
    build_sets(profile_name)
    if not runs.checkpoint_path(BASE, profile_name).is_file():
        train_base(profile_name)
    for steps in profile(profile_name).earlier_bases if studies else ():
        train_base(profile_name, steps=steps)
