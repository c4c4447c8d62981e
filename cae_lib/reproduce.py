"""Everything of a profile, in order: data, base, runs, measurements, pages, book."""

from __future__ import annotations

from pathlib import Path

from cae_lib.activation_control import read_base, read_tuned
from cae_lib.config import profile
from cae_lib.errors import ConfigError
from cae_lib.evaluation.blind_record import blind_record
from cae_lib.evaluation.caption_load import caption_load_record
from cae_lib.experiments import BASE, checkpoint_path, run_training
from cae_lib.jobs import Job, run_jobs
from cae_lib.measurements import evaluate_run
from cae_lib.runtime import format_seconds
from cae_lib.studies import (
    base_variants,
    earlier_base_path,
    evaluate_variant,
    study_runs,
    train_variant,
)

TUNED = "clip-ft"
HARD_SUITES = ("benchmarks", "phrases", "attribution")
"""What the pages show of runs with hard negatives; `cae evaluate` measures all of them."""

CAPTIONS = ("captions",)
"""The job whose parsed captions every training needs."""

LAST_PAGE = "status"
"""It lists the other pages as they are stored."""


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
        [
            *_base_jobs(profile_name),
            *_run_jobs(profile_name),
            *_study_jobs(profile_name),
            _blind_job(profile_name),
        ],
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
        Job("measuring base", evaluate_run, (BASE, profile_name, 0, True)),
        Job("base read with GELU", read_base, (profile_name, True), CAPTIONS),
        Job("parser against gold", _words, (profile_name,), CAPTIONS),
        Job("what captions state", caption_load_record, (profile_name, True)),
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
                Job(training, run_training, run, CAPTIONS),
                Job(f"measuring {name}/{seed}", evaluate_run, (*run, True, suites), (training,)),
            ]
            if name == TUNED:
                control = (profile_name, seed, True)
                jobs.append(Job(f"{name}/{seed} read with GELU", read_tuned, control, (training,)))
    return jobs


def _study_jobs(profile_name: str) -> list[Job]:
    """The studies' base models and runs; a run of theirs is short."""
    jobs = [Job("captions, second tagger", _second_roles, (profile_name,), CAPTIONS)]
    for variant in base_variants(profile_name):
        if variant.run == BASE and variant.settings:
            label = f"measuring base of {variant.group} steps"
            jobs.append(Job(label, evaluate_variant, (variant, profile_name, 0, True)))
    for variant, seed in study_runs(profile_name):
        name = f"{variant.run}/{seed} ({variant.label})"
        training = f"training {name}"
        run = (variant, profile_name, seed)
        first = (jobs[0].label,) if "tagger" in variant.settings else CAPTIONS
        jobs += [
            Job(training, train_variant, run, first),
            Job(f"measuring {name}", evaluate_variant, (*run, True), (training,)),
        ]
    return jobs


def _blind_job(profile_name: str) -> Job:
    """What never sees a picture; some of it reads runs of seed 0."""
    trained = tuple(f"training {name}/0" for name, row in profile(profile_name).methods.items()
                    if not row.get("negatives"))  # fmt: skip
    return Job("without the picture", blind_record, (profile_name, True), trained)


def _page_jobs(profile_name: str) -> list[list[Job]]:
    from cae_lib.pages.source import page_names

    names = [name for name in page_names() if name != LAST_PAGE]
    return [
        [Job(f"page {name}", _page, (name, profile_name)) for name in group]
        for group in (names, [LAST_PAGE])
    ]


def _world(profile_name: str) -> None:
    """Build the world; where no base models are shipped (smoke), train them."""
    from cae_lib.base import train_base, train_earlier_base
    from cae_lib.data.world.build import build

    build(profile_name)
    if not checkpoint_path(BASE, profile_name, 0).is_file():
        train_base(profile_name)
    for steps in profile(profile_name).earlier_bases:
        if not earlier_base_path(profile_name, steps).is_file():
            train_earlier_base(profile_name, steps)


def _captions(profile_name: str) -> None:
    from cae_lib.data.training_set import training_set

    training_set(profile_name)


def _second_roles(profile_name: str) -> None:
    from cae_lib.data.training_set import training_set

    training_set(profile_name, tagger="dependency")


def _words(profile_name: str) -> None:
    from cae_lib.evaluation.gold import parser_record

    parser_record(profile_name, fresh=True)


def _page(name: str, profile_name: str) -> None:
    from cae_lib.run import run_page

    run_page(name, profile_name=profile_name if profile_name != "mini" else None)


def _book(profile_name: str) -> Path:
    from cae_lib.pages.build import build_book

    print("Rendering the book", flush=True)
    return build_book(profile_name)


def _report(took: dict[str, float]) -> None:
    """Print the slowest steps and the sum of all, which is more than the time that went by."""
    slowest = sorted(took.items(), key=lambda item: -item[1])[:5]
    print(f"All steps together took {format_seconds(sum(took.values()))}; the slowest:")
    for label, seconds in slowest:
        print(f"  {label}: {format_seconds(seconds)}")
