"""Everything of a profile, in order: data, base, runs, measurements, pages, book."""

from __future__ import annotations

import argparse
from pathlib import Path

from cae_lib.commands.base import train_base, train_earlier_base
from cae_lib.commands.jobs import Job, run_jobs
from cae_lib.config import profile
from cae_lib.data.training_set import training_set
from cae_lib.errors import ConfigError
from cae_lib.pages.build import build_book
from cae_lib.pages.run import run_page
from cae_lib.pages.source import page_names
from cae_lib.runs import (
    BASE,
    BASE_GELU,
    HARD_SUITES,
    STUDY_SUITES,
    TUNED,
    Variant,
    base_variants,
    checkpoint_path,
    earlier_base_path,
    measure_controls,
    measure_data,
    measure_run,
    study_runs,
    train_run,
)
from cae_lib.runtime import format_seconds
from cae_lib.world.build import build

CAPTIONS = ("captions",)
"""The job whose parsed captions every training needs."""

LAST_PAGE = "status"
"""It lists the other pages as they are stored."""


def run(parsed: argparse.Namespace) -> None:
    """Run everything."""
    reproduce(parsed.profile)


def reproduce(profile_name: str) -> Path:
    """Run all steps, each one only as far as it is not done yet; returns the book's first page.

    Safe to run twice and to interrupt: what a step has finished is kept.

    Raises:
        ConfigError: The profile needs data that nobody can build here.
    """
    if profile(profile_name).base is None:
        raise ConfigError(
            f"profile {profile_name} runs page by page, since it needs downloads and a GPU: "
            f"`cae run NAME --profile {profile_name}`"
        )
    took: dict[str, float] = {}
    for jobs in (
        [Job("the small world", _world, (profile_name,))],
        [*_base_jobs(profile_name), *_run_jobs(profile_name), *_study_jobs(profile_name)],
        *_page_jobs(profile_name),
    ):
        took |= {label: outcome.seconds for label, outcome in run_jobs(jobs).items()}
    book = run_jobs([Job("book", _book, (profile_name,))])["book"]
    _report(took | {"book": book.seconds})
    print(f"The book is {book.value}", flush=True)
    return book.value


def _base_jobs(profile_name: str) -> list[Job]:
    """What the runs start from, and the parsed captions that all of them share."""
    return [
        Job(*CAPTIONS, _captions, (profile_name,)),
        Job("measuring the data", measure_data, (profile_name, True), CAPTIONS),
        Job("measuring base", measure_run, (BASE, profile_name, 0, True)),
        Job("base read with GELU", measure_run, (BASE_GELU, profile_name, 0, True), CAPTIONS),
    ]


def _run_jobs(profile_name: str) -> list[Job]:
    """Training and measurement of each run, those with the longest steps first."""
    chosen = profile(profile_name)
    jobs = []
    for name in reversed(chosen.methods):
        suites = HARD_SUITES if chosen.methods[name].get("negatives") else ()
        for seed in range(chosen.seeds):
            run = (name, profile_name, seed)
            training = f"training {name}/{seed}"
            jobs += [
                Job(training, train_run, run, CAPTIONS),
                Job(f"measuring {name}/{seed}", measure_run, (*run, True, suites), (training,)),
            ]
            if name == TUNED:
                control = (profile_name, seed, True)
                label = f"{name}/{seed} read with GELU"
                jobs.append(Job(label, measure_controls, control, (training,)))
    return jobs


def _study_jobs(profile_name: str) -> list[Job]:
    """The studies' base models and runs; a run of theirs is short."""
    jobs = [Job("captions, second tagger", _second_roles, (profile_name,), CAPTIONS)]
    for variant in base_variants(profile_name):
        if variant.run == BASE and variant.settings:
            label = f"measuring base of {variant.group} steps"
            jobs.append(Job(label, _measure, (variant, profile_name, 0), CAPTIONS))
    for variant, seed in study_runs(profile_name):
        name = f"{variant.name(profile_name)}/{seed}"
        training = f"training {name}"
        run = (variant, profile_name, seed)
        first = (jobs[0].label,) if "tagger" in variant.settings else CAPTIONS
        jobs += [
            Job(training, _train, run, first),
            Job(f"measuring {name}", _measure, run, (training,)),
        ]
    return jobs


def _page_jobs(profile_name: str) -> list[list[Job]]:
    jobs = {name: Job(f"page {name}", _page, (name, profile_name)) for name in page_names()}
    last = [jobs.pop(LAST_PAGE)] if LAST_PAGE in jobs else []
    return [group for group in (list(jobs.values()), last) if group]


def _world(profile_name: str) -> None:
    """Build the world; where no base models are shipped (smoke), train them."""
    build(profile_name)
    if not checkpoint_path(BASE, profile_name, 0).is_file():
        train_base(profile_name)
    for steps in profile(profile_name).earlier_bases:
        if not earlier_base_path(profile_name, steps).is_file():
            train_earlier_base(profile_name, steps)


def _captions(profile_name: str) -> None:
    training_set(profile_name)


def _second_roles(profile_name: str) -> None:
    training_set(profile_name, tagger="dependency")


def _train(variant: Variant, profile_name: str, seed: int) -> None:
    train_run(variant.run, profile_name, seed, **variant.settings)


def _measure(variant: Variant, profile_name: str, seed: int) -> None:
    measure_run(variant.run, profile_name, seed, True, STUDY_SUITES, **variant.settings)


def _page(name: str, profile_name: str) -> None:
    run_page(name, profile_name=profile_name if profile_name != "mini" else None)


def _book(profile_name: str) -> Path:
    print("Rendering the book", flush=True)
    return build_book(profile_name)


def _report(took: dict[str, float]) -> None:
    """Print the slowest steps and the sum of all, which is more than the time that went by."""
    slowest = sorted(took.items(), key=lambda item: -item[1])[:5]
    print(f"All steps together took {format_seconds(sum(took.values()))}; the slowest:")
    for label, seconds in slowest:
        print(f"  {label}: {format_seconds(seconds)}")
