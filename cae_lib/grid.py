"""The grid of a profile: the runs, by name and settings, and every job of a reproduction with what
it needs, as data. Nothing here loads a model or reads a set: it is what `cae plan` counts, and what
the processes of a laptop and the scheduler of a cluster both go through."""

from __future__ import annotations

import ast
import hashlib
import re
import typing
from collections.abc import Mapping
from typing import Any, NamedTuple

from cae_lib.config import METHODS, Experiment, experiment, find_profile, shipped
from cae_lib.errors import ConfigError

BASE, TUNED, CONTROL = "base", "clip-ft", "negclip"
CONTROLS: Mapping[str, str] = {f"{run}-gelu": run for run in (BASE, TUNED)}
"""Weights trained with QuickGELU and read with GELU, as open_clip loads a file under its plain
name: what the evaluations of NegCLIP, CAE and MACCO do."""

ABLATED = "cae-gradcam"
"""The run whose settings are varied: its method has all of them, and levels within a short run."""

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

STUDY_PAGES = ("what-decides", "faithfulness", "blind")
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

BASE_STUDY = (TUNED, "cae-perturbation")
"""Trained from each base model: the reference, and the method whose scores stay faithful."""

LEADS = (0.1, 0.3, 3.0, 10.0)
"""Of the chosen weight of a method: from little to beyond what levels attribution."""

WORDS = {"none": None, "true": True, "false": False}
PLAIN = re.compile(r"[\w.-]{1,24}")


class Variant(NamedTuple):
    """A run of a profile (or its base model) with other settings, and the seeds that it takes."""

    run: str
    settings: dict[str, Any]
    seeds: int = 1

    def name(self, profile_name: str) -> str:
        """The run's name in tables."""
        return run_name(self.run, profile_name, **self.settings)


def run_name(name: str, profile_name: str, **overrides: Any) -> str:
    """The name of a run in tables and their files, such as `cae-gradcam+short+scope=word`: "short"
    for the profile's `short` settings, `base=600` for the base model of so many steps that a run
    starts from, a hash for a value that is long or no word."""
    chosen, rest, parts = find_profile(profile_name), dict(overrides), [name]
    if chosen.short and chosen.short.items() <= rest.items():
        parts.append("short")
        rest = {key: value for key, value in rest.items() if key not in chosen.short}
    for steps in chosen.earlier_bases:
        if rest.get("weights") == earlier_base(profile_name, steps):
            del rest["weights"]
            parts.append(f"{'steps' if name == BASE else 'base'}={steps}")
    rest |= dict(rest.pop("attribution", ()))
    for key, value in sorted(rest.items()):
        short = isinstance(value, float) and value == float(f"{value:g}")
        text = f"{value:g}" if short else str(value)
        if not PLAIN.fullmatch(text):
            text = hashlib.sha256(text.encode()).hexdigest()[:8]
        parts.append(f"{key}={text}")
    return "+".join(parts)


def find_run(name: str, profile_name: str) -> tuple[str, dict[str, Any]]:
    """Row and overrides of a run of the studies by its name, or of a row with settings behind it,
    such as `clip-ft+lr=5e-07+steps=100`; any other name is a row itself."""
    for variant in (*ablations(profile_name), *base_variants(profile_name),
                    *lead_variants(profile_name)):
        if variant.name(profile_name) == name:
            return variant.run, variant.settings
    row, *parts = name.split("+")
    found: dict[str, Any] = {}
    for part in parts:
        key, _, text = part.partition("=")
        found |= find_profile(profile_name).short if part == "short" else {key: setting(key, text)}
    return row, found


def setting(key: str, text: str) -> Any:
    """The value of `2`, `none`, `(0.9, 0.98)` and the like for a setting of a run, whose type
    `experiment` checks; ConfigError if there is no such setting."""
    hints = typing.get_type_hints(Experiment)
    known = [name for name in hints if name not in ("name", "profile", "seed")]
    if key not in known:
        raise ConfigError(f"{key}={text}: expected a setting, one of {', '.join(known)}")
    try:
        value = WORDS[text.lower()] if text.lower() in WORDS else ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return float(text) if hints[key] is float and type(value) is int else value


def earlier_base(profile_name: str, steps: int) -> str:
    """The setting `weights` of runs that start from a base model of fewer steps."""
    return find_profile(profile_name).training["weights"].replace("base", f"base-{steps}")


def ablations(profile_name: str) -> list[Variant]:
    """Every setting of the loss that the paper leaves open, varied one at a time, with the
    profile's `short` settings. The first variant of a run is its reference; what the profile has
    already is no variant. Without `short` settings there is none."""
    short = find_profile(profile_name).short
    if not short:
        return []
    weight, opened = experiment(ABLATED, profile_name).weight, {"lock_image": False}
    varied: dict[str, list[dict[str, Any]]] = {
        TUNED: [{}, opened],
        ABLATED: [
            {}, {"weight": weight / 10}, {"weight": weight * 10}, {"margin": 0.05},
            {"scope": "caption"}, {"scope": "word"}, {"stop_gradient": True},
            {"attribution": (("start_layer", -1),)}, {"attribution": (("second_order", False),)},
            {"tagger": "dependency"}, opened, opened | {"image_gradient": False},
        ],
    }
    found = []
    for run, rows in varied.items():
        has = vars(experiment(run, profile_name)).items()
        first, *new = [dict(settings.items() - has) for settings in rows]
        found += [Variant(run, short | settings) for settings in (first, *filter(None, new))]
    return found


def base_variants(profile_name: str) -> list[Variant]:
    """The base models of fewer steps, and the runs of `BASE_STUDY` from each and from the base."""
    chosen = find_profile(profile_name)
    starts = [{"weights": earlier_base(profile_name, steps)} for steps in chosen.earlier_bases]
    found = [Variant(run, chosen.short | start, 2) for start in (*starts, {}) for run in BASE_STUDY]
    return [*(Variant(BASE, start) for start in starts), *found] if chosen.earlier_bases else []


def lead_variants(profile_name: str) -> list[Variant]:
    """Each paper method with other weights than the chosen one, from little to beyond levelling;
    of the method of `BASE_STUDY` three seeds. None without `earlier_bases`."""
    methods = METHODS if find_profile(profile_name).earlier_bases else ()
    rows = {f"cae-{method}": experiment(f"cae-{method}", profile_name) for method in methods}
    return [Variant(name, {"weight": round(share * row.weight, 9)}, 3 if name in BASE_STUDY else 1)
            for name, row in rows.items() for share in LEADS]


def study_runs(profile_name: str) -> list[tuple[Variant, int]]:
    """Every run of the studies with its seed, none twice; base models are not among them."""
    variants = (*base_variants(profile_name), *ablations(profile_name),
                *lead_variants(profile_name))
    found = {(variant.name(profile_name), seed): (variant, seed) for variant in variants
             for seed in range(min(variant.seeds, find_profile(profile_name).seeds))
             if variant.run != BASE}
    return list(found.values())


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
    methods = find_profile(profile_name).methods
    variants = [(variant, seed, suites_of(methods[variant.run], choice.studies))
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
    known = find_profile(profile_name).methods
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
    """The pages that show a profile; of smoke all pages."""
    if find_profile(profile_name).real:
        return list(SCALE_PAGES)
    found = []
    for path in sorted(shipped("book/experiments").glob("*.md")):
        shown = re.search(r'^profile: str = "([\w-]+)"', path.read_text(encoding="utf-8"), re.M)
        own = shown and shown[1] == profile_name
        if own and (studies or path.stem not in STUDY_PAGES) or LAST_PAGE == path.stem:
            found.append(path.stem)
        elif not find_profile(profile_name).recorded:
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
        return [Variant(name, {}) for name in names if name in known.methods]
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
