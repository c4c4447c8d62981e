"""The grid of a profile: the runs, by name and settings, and every job of a reproduction with what
it needs, as data. Nothing here loads a model or reads a set: it is what `cae plan` counts, and what
the processes of a laptop and the scheduler of a cluster both go through."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from cae_lib.config import Experiment, shipped
from cae_lib.methods import METHODS
from cae_lib.profiles import experiment, find_profile
from cae_lib.variants import BASE, CONTROL, TUNED, Variant, find_run, study_runs

CONTROL_SUITES = ("benchmarks", "attribution", "retrieval", "bindings")
HARD_SUITES = (*CONTROL_SUITES, "phrases")
"""What the pages show of controls, and of runs with hard negatives; `cae evaluate` measures all."""

STUDY_SUITES = CONTROL_SUITES[:2]
MAIN = {TUNED, CONTROL, "cae-binding", "placebo-binding",
        *(f"{kind}-{method}" for kind in ("cae", "negclip-cae", "placebo") for method in METHODS)}
"""The paper's rows, a placebo of each method, and bindings with one; all else is of the studies."""

OF_BINDINGS = {"wrong-binding", "kept-binding", "softmax-binding", "hinge-negclip",
               "negclip-binding"}
"""Rows of the page on bindings that are no study where data are real."""

STUDY_PAGES = ("what-decides", "quickgelu", "faithfulness", "blind")
"""Pages of the studies beside the paper, which have runs or suites of their own."""

OF_STUDIES = ("faithfulness", "sensitivity", "blind")
"""Suites that only these pages show."""

SCALE_PAGES = ("attribution", "bindings", "accuracy", "retrieval-and-text")
"""Pages that show a profile with real data."""

RELEASED_PAGE = "released-models"
LAST_PAGE = "status"
"""It lists the other pages as they are stored."""

BOUND = "cae-binding"
"""The row whose margin and lambda `cae tune --what binding` chooses."""

TUNING_SEED = 100
"""A seed that no reported run uses."""

SETS, TABLES, BOOK = "data/sets", "data/tables", "book/book"
"""Names of jobs: the sets of a profile are built or found, measured, and the book is rendered."""

class Job(NamedTuple):
    """What has to be done before it, and for a run its row, settings, seed and suites (none for
    all). Its name is STAGE/NAME, with /SEED for a run."""

    needs: tuple[str, ...] = ()
    variant: Variant | None = None
    seed: int = 0
    suites: tuple[str, ...] = ()

    def experiment(self, profile_name: str) -> Experiment | None:
        """The configuration of a training; None for another job."""
        if self.variant is None or self.variant.run == BASE:
            return None
        run, settings, _ = self.variant
        return experiment(run, profile_name, seed=self.seed, **settings)


class Choice(NamedTuple):
    """What a grid is to hold: the studies beside the paper; if given, some rows alone, without the
    pages, and so many seeds at most; or released models and their page in place of rows."""

    studies: bool = False
    rows: tuple[str, ...] = ()
    seeds: int | None = None
    released: tuple[str, ...] = ()


def grid(profile_name: str, choice: Choice) -> dict[str, Job]:
    """Every job of a reproduction by name, each after those that it needs. Where data are real, the
    settings are chosen first. ConfigError for an unknown profile or row."""
    rows = rows_of(profile_name, choice)
    if choice.released:
        measured = {f"released/{name}": Job() for name in choice.released}
        page = f"page/{RELEASED_PAGE}"
        return measured | {page: Job(tuple(measured)), BOOK: Job((page,))}
    found = {SETS: Job()}
    for data, tagger in sorted(_captions_of(profile_name, choice)):
        found[f"captions/{data}+{tagger}"] = Job((SETS,))
    ready = tuple(found)
    if find_profile(profile_name).real:
        found |= _tuning(profile_name, ready)
        ready = tuple(name for name in found if name.startswith(("captions/", "chosen/")))
    found[TABLES] = Job(ready)
    found[f"run/{BASE}/0"] = Job(ready, Variant(BASE, {}))
    settings = find_profile(profile_name).runs
    variants = [(variant, seed, suites_of(settings[variant.run], choice.studies))
                for seed in range(seeds_of(profile_name, choice))
                for variant in reversed(rows)]  # those with the longest steps first
    if choice.studies and not choice.rows:
        variants += [(variant, seed, STUDY_SUITES) for variant, seed in study_runs(profile_name)]
    for variant, seed, suites in variants:
        name = f"run/{variant.name(profile_name)}/{seed}"
        found[name] = Job(ready, variant, seed, suites)
    if choice.rows:
        return found  # the pages show all rows
    measured = tuple(name for name in found if name.startswith("run/") or name == TABLES)
    shown = [f"page/{name}" for name in pages_of(profile_name, choice.studies)]
    found |= {name: Job(measured) for name in shown}
    last = f"page/{LAST_PAGE}"
    if last in found:
        found[last] = Job((*measured, *(name for name in shown if name != last)))
        found[last] = found.pop(last)
    return found | {BOOK: Job(tuple(shown))}


def levels(jobs: Mapping[str, Job]) -> list[list[str]]:
    """The names of jobs in steps: those of a step need those of earlier steps alone."""
    step: dict[str, int] = {}
    for name, job in jobs.items():
        step[name] = 1 + max((step[other] for other in job.needs), default=-1)
    return [[name for name in jobs if step[name] == at] for at in range(1 + max(step.values()))]


def rows_of(profile_name: str, choice: Choice) -> list[Variant]:
    """The rows that are trained: those chosen, else all with the studies, else `MAIN`."""
    known = find_profile(profile_name).runs
    main = MAIN | OF_BINDINGS if find_profile(profile_name).real else MAIN
    names = choice.rows or [name for name in known if choice.studies or name in main]
    return [Variant(*find_run(name, profile_name)) for name in names]


def seeds_of(profile_name: str, choice: Choice) -> int:
    """The number of seeds of a row."""
    known = find_profile(profile_name).seeds
    return known if choice.seeds is None else min(known, choice.seeds)


def suites_of(row: Mapping[str, Any], studies: bool) -> tuple[str, ...]:
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


def pages_of(profile_name: str, studies: bool) -> list[str]:
    """The pages that show a profile; of smoke all but that of released models."""
    if find_profile(profile_name).real:
        return list(SCALE_PAGES)
    found = []
    for path in sorted(shipped("book/experiments").glob("*.md")):
        shown = re.search(r'^profile: str = "([\w-]+)"', path.read_text(encoding="utf-8"), re.M)
        own = shown and shown[1] == profile_name
        if own and (studies or path.stem not in STUDY_PAGES) or LAST_PAGE == path.stem:
            found.append(path.stem)
        elif not find_profile(profile_name).recorded and path.stem != RELEASED_PAGE:
            found.append(path.stem)
    return found


def _captions_of(profile_name: str, choice: Choice) -> set[tuple[str, str]]:
    """The training data of the runs, and what finds the roles of words in them."""
    found = rows_of(profile_name, choice)
    if choice.studies and not choice.rows:
        found += [variant for variant, _ in study_runs(profile_name)]
    configs = (experiment(run, profile_name, **settings) for run, settings, _ in found)
    return {(config.train_data, config.tagger) for config in configs}


def trials(what: str, profile_name: str) -> list[Variant]:
    """The trainings among which `cae tune --what` chooses: of "control" rate, steps and what is
    locked; of "binding" margin and lambda; of "lambda" the rows whose weight is walked."""
    known, search = find_profile(profile_name), find_profile(profile_name).search
    if what == "control":
        kept = experiment(TUNED, profile_name)
        own = {"lr": kept.lr, "steps": kept.steps, "lock_image": kept.lock_image}
        changes: list[dict[str, Any]] = [{"lr": lr} for lr in search.rates]
        changes += [{"steps": max(1, int(kept.steps * share))} for share in search.shares]
        changes += [{"lock_image": False}] * kept.lock_image
        return [Variant(name, own | change) for change in changes for name in (TUNED, CONTROL)]
    if what == "lambda":
        names = [f"cae-{method}" for method in METHODS]
        return [Variant(name, {}) for name in names if name in known.runs]
    return [Variant(BOUND, {"margin": margin, "weight": weight})
            for margin in search.margins for weight in search.binding_weights]


def _tuning(profile_name: str, ready: tuple[str, ...]) -> dict[str, Job]:
    """The jobs that choose settings: each trial, and after all of a kind the choice."""
    found: dict[str, Job] = {}
    for what in ("control", "lambda", "binding"):
        parts = {f"tune/{what}/{variant.name(profile_name)}": Job(ready, variant, TUNING_SEED)
                 for variant in trials(what, profile_name)}
        found |= parts | {f"chosen/{what}": Job(tuple(parts) or ready)}
        if what == "control":
            ready = (*ready, "chosen/control")  # the rate that the others are chosen at
    return found
