"""The runs, suites and pages that `cae reproduce` computes for a profile.

The work is scheduled and executed by `workflow/Snakefile`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import yaml

from cae_lab.names import BASE, CLIP_FT, DATA_RUN, GELU_CONTROLS
from cae_lab.runs import Profile, Run
from cae_lab.suites import DATA_VERSION, EXTERNAL_LOADER_VERSION, Suite
from cae_lib.config import bundled_path
from cae_lib.runtime import file_hash
from cae_lib.training.inputs import TRAINING_VERSION, digest, text_versions


class Selection(NamedTuple):
    """The part of a profile that is reproduced."""

    profile: Profile
    studies: bool  # whether the studies beside the paper are included
    runs: tuple[str, ...]  # names of the only runs, without seeds or pages; empty for everything
    seeds: int  # number of seeds of each run


def parse_selection(profile: Profile, config: Mapping[str, Any]) -> Selection:
    """Read the keys `all`, `runs` and `seeds` of a Snakemake configuration; each may be missing."""
    studies = bool(config.get("all")) or not profile.studies_apart
    runs = [name.strip() for name in str(config.get("runs") or "").split(",")]
    seeds = min(profile.seeds, int(config.get("seeds") or profile.seeds))
    return Selection(profile, studies, tuple(filter(None, runs)), seeds)


def planned_runs(selection: Selection) -> dict[str, Run]:
    """Return every run of a reproduction by NAME/SEED, the data ("data/0") and base model first."""
    profile = selection.profile
    runs = [profile.run(DATA_RUN), profile.run(BASE)]
    names = selection.runs or [
        name
        for name, settings in profile.runs.items()
        # Models that were trained elsewhere are measured on request only.
        if settings.get("steps") != 0 and (selection.studies or name not in profile.studies)
    ]
    runs += [profile.run(name, seed) for seed in range(selection.seeds) for name in names]
    if selection.studies and not selection.runs:
        runs.append(profile.run(f"{BASE}-gelu"))
        runs += [profile.run(f"{CLIP_FT}-gelu", seed) for seed in range(selection.seeds)]
        runs += [
            profile.run(name, seed)
            for name, seeds in profile.variants.items()
            for seed in range(min(seeds, profile.seeds))
        ]
    # A run that is not trained has seed 0 for every seed, and thus one entry.
    return {f"{run.name}/{run.seed}": run for run in runs}


def jobs(selection: Selection) -> list[tuple[str, list[str]]]:
    """Return the name of each job with its runs as NAME/SEED."""
    grouped: dict[str, list[str]] = {}
    for name in planned_runs(selection):
        # A training on real data takes hours, so each seed is a job. Elsewhere it takes about a
        # minute, a third of it for imports and datasets, which the seeds of a run share in one job.
        job = name if selection.profile.is_real else name.rpartition("/")[0]
        grouped.setdefault(job, []).append(name)
    return list(grouped.items())


def runs_before(names: Iterable[str], planned: Mapping[str, Run]) -> list[str]:
    """Return the planned runs that train the weights of those `names` that are GELU controls."""
    # Without this order, a control would wait for the training and occupy a GPU meanwhile.
    controls = [planned[name] for name in names if planned[name].entry in GELU_CONTROLS]
    trained = [f"{GELU_CONTROLS[run.entry]}/{run.seed}" for run in controls]
    # If only the control is selected, it trains its weights itself.
    return [name for name in trained if name in planned]


def run_key(run: Run, suites: Sequence[Suite]) -> str:
    """Return a digest that changes when a run has to be trained or measured again.

    Nothing covers the content of the weights of a run with 0 steps.
    """
    # The name alone stands for the base model and the data, which `base_key` and `data_key` cover.
    trained: list[object] = [run.entry, *map(list, run.settings)]
    if run.is_trained_here or run.is_external:
        trained = [
            # Of seed 0: a job has one key, whatever seeds it executes.
            run.profile.run(run.name).config.key(),
            sorted(text_versions(run.config).items()),
        ]
        trained.append(TRAINING_VERSION if run.is_trained_here else EXTERNAL_LOADER_VERSION)
    versions = {suite.name: suite.version for suite in suites}
    return digest(trained, DATA_VERSION if run.entry == DATA_RUN else versions)


def words_of(run: Run) -> list[str]:
    """Return the folder of the job that parses the captions of a run, if it is trained here."""
    if not run.is_trained_here:
        return []
    return [f"words/{run.config.train_data}/{run.config.tagger}"]


def pages_of(selection: Selection) -> list[str]:
    """Return the names of the pages of `book/pages.yml` that show a profile."""
    profile = selection.profile
    if selection.runs:
        return []
    pages = yaml.safe_load(bundled_path("book/pages.yml").read_text(encoding="utf-8"))
    if profile.is_real:
        return [name for name, page in pages.items() if page.get("real")]
    return [
        name
        for name, page in pages.items()
        # A profile whose numbers mean nothing tests the code of all pages.
        if not profile.recorded
        or page.get("last")
        or (page["profile"] == profile.name and (selection.studies or not page.get("study")))
    ]


def last_pages() -> set[str]:
    """Return the names of the pages that are executed after all others."""
    pages = yaml.safe_load(bundled_path("book/pages.yml").read_text(encoding="utf-8"))
    return {name for name, page in pages.items() if page.get("last")}


def data_key(selection: Selection, generator_key: str = "") -> str:
    """Return a digest of what the datasets of a reproduction are made from.

    `generator_key` is the digest of the scene generator's settings, or the version of the recipe of
    photographs.
    """
    profile = selection.profile
    # The job itself lays out the data of a rehearsal, so its key must not depend on them.
    if profile.is_rehearsal:
        return ""
    if profile.is_real:
        from cae_bench.missing import source_reports, sources_digest
        from cae_lab.required_data import required_sources

        names = required_sources(profile)
        return digest(sources_digest(source_reports(names), names))
    return digest(generator_key)


def base_key(selection: Selection) -> str:
    """Return a digest of the base model: its training settings, and its weights if shipped."""
    profile = selection.profile
    weights = bundled_path(f"data/{profile.training.get('weights')}")
    # A profile that is not recorded ships no weights: the job writes them, and its key must not
    # change with its own output.
    weights_hash = file_hash(weights) if weights.is_file() and profile.recorded else ""
    earlier = profile.earlier_bases if selection.studies else ()
    return digest(profile.base, profile.training.get("weights"), weights_hash, earlier)
