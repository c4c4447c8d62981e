"""The runs of a profile beside its rows, by name and settings: what the studies vary."""

from __future__ import annotations

import ast
import hashlib
import re
import typing
from collections.abc import Mapping
from typing import Any, NamedTuple

from cae_lib.config import Experiment
from cae_lib.errors import ConfigError
from cae_lib.methods import METHODS
from cae_lib.profiles import experiment, find_profile

BASE, TUNED, CONTROL = "base", "clip-ft", "negclip"
DATA = "data"
"""The run of tables that belong to the data and to no model."""

CONTROLS: Mapping[str, str] = {f"{run}-gelu": run for run in (BASE, TUNED)}
"""Weights trained with QuickGELU and read with GELU, as open_clip loads a file under its plain
name: what the evaluations of NegCLIP, CAE and MACCO do."""

ABLATED = "cae-gradcam"
"""The run whose settings are varied: its method has all of them, and levels within a short run."""

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
    for variant in (
        *ablations(profile_name),
        *base_variants(profile_name),
        *lead_variants(profile_name),
    ):
        if variant.name(profile_name) == name:
            return variant.run, variant.settings
    row, *parts = name.split("+")
    found: dict[str, Any] = {}
    for part in parts:
        key, _, text = part.partition("=")
        found |= find_profile(profile_name).short if part == "short" else {key: setting(key, text)}
    return row, found


def find_variant(run: str, profile_name: str, **settings: Any) -> Variant:
    """Return a run, by its name in tables, with other `settings`; those that it has already are no
    part of its name. ConfigError for an unknown run or setting, or a value of the wrong type."""
    row, named = find_run(run, profile_name)
    if row in (BASE, DATA):
        return Variant(row, named)
    configured = experiment(row, profile_name)
    wanted = vars(experiment(row, profile_name, **named | settings))
    changed = {key: value for key, value in wanted.items() if value != getattr(configured, key)}
    short = find_profile(profile_name).short
    return Variant(row, changed | (short if short.items() <= wanted.items() else {}))


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
            {},
            {"weight": weight / 10},
            {"weight": weight * 10},
            {"margin": 0.05},
            {"scope": "caption"},
            {"scope": "word"},
            {"stop_gradient": True},
            {"attribution": (("start_layer", -1),)},
            {"attribution": (("second_order", False),)},
            {"tagger": "dependency"},
            opened,
            opened | {"image_gradient": False},
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
    return [
        Variant(name, {"weight": round(share * row.weight, 9)}, 3 if name in BASE_STUDY else 1)
        for name, row in rows.items()
        for share in LEADS
    ]


def study_runs(profile_name: str) -> list[tuple[Variant, int]]:
    """Every run of the studies with its seed, none twice; base models are not among them."""
    variants = (
        *base_variants(profile_name),
        *ablations(profile_name),
        *lead_variants(profile_name),
    )
    found = {
        (variant.name(profile_name), seed): (variant, seed)
        for variant in variants
        for seed in range(min(variant.seeds, find_profile(profile_name).seeds))
        if variant.run != BASE
    }
    return list(found.values())
