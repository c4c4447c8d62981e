"""Variants of a profile's runs: their names, their settings, and which ones the studies train."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from cae_lib.config import Experiment
from cae_lib.errors import ConfigError, field_types
from cae_lib.methods import PAPER_METHODS
from cae_lib.profiles import experiment, find_profile

BASE, TUNED, CONTROL = "base", "clip-ft", "negclip"
DATA = "data"
"""Name of the run under which tables that belong to the data and to no model are stored."""

CONTROLS: Mapping[str, str] = {f"{run}-gelu": run for run in (BASE, TUNED)}
"""Controls whose weights were trained with QuickGELU but are evaluated with GELU. This is how
open_clip loads a file under the plain model name, and what the evaluations of NegCLIP, CAE
and MACCO do."""

ABLATED = "cae-gradcam"
"""The run whose settings are varied. Its method has all the settings, and it closes the
object-word gap within a short run."""

RUNS_FROM_EACH_BASE = (TUNED, "cae-perturbation")
"""Runs that are trained from each base model: the reference, and the method whose attribution
scores stay faithful."""

WEIGHT_MULTIPLIERS = (0.1, 0.3, 3.0, 10.0)
"""Multipliers of the weight that was chosen for a method. They range from a small weight to one
larger than needed to close the object-word gap."""

NAMED_VALUES = {"none": None, "true": True, "false": False}
"""Values that are written as words, in any case."""

PLAIN_VALUE = re.compile(r"[\w.-]{1,24}")


class Variant(NamedTuple):
    """A run of a profile, or its base model, with changed settings and a number of seeds."""

    run: str
    settings: dict[str, Any]
    seeds: int = 1

    def name(self, profile_name: str) -> str:
        """Return the name of the variant in tables."""
        return run_name(self.run, profile_name, **self.settings)


def run_name(name: str, profile_name: str, **overrides: Any) -> str:
    """Return the name of a run in tables and their files, such as `cae-gradcam+short+scope=word`.

    "short" stands for the profile's `short` settings, and `base=600` for a run that starts from the
    base model with 600 steps. A value that is long or contains unusual characters is replaced by
    its hash.
    """
    profile, rest, parts = find_profile(profile_name), dict(overrides), [name]
    if profile.short and profile.short.items() <= rest.items():
        parts.append("short")
        rest = {key: value for key, value in rest.items() if key not in profile.short}
    for steps in profile.earlier_bases:
        if rest.get("weights") == earlier_base(profile_name, steps):
            del rest["weights"]
            parts.append(f"{'steps' if name == BASE else 'base'}={steps}")
    rest |= dict(rest.pop("attribution", ()))
    for key, value in sorted(rest.items()):
        short = isinstance(value, float) and value == float(f"{value:g}")
        text = f"{value:g}" if short else str(value)
        if not PLAIN_VALUE.fullmatch(text):
            text = hashlib.sha256(text.encode()).hexdigest()[:8]
        parts.append(f"{key}={text}")
    return "+".join(parts)


def parse_run_name(name: str, profile_name: str) -> tuple[str, dict[str, Any]]:
    """Return the run and the overrides that a name stands for.

    The name may be that of a run of the studies, or a run followed by settings, such as
    `clip-ft+lr=5e-07+steps=100`. Any other name is returned as the run itself, without overrides.
    """
    if name in find_profile(profile_name).runs:
        return name, {}
    for variant in (
        *ablations(profile_name),
        *base_variants(profile_name),
        *lead_variants(profile_name),
    ):
        if variant.name(profile_name) == name:
            return variant.run, variant.settings
    row, *parts = name.split("+")
    if row not in (BASE, DATA, *CONTROLS, *find_profile(profile_name).runs):
        return name, {}  # such as the path of a file whose folder is called "c++"
    settings: dict[str, Any] = {}
    for part in parts:
        key, _, text = part.partition("=")
        settings |= (
            find_profile(profile_name).short if part == "short" else {key: parse_setting(key, text)}
        )
    return row, settings


def find_variant(run: str, profile_name: str, **settings: Any) -> Variant:
    """Return a run, given by its name in tables, with other `settings`.

    Settings that the run already has are not repeated in the variant's name.

    Raises:
        ConfigError: For an unknown run or setting, or a value of the wrong type.
    """
    row, named = parse_run_name(run, profile_name)
    if row in (BASE, DATA):
        return Variant(row, named)
    configured = experiment(row, profile_name)
    resolved = vars(experiment(row, profile_name, **named | settings))
    changed = {key: value for key, value in resolved.items() if value != getattr(configured, key)}
    short = find_profile(profile_name).short
    return Variant(row, changed | (short if short.items() <= resolved.items() else {}))


def parse_setting(key: str, text: str) -> Any:
    """Parse the value of a setting of a run, such as `2`, `none` or `(0.9, 0.98)`.

    The type of the value is checked later, by `experiment`.

    Raises:
        ConfigError: If there is no setting `key`.
    """
    hints = field_types(Experiment)
    names = [name for name in hints if name not in ("name", "profile", "seed")]
    if key not in names:
        raise ConfigError(f"{key}={text}: expected a setting, one of {', '.join(names)}")
    try:
        value = (
            NAMED_VALUES[text.lower()] if text.lower() in NAMED_VALUES else ast.literal_eval(text)
        )
    except (ValueError, SyntaxError):
        return text
    return float(text) if hints[key] is float and type(value) is int else value


def earlier_base(profile_name: str, steps: int) -> str:
    """Return the setting `weights` of runs that start from the base model with fewer steps."""
    return find_profile(profile_name).training["weights"].replace("base", f"base-{steps}")


def ablations(profile_name: str) -> list[Variant]:
    """Return a variant for each value that is tried of a setting that the paper leaves open.

    All build on the profile's `short` settings; the first variant of each run is its reference. A
    variant changes one setting, but for `image_gradient`, which needs an open image tower. A value
    that the profile already uses gives no variant, and a profile without `short` settings has no
    ablations.
    """
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
    variants = []
    for run, rows in varied.items():
        has = vars(experiment(run, profile_name)).items()
        first, *new = [dict(settings.items() - has) for settings in rows]
        variants += [Variant(run, short | settings) for settings in (first, *filter(None, new))]
    return variants


def base_variants(profile_name: str) -> list[Variant]:
    """Return the base models with fewer steps, and the `RUNS_FROM_EACH_BASE` from every base.

    The bases are those with fewer steps and the profile's own; the runs have the profile's `short`
    settings and two seeds. The list is empty for a profile without `earlier_bases`.
    """
    profile = find_profile(profile_name)
    starts = [{"weights": earlier_base(profile_name, steps)} for steps in profile.earlier_bases]
    runs = [
        Variant(run, profile.short | start, 2)
        for start in (*starts, {})
        for run in RUNS_FROM_EACH_BASE
    ]
    return [*(Variant(BASE, start) for start in starts), *runs] if profile.earlier_bases else []


def lead_variants(profile_name: str) -> list[Variant]:
    """Return each method of the paper with the multiples `WEIGHT_MULTIPLIERS` of its chosen weight.

    The method in `RUNS_FROM_EACH_BASE` gets three seeds, the others one. The list is empty for a
    profile without `earlier_bases`.
    """
    methods = PAPER_METHODS if find_profile(profile_name).earlier_bases else ()
    rows = {f"cae-{method}": experiment(f"cae-{method}", profile_name) for method in methods}
    return [
        Variant(
            name, {"weight": round(share * row.weight, 9)}, 3 if name in RUNS_FROM_EACH_BASE else 1
        )
        for name, row in rows.items()
        for share in WEIGHT_MULTIPLIERS
    ]


def study_runs(profile_name: str) -> list[tuple[Variant, int]]:
    """Return every run of the studies with its seed, without duplicates and without base models."""
    variants = (
        *base_variants(profile_name),
        *ablations(profile_name),
        *lead_variants(profile_name),
    )
    runs = {
        (variant.name(profile_name), seed): (variant, seed)
        for variant in variants
        for seed in range(min(variant.seeds, find_profile(profile_name).seeds))
        if variant.run != BASE
    }
    return list(runs.values())
