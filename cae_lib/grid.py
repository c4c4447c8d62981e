"""What a reproduction of a profile consists of: its runs, what is measured of each, and its pages.

Nothing here loads a model or reads a dataset. `workflow/Snakefile` puts the work in order and does
it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from cae_lib.config import Experiment, shipped
from cae_lib.keys import SUITE_VERSIONS, TRAINING_VERSION, digest
from cae_lib.methods import METHODS
from cae_lib.profiles import experiment, find_profile
from cae_lib.variants import BASE, CONTROL, TUNED, Variant, find_run, study_runs

CONTROL_SUITES = ("benchmarks", "attribution", "retrieval", "bindings")
HARD_SUITES = (*CONTROL_SUITES, "phrases")
"""What the pages show of controls, and of runs with hard negatives; `cae evaluate` measures all."""

STUDY_SUITES = CONTROL_SUITES[:2]
MAIN = {
    TUNED,
    CONTROL,
    "cae-binding",
    "placebo-binding",
    *(f"{kind}-{method}" for kind in ("cae", "negclip-cae", "placebo") for method in METHODS),
}
"""The paper's rows, a placebo of each method, and bindings with one; all else is of the studies."""

OF_BINDINGS = {
    "wrong-binding",
    "kept-binding",
    "softmax-binding",
    "hinge-negclip",
    "negclip-binding",
}
"""Rows of the page on bindings that are no study where data are real."""

STUDY_PAGES = ("what-decides", "quickgelu", "faithfulness", "blind")
"""Pages of the studies beside the paper, which have runs or suites of their own."""

OF_STUDIES = ("faithfulness", "sensitivity", "blind")
"""Suites that only these pages show."""

SCALE_PAGES = ("attribution", "bindings", "accuracy", "retrieval-and-text")
"""Pages that show a profile with real data."""

LAST_PAGE = "status"
"""It lists the other pages as they are stored."""

DATA_RUN = "data"
"""The run that stands for the tables of the datasets, which need no model."""


NOT_OF_RUNS = {DATA_RUN, "validation"}
"""Suites of `SUITE_VERSIONS` that are not measured of runs."""


class Choice(NamedTuple):
    """What of a profile is reproduced.

    Attributes:
        studies: Whether the studies beside the paper are.
        rows: Some rows alone, without the pages; none for all of them.
        seeds: The largest number of seeds of a row; None for the profile's.
    """

    studies: bool = False
    rows: tuple[str, ...] = ()
    seeds: int | None = None


class Run(NamedTuple):
    """A row with its settings and seed, and the suites that are measured of it (none for all)."""

    variant: Variant
    seed: int = 0
    suites: tuple[str, ...] = ()

    def experiment(self, profile_name: str) -> Experiment | None:
        """Return the settings of its training; None for the base model and the data."""
        if self.variant.run in (BASE, DATA_RUN):
            return None
        run, settings, _ = self.variant
        return experiment(run, profile_name, seed=self.seed, **settings)

    def key(self, profile_name: str, studies: bool) -> str:
        """Return a digest of what decides it beside the data and the first weights: its settings,
        its suites and their versions."""
        config = self.experiment(profile_name)
        trained = [config.key(), TRAINING_VERSION] if config else [self.variant.run]
        suites = (DATA_RUN,) if self.variant.run == DATA_RUN else self.suites
        versions = {
            suite: version
            for suite, version in SUITE_VERSIONS.items()
            if suite in (suites or SUITE_VERSIONS.keys() - NOT_OF_RUNS)
        }
        return digest(trained, versions, studies)


def choice(profile_name: str, config: Mapping[str, Any]) -> Choice:
    """Read what is to be reproduced from the keys `all`, `rows` (names with commas between them)
    and `seeds` of a configuration of Snakemake."""
    studies = bool(config.get("all")) or not find_profile(profile_name).studies_apart
    rows = str(config.get("rows") or "")
    seeds = config.get("seeds")
    return Choice(
        studies,
        tuple(name.strip() for name in rows.split(",") if name.strip()),
        None if seeds is None else int(seeds),
    )


def runs(profile_name: str, chosen: Choice) -> dict[str, Run]:
    """Return every run of a reproduction by ROW/SEED, with the data and the base model before them.

    ConfigError for an unknown profile or row.
    """
    found = {f"{DATA_RUN}/0": Run(Variant(DATA_RUN, {})), f"{BASE}/0": Run(Variant(BASE, {}))}
    settings = find_profile(profile_name).runs
    rows = [
        Run(variant, seed, suites_of(settings[variant.run], chosen.studies))
        for seed in range(seeds_of(profile_name, chosen))
        for variant in rows_of(profile_name, chosen)
        if not seed or settings[variant.run].get("steps") != 0  # which no seed changes
    ]
    if chosen.studies and not chosen.rows:
        rows += [Run(variant, seed, STUDY_SUITES) for variant, seed in study_runs(profile_name)]
    return found | {f"{run.variant.name(profile_name)}/{run.seed}": run for run in rows}


def rows_of(profile_name: str, chosen: Choice) -> list[Variant]:
    """Return the rows chosen, else all that are trained with the studies, else `MAIN`."""
    known = find_profile(profile_name).runs
    main = MAIN | OF_BINDINGS if find_profile(profile_name).real else MAIN
    trained = [name for name in known if known[name].get("steps") != 0]
    names = chosen.rows or [name for name in trained if chosen.studies or name in main]
    found = [Variant(*find_run(name, profile_name)) for name in names]
    for row in found:
        experiment(row.run, profile_name, **row.settings)  # which says what is wrong with a name
    return found


def seeds_of(profile_name: str, chosen: Choice) -> int:
    """Return the number of seeds of a row."""
    known = find_profile(profile_name).seeds
    return known if chosen.seeds is None else min(known, chosen.seeds)


def suites_of(row: Mapping[str, Any], studies: bool) -> tuple[str, ...]:
    """Return what is measured of a row of a profile; empty for everything. Only `studies` show
    attribution in placebos and in NegCLIP with CAE."""
    if row.keys() & {"roles", "tagger", "foils"}:
        suites = CONTROL_SUITES
    elif row.get("negatives"):
        suites = HARD_SUITES
    else:
        return ()
    shown = studies or not row.get("method")
    return tuple(suite for suite in suites if shown or suite != "attribution")


def captions_of(profile_name: str, chosen: Choice) -> list[tuple[str, str]]:
    """Return the training data of the runs, each with what finds the roles of words in it."""
    configs = [run.experiment(profile_name) for run in runs(profile_name, chosen).values()]
    trained = [config for config in configs if config and config.steps]
    return sorted({(config.train_data, config.tagger) for config in trained})


def pages_of(profile_name: str, chosen: Choice) -> list[str]:
    """Return the pages that show a profile, none where some rows alone are chosen."""
    if chosen.rows:
        return []
    if find_profile(profile_name).real:
        return list(SCALE_PAGES)
    found = []
    for path in sorted(shipped("book/experiments").glob("*.md")):
        shown = re.search(r'^profile: str = "([\w-]+)"', path.read_text(encoding="utf-8"), re.M)
        own = shown and shown[1] == profile_name
        if own and (chosen.studies or path.stem not in STUDY_PAGES) or LAST_PAGE == path.stem:
            found.append(path.stem)
        elif not find_profile(profile_name).recorded:
            found.append(path.stem)
    return found
