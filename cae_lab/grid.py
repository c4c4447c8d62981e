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
    """The part of a profile that is reproduced.

    Attributes:
        profile: The profile.
        studies: Whether the studies beside the paper are included.
        rows: Names of runs, without their seeds, to which the reproduction is limited; a name may
            contain settings. Pages are then left out. Empty for the pages and all runs, of which
            those of the studies are included only if `studies` is true.
        seeds: Number of seeds of each run.
    """

    profile: Profile
    studies: bool
    rows: tuple[str, ...]
    seeds: int


def parse_selection(profile: Profile, config: Mapping[str, Any]) -> Selection:
    """Read a selection from a Snakemake configuration.

    Args:
        profile: The profile. If its `studies_apart` is false, the studies are always selected.
        config: The configuration. Its keys `all` (whether to include the studies), `rows` (names
            separated by commas) and `seeds` (the largest number of seeds of each run) are read;
            each may be missing.

    Raises:
        ValueError: If `seeds` is not a number.
    """
    studies = bool(config.get("all")) or not profile.studies_apart
    rows = [name.strip() for name in str(config.get("rows") or "").split(",")]
    seeds = min(profile.seeds, int(config.get("seeds") or profile.seeds))
    return Selection(profile, studies, tuple(filter(None, rows)), seeds)


def planned_runs(selection: Selection) -> dict[str, Run]:
    """Return every run of a reproduction, named NAME/SEED.

    The first two entries, "data/0" and "base/0", stand for the data and the base model. A run with
    0 steps has the seed 0 alone, since no seed changes its weights. With the studies, the variants
    of the profile follow, with their own numbers of seeds, and the models evaluated with GELU.

    Raises:
        ConfigError: If a selected run or one of its settings is unknown.
    """
    profile = selection.profile
    runs = [profile.run(DATA_RUN), profile.run(BASE)]
    names = selection.rows or [
        name
        for name, settings in profile.runs.items()
        if settings.get("steps") != 0 and (selection.studies or name not in profile.studies)
    ]
    runs += [profile.run(name, seed) for seed in range(selection.seeds) for name in names]
    if selection.studies and not selection.rows:
        runs.append(profile.run(f"{BASE}-gelu"))
        runs += [profile.run(f"{CLIP_FT}-gelu", seed) for seed in range(selection.seeds)]
        runs += [
            profile.run(name, seed)
            for name, seeds in profile.variants.items()
            for seed in range(min(seeds, profile.seeds))
        ]
    return {f"{run.name}/{run.seed}": run for run in runs}


def jobs(selection: Selection) -> list[tuple[str, list[str]]]:
    """Return the jobs that execute the runs: the name of each job, and its runs as NAME/SEED.

    With real data, each run and seed is a job of its own, which is also named NAME/SEED, since a
    training takes hours. With other data, a job is named NAME and executes all seeds of a run: a
    training takes about a minute, and a third of this is spent on imports and on reading the
    datasets.

    Raises:
        ConfigError: If a selected run or one of its settings is unknown.
    """
    grouped: dict[str, list[str]] = {}
    for name in planned_runs(selection):
        job = name if selection.profile.is_real else name.rpartition("/")[0]
        grouped.setdefault(job, []).append(name)
    return list(grouped.items())


def runs_before(names: Iterable[str], planned: Mapping[str, Run]) -> list[str]:
    """Return the planned runs that train the weights of the `GELU_CONTROLS` among some runs.

    A control would wait for the same training otherwise, and occupy a GPU meanwhile.

    Args:
        names: The runs, as NAME/SEED.
        planned: All runs of the reproduction; see `planned_runs`.
    """
    controls = [planned[name] for name in names if planned[name].entry in GELU_CONTROLS]
    trained = [f"{GELU_CONTROLS[run.entry]}/{run.seed}" for run in controls]
    return [name for name in trained if name in planned]


def run_key(run: Run, suites: Sequence[Suite]) -> str:
    """Return a digest that changes when a run has to be trained or measured again.

    It covers the settings, the versions of training and of what is read from text, and the suites
    with their versions; for the base model and the data, it covers their names instead of settings
    and training. It does not cover the seed. `data_key` and `base_key` cover the data and the base
    model, but nothing covers the content of the weights of a run with 0 steps.

    Args:
        run: The run.
        suites: The suites that are measured for it.
    """
    trained: list[object] = [run.entry, *map(list, run.settings)]
    if run.is_trained_here or run.is_external:
        trained = [
            run.profile.run(run.name).config.key(),
            sorted(text_versions(run.config).items()),
        ]
        trained.append(TRAINING_VERSION if run.is_trained_here else EXTERNAL_LOADER_VERSION)
    versions = {suite.name: suite.version for suite in suites}
    return digest(trained, DATA_VERSION if run.entry == DATA_RUN else versions)


def training_sets_of(selection: Selection) -> list[tuple[str, str]]:
    """Return the pairs of training set and tagger that the runs use, by their names.

    The pairs are distinct and sorted; a training set occurs once for each tagger that runs use with
    it. Runs with 0 steps use no training set.
    """
    configs = [run.config for run in planned_runs(selection).values() if run.is_trained_here]
    return sorted({(config.train_data, config.tagger) for config in configs})


def pages_of(selection: Selection) -> list[str]:
    """Return the names of the pages that show a profile, as `book/pages.yml` lists them.

    If the selection is limited to some runs, the list is empty. A profile whose numbers are
    meaningless has all pages.
    """
    profile = selection.profile
    if selection.rows:
        return []
    pages = yaml.safe_load(bundled_path("book/pages.yml").read_text(encoding="utf-8"))
    if profile.is_real:
        return [name for name, page in pages.items() if page.get("real")]
    return [
        name
        for name, page in pages.items()
        if not profile.recorded
        or page.get("last")
        or (page["profile"] == profile.name and (selection.studies or not page.get("study")))
    ]


def last_pages() -> set[str]:
    """Return the names of the pages that are executed after all others."""
    pages = yaml.safe_load(bundled_path("book/pages.yml").read_text(encoding="utf-8"))
    return {name for name, page in pages.items() if page.get("last")}


def data_key(selection: Selection, generator_key: str = "") -> str:
    """Return a digest of what the datasets of a reproduction are made and parsed from.

    It covers the names of the training sets and their taggers, and in a rehearsal nothing else. For
    real datasets it also covers the content of the annotation files and which files are missing;
    for synthetic scenes and photographs, `generator_key`.

    Args:
        selection: Part of the profile that is reproduced.
        generator_key: For synthetic scenes, the digest of the generator's settings; for
            photographs, the version of the recipe. It is not used for other profiles.
    """
    captions, profile = training_sets_of(selection), selection.profile
    if profile.is_rehearsal:
        return digest(captions)
    if profile.is_real:
        from cae_bench.missing import source_reports, sources_digest
        from cae_lab.needs import required_sources

        names = required_sources(profile)
        return digest(captions, sources_digest(source_reports(names), names))
    return digest(captions, generator_key)


def base_key(selection: Selection) -> str:
    """Return a digest of the base model: its training settings, and its weights if shipped.

    The weights are covered by the profile's setting `weights` and, if the profile is `recorded` and
    their file exists, by the content of this file. If the selection includes the studies, the
    digest also covers the numbers of steps of the shorter base trainings.
    """
    profile = selection.profile
    weights = bundled_path(f"data/{profile.training.get('weights')}")
    weights_hash = file_hash(weights) if weights.is_file() and profile.recorded else ""
    earlier = profile.earlier_bases if selection.studies else ()
    return digest(profile.base, profile.training.get("weights"), weights_hash, earlier)
