"""The runs, suites and pages that `cae reproduce` computes for a profile.

A suite is a measurement of a model, and a page is a page of the book. The work is scheduled and
executed by `workflow/Snakefile`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from cae_lib.config import Experiment, bundled_path
from cae_lib.keys import (
    EXTERNAL_LOADER_VERSION,
    SUITE_VERSIONS,
    TRAINING_VERSION,
    digest,
    text_versions,
)
from cae_lib.profiles import experiment, find_profile
from cae_lib.runtime import file_hash
from cae_lib.variants import BASE, DATA_RUN, Variant, parse_run_name, study_runs

CONTROL_SUITES = ("benchmarks", "attribution", "retrieval", "bindings")
"""Suites of controls: runs with the setting `roles`, `tagger` or `foils`, see `suites_of`."""

HARD_NEGATIVE_SUITES = (*CONTROL_SUITES, "phrases")
"""Suites of runs that have NegCLIP's hard negatives and are no controls, see `suites_of`. By
default `cae evaluate` measures all suites, also of these runs and of controls."""

STUDY_RUN_SUITES = ("benchmarks", "attribution")
"""Suites that are measured for the runs that `study_runs` returns."""

STUDY_PAGES = ("what-decides", "quickgelu", "faithfulness")
"""Pages of the studies beside the paper, which have runs or suites of their own."""

STUDY_ONLY_SUITES = ("faithfulness", "sensitivity")
"""Suites that a reproduction measures only if the studies are selected."""

REAL_DATA_PAGES = ("attribution", "bindings", "accuracy", "retrieval-and-text")
"""Pages that a reproduction with real data executes."""

STATUS_PAGE = "status"
"""The page that lists all stored results and pages; it is executed last."""

SUITES_NOT_OF_RUNS = {DATA_RUN, "validation"}
"""Suites of `SUITE_VERSIONS` that a reproduction does not measure for its runs."""


class Selection(NamedTuple):
    """The part of a profile that is reproduced.

    Attributes:
        studies: Whether the studies beside the paper are included.
        rows: Names of runs, without their seeds, to which the reproduction is limited; a name may
            contain settings, see `parse_run_name`. Pages are then left out. Empty for the pages and
            all runs, of which those of the studies are included only if `studies` is true.
        seeds: The largest number of seeds of each run; None for the profile's number.
    """

    studies: bool = False
    rows: tuple[str, ...] = ()
    seeds: int | None = None


class PlannedRun(NamedTuple):
    """A run of a profile with one seed, and the suites that are measured for it.

    Attributes:
        variant: The run and its changed settings. The run named "base" stands for measuring the
            base model, and the run named "data" for measuring the datasets.
        seed: The seed.
        suites: Names of the suites; empty for all, without the `STUDY_ONLY_SUITES` unless the
            studies are selected. Not used for the data.
    """

    variant: Variant
    seed: int = 0
    suites: tuple[str, ...] = ()

    def experiment(self, profile_name: str) -> Experiment | None:
        """Return the configuration of the run; None for the base model and the data.

        Args:
            profile_name: Name of the profile.
        """
        if self.variant.run in (BASE, DATA_RUN):
            return None
        run, settings, _ = self.variant
        return experiment(run, profile_name, seed=self.seed, **settings)

    def key(self, profile_name: str, studies: bool) -> str:
        """Return a digest that changes when the run has to be trained or measured again.

        The digest covers the settings, the versions of training and of what is read from text (for
        a run with 0 steps: of the loader), and the suites with their versions; for the base model
        and the data, it covers their names instead of settings and training. It does not cover the
        seed. `data_key` and `base_key` cover the data and the base model, but nothing covers the
        content of the weights of a run with 0 steps.

        Args:
            profile_name: Name of the profile.
            studies: Whether the studies beside the paper are included, which changes the digest.
        """
        config = self._replace(seed=0).experiment(profile_name)
        trained: list[object] = [self.variant.run]
        if config:
            trained = [config.key(), TRAINING_VERSION if config.steps else EXTERNAL_LOADER_VERSION]
            trained += sorted(text_versions(config).items())
        suites = (DATA_RUN,) if self.variant.run == DATA_RUN else self.suites
        suites = suites or SUITE_VERSIONS.keys() - SUITES_NOT_OF_RUNS
        return digest(trained, {suite: SUITE_VERSIONS[suite] for suite in suites}, studies)


def parse_selection(profile_name: str, config: Mapping[str, Any]) -> Selection:
    """Read a selection from a Snakemake configuration.

    Args:
        profile_name: Name of the profile. If its `studies_apart` is false, the studies are always
            selected.
        config: The configuration. Its keys `all` (whether to include the studies), `rows` (names
            separated by commas) and `seeds` (a number) are read; each may be missing.

    Raises:
        ConfigError: If the profile is unknown.
        ValueError: If `seeds` is not a number.
    """
    studies = bool(config.get("all")) or not find_profile(profile_name).studies_apart
    rows = [name.strip() for name in str(config.get("rows") or "").split(",")]
    seeds = config.get("seeds")
    return Selection(studies, tuple(filter(None, rows)), None if seeds is None else int(seeds))


def runs(profile_name: str, selection: Selection) -> dict[str, PlannedRun]:
    """Return every run of a reproduction, named NAME/SEED.

    The first two entries, "data/0" and "base/0", stand for the data and the base model. A run with
    0 steps has the seed 0 alone, since no seed changes its weights.

    Args:
        profile_name: Name of the profile.
        selection: Part of the profile that is reproduced.

    Raises:
        ConfigError: If the profile, a selected run or one of its settings is unknown.
    """
    everything = [PlannedRun(Variant(DATA_RUN, {})), PlannedRun(Variant(BASE, {}))]
    settings = find_profile(profile_name).runs
    for seed in range(seed_count(profile_name, selection)):
        for variant in _variants_of(profile_name, selection):
            changed = {**settings[variant.run], **variant.settings}
            if seed and changed.get("steps") == 0:
                continue  # released weights, which no seed changes
            suites = suites_of(changed)
            everything.append(PlannedRun(variant, seed, suites))
    if selection.studies and not selection.rows:
        everything += [
            PlannedRun(variant, seed, STUDY_RUN_SUITES)
            for variant, seed in study_runs(profile_name)
        ]
    return {f"{run.variant.name(profile_name)}/{run.seed}": run for run in everything}


def jobs(profile_name: str, selection: Selection) -> list[tuple[str, list[str]]]:
    """Return the jobs that execute the runs: the name of each job, and its runs as NAME/SEED.

    With real data, each run and seed is a job of its own, which is also named NAME/SEED, since a
    training takes hours. With other data, a job is named NAME and executes all seeds of a run: a
    training takes about a minute, and a third of this is spent on imports and on reading the
    datasets.

    Raises:
        ConfigError: If the profile, a selected run or one of its settings is unknown.
    """
    grouped: dict[str, list[str]] = {}
    for name in runs(profile_name, selection):
        job = name if find_profile(profile_name).is_real else name.rpartition("/")[0]
        grouped.setdefault(job, []).append(name)
    return list(grouped.items())


def _variants_of(profile_name: str, selection: Selection) -> list[Variant]:
    """Return the runs that a selection stands for, without seeds.

    If the selection names runs, these are returned. Otherwise all trained runs of the profile are
    returned, without those in `Profile.studies` unless the selection includes the studies. The
    result does not contain the runs that `study_runs` returns.

    Raises:
        ConfigError: If the profile, a selected run or one of its settings is unknown.
    """
    profile = find_profile(profile_name)
    names = selection.rows or [
        name
        for name, settings in profile.runs.items()
        if settings.get("steps") != 0 and (selection.studies or name not in profile.studies)
    ]
    rows = [Variant(*parse_run_name(name, profile_name)) for name in names]
    for row in rows:
        experiment(row.run, profile_name, **row.settings)  # raises for an unknown name or setting
    return rows


def seed_count(profile_name: str, selection: Selection) -> int:
    """Return the number of seeds of each run: the profile's or, if smaller, the selection's."""
    profile_seeds = find_profile(profile_name).seeds
    return profile_seeds if selection.seeds is None else min(profile_seeds, selection.seeds)


def suites_of(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the suites that are measured for a run with these settings; empty for all suites.

    A control, which has a setting `roles`, `tagger` or `foils`, gets `CONTROL_SUITES`. Another run
    with NegCLIP's negatives gets `HARD_NEGATIVE_SUITES`. All other runs get all suites.

    Args:
        settings: All settings by which the run differs from the profile's `training`: its own in
            `Profile.runs`, updated with those of its variant.
    """
    if settings.keys() & {"roles", "tagger", "foils"}:
        return CONTROL_SUITES
    return HARD_NEGATIVE_SUITES if settings.get("negatives") else ()


def training_sets_of(profile_name: str, selection: Selection) -> list[tuple[str, str]]:
    """Return the pairs of training set and tagger that the runs use, by their names.

    The pairs are distinct and sorted; a training set occurs once for each tagger that runs use with
    it. Runs with 0 steps use no training set.
    """
    configs = [run.experiment(profile_name) for run in runs(profile_name, selection).values()]
    return sorted(
        {(config.train_data, config.tagger) for config in configs if config and config.steps}
    )


def pages_of(profile_name: str, selection: Selection) -> list[str]:
    """Return the names of the pages that show a profile.

    If the selection is limited to some runs, the list is empty. A profile with real data has the
    `REAL_DATA_PAGES`. Another profile has all pages if its numbers are meaningless. Otherwise it
    has the `STATUS_PAGE` and the pages that show it by default; `STUDY_PAGES` are among these only
    if the selection includes the studies.
    """
    profile = find_profile(profile_name)
    if selection.rows:
        return []
    if profile.is_real:
        return list(REAL_DATA_PAGES)
    pages = []
    for path in sorted(bundled_path("book/experiments").glob("*.md")):
        text = path.read_text(encoding="utf-8")
        default = re.search(r'^profile: str = "([\w-]+)"', text, re.MULTILINE)
        shows_profile = default is not None and default[1] == profile_name
        is_selected = selection.studies or path.stem not in STUDY_PAGES
        if not profile.recorded or shows_profile and is_selected or path.stem == STATUS_PAGE:
            pages.append(path.stem)
    return pages


def data_key(profile_name: str, selection: Selection, generator_key: str = "") -> str:
    """Return a digest of what the datasets of a reproduction are made and parsed from.

    It covers the names of the training sets and their taggers, and in a rehearsal nothing else. For
    real datasets it also covers the content of the annotation files and which files are missing;
    for synthetic scenes and photographs, `generator_key`.

    Args:
        profile_name: Name of the profile.
        selection: Part of the profile that is reproduced.
        generator_key: For synthetic scenes, the digest of the generator's settings; for
            photographs, the version of the recipe. It is not used for other profiles.
    """
    captions, profile = training_sets_of(profile_name, selection), find_profile(profile_name)
    if profile.is_rehearsal:
        return digest(captions)
    if profile.is_real:
        from cae_lib.data.needs import source_reports, sources_digest
        from cae_lib.runs import required_sources

        names = required_sources(profile_name)
        return digest(captions, sources_digest(source_reports(names), names))
    return digest(captions, generator_key)


def base_key(profile_name: str, selection: Selection) -> str:
    """Return a digest of the base model: its training settings, and its weights if shipped.

    The weights are covered by the profile's setting `weights` and, if the profile is `recorded` and
    their file exists, by the content of this file. If the selection includes the studies, the
    digest also covers the numbers of steps of the shorter base trainings.
    """
    profile = find_profile(profile_name)
    weights = bundled_path(f"data/{profile.training.get('weights')}")
    weights_hash = file_hash(weights) if weights.is_file() and profile.recorded else ""
    earlier = profile.earlier_bases if selection.studies else ()
    return digest(profile.base, profile.training.get("weights"), weights_hash, earlier)
