"""Variants of a profile's runs: their names, their settings, and which of them the studies train.

A variant is a run whose settings may differ from those in the profile.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

from cae_lib.config import Experiment
from cae_lib.errors import ConfigError, field_types
from cae_lib.methods import PAPER_METHODS
from cae_lib.profiles import experiment, find_profile

BASE, CLIP_FT, NEGCLIP = "base", "clip-ft", "negclip"
"""Names of the base model, of the run without CAE (CLIP-FT), and of NegCLIP, the positive
control."""

DATA_RUN = "data"
"""Name that stands for a run in tables that describe the data and involve no model."""

GELU_CONTROLS: Mapping[str, str] = {f"{run}-gelu": run for run in (BASE, CLIP_FT)}
"""Controls whose weights were trained with QuickGELU but are evaluated with GELU. The name of each
control maps to the run or base model that has these weights. Open_clip evaluates a weight file with
GELU under the plain model name, and so do the evaluations of NegCLIP, CAE and MACCO."""

ABLATED_RUN = "cae-gradcam"
"""The CAE run whose settings the ablations vary. Its attribution method has all the settings that
are varied, and it closes the object-word gap even in short trainings."""

RUNS_FROM_EACH_BASE = (CLIP_FT, "cae-perturbation")
"""Runs that are trained from each base model: the reference, and the run with the attribution
method whose scores stay faithful."""

WEIGHT_MULTIPLIERS = (0.1, 0.3, 3.0, 10.0)
"""Multipliers of the weight that was chosen for a method. They range from a small weight to one
larger than needed to close the object-word gap."""

SETTINGS = tuple(
    field.name
    for field in dataclasses.fields(Experiment)
    if field.name not in ("name", "profile", "seed")
)
"""Names of the settings of a run."""

NAMED_VALUES = {"none": None, "true": True, "false": False}
"""Values of settings that are written as words, in upper or lower case, in a name or an option."""

DROPPED = "default"
"""Value in a name for a parameter of the attribution method that the run sets and a variant does
not."""


class Variant(NamedTuple):
    """A run, its changed settings (if any), and a number of seeds.

    Attributes:
        run: Name of the run in the profile; or "base" for the profile's base model, or "data" for
            its datasets.
        settings: Settings that differ from the profile's.
        seeds: Number of seeds that the studies train if the profile has as many.
    """

    run: str
    settings: dict[str, Any]
    seeds: int = 1

    def name(self, profile_name: str) -> str:
        """Return the name of the variant in tables; see `run_name`."""
        return run_name(self.run, profile_name, **self.settings)


def run_name(name: str, profile_name: str, **overrides: Any) -> str:
    """Return the name of a run in tables and their files, such as `cae-gradcam+short+scope=word`.

    "short" stands for the profile's `short` settings, if all of them are given. `base=600` stands
    for a run that starts from the base model with 600 training steps, and `steps=600` for that base
    model itself. Parameters of the attribution method are written as settings: those that differ
    from the run's own, and as `samples=default` those that the run sets and the variant leaves at
    the method's default. Characters other than letters, digits and "_.-~" are percent-encoded.

    Args:
        name: Name of the run in the profile, "base", or "data".
        profile_name: Name of the profile.
        **overrides: Settings that differ from the profile's.
    """
    profile, rest, parts = find_profile(profile_name), dict(overrides), [name]
    if profile.short and profile.short.items() <= rest.items():
        parts.append("short")
        rest = {key: value for key, value in rest.items() if key not in profile.short}
    for steps in profile.earlier_bases:
        if rest.get("weights") == shorter_base_weights(profile_name, steps):
            del rest["weights"]
            parts.append(f"{'steps' if name == BASE else 'base'}={steps}")
    if "attribution" in rest:
        parameters, own = dict(rest.pop("attribution")), _own_parameters(name, profile_name)
        rest |= dict(parameters.items() - own.items())
        rest |= dict.fromkeys(own.keys() - parameters.keys(), DROPPED)
    for key, value in sorted(rest.items()):
        short = isinstance(value, float) and value == float(f"{value:g}")
        text = f"{value:g}" if short else str(value)
        parts.append(f"{key}={quote(text, safe='')}")
    return "+".join(parts)


def _own_parameters(name: str, profile_name: str) -> dict[str, Any]:
    """Return the parameters of the attribution method that a run has in its profile."""
    is_run = name in find_profile(profile_name).runs
    return dict(experiment(name, profile_name).attribution) if is_run else {}


def parse_run_name(name: str, profile_name: str) -> tuple[str, dict[str, Any]]:
    """Split the name of a run in tables into the run and the settings that differ from its own.

    It reads back what `run_name` writes: the name of a run (or "base", "data" or one of
    `GELU_CONTROLS`), which settings may follow, as in `clip-ft+lr=5e-07+steps=100`. Any other name,
    such as the path of a weight file, is returned unchanged and without settings. The types of the
    values are not checked.

    Raises:
        ConfigError: If the profile or a setting in the name is unknown.
    """
    profile = find_profile(profile_name)
    row, *parts = name.split("+")
    if name in profile.runs or row not in (BASE, DATA_RUN, *GELU_CONTROLS, *profile.runs):
        return name, {}  # such as the path of a file whose folder is called "c++"
    settings: dict[str, Any] = {}
    parameters: dict[str, str] = {}
    for part in parts:
        key, _, text = part.partition("=")
        text = unquote(text)
        if part == "short":
            settings |= profile.short
        elif key == ("steps" if row == BASE else "base") and text in map(
            str, profile.earlier_bases
        ):
            settings["weights"] = shorter_base_weights(profile_name, int(text))
        elif key in SETTINGS or row not in profile.runs:
            settings[key] = parse_setting(key, text)
        else:
            parameters[key] = text
    if parameters:
        settings["attribution"] = _changed_parameters(row, profile_name, settings, parameters)
    return row, settings


def _changed_parameters(
    run: str, profile_name: str, settings: Mapping[str, Any], parameters: Mapping[str, str]
) -> tuple[tuple[str, Any], ...]:
    """Return the parameters of a run's attribution method after changes that a name states."""
    from cae_lib.attribution import get_method  # imports PyTorch, which few names need

    config = experiment(run, profile_name, **settings)
    method = config.method or ("binding" if config.foils == "exchanged" else None)
    known = [*vars(get_method(method))] if method else []
    for key, text in parameters.items():
        if key not in known:
            raise ConfigError(
                f"{key}={text}: expected a setting, one of {', '.join([*SETTINGS, *known])}"
            )
    changed = {key: parse_value(text) for key, text in parameters.items() if text != DROPPED}
    return tuple(
        (key, value)
        for key, value in (dict(config.attribution) | changed).items()
        if parameters.get(key) != DROPPED
    )


def has_seeds(run: str, profile_name: str) -> bool:
    """Return whether a run in tables is trained, once for each seed.

    This is true for the runs of a profile that have training steps, with or without other settings.
    It is false for the base model, the data, models that were not trained here, and other names.

    Raises:
        ConfigError: If the profile, or a setting in the name, is unknown.
    """
    row, settings = parse_run_name(run, profile_name)
    row = GELU_CONTROLS.get(row, row)
    is_run = row in find_profile(profile_name).runs
    return is_run and experiment(row, profile_name, **settings).steps > 0


def find_variant(run: str, profile_name: str, **settings: Any) -> Variant:
    """Return the variant that the name of a run in tables and further settings describe.

    Args:
        run: Name of the run, which may contain settings, such as `clip-ft+lr=5e-07`.
        profile_name: Name of the profile.
        **settings: Further settings, which replace those in the name. They are ignored if the run
            is "base" or "data".

    Returns:
        The variant. It contains only the settings that differ from the run's own. But if all of the
        profile's `short` settings apply, it contains all of these. For "base" and "data", it
        contains the settings in the name as they are. Its number of seeds is always 1.

    Raises:
        ConfigError: If the profile, the run or a setting is unknown, or a value is not allowed. The
            names in `GELU_CONTROLS` count as unknown.
    """
    row, named = parse_run_name(run, profile_name)
    if row in (BASE, DATA_RUN):
        return Variant(row, named)
    configured = experiment(row, profile_name)
    resolved = vars(experiment(row, profile_name, **named | settings))
    changed = {key: value for key, value in resolved.items() if value != getattr(configured, key)}
    short = find_profile(profile_name).short
    return Variant(row, changed | (short if short.items() <= resolved.items() else {}))


def parse_setting(key: str, text: str) -> Any:
    """Parse the value of a setting of a run, such as `2`, `none` or `(0.9, 0.98)`.

    Args:
        key: Name of the setting, a field of `Experiment` other than `name`, `profile` and `seed`.
        text: The value as a Python literal or one of `NAMED_VALUES`; other text is returned as it
            is. A mapping or a list becomes a tuple, an integer a float if the setting is one.
            Whether the value has the type of the setting is checked later, by `experiment`.

    Raises:
        ConfigError: If `key` is no such field.
    """
    if key not in SETTINGS:
        raise ConfigError(f"{key}={text}: expected a setting, one of {', '.join(SETTINGS)}")
    value = parse_value(text)
    if isinstance(value, (dict, list)):  # as in the files of `configs`
        return tuple(value.items() if isinstance(value, dict) else value)
    is_integer = field_types(Experiment)[key] is float and type(value) is int
    return float(value) if is_integer else value


def parse_value(text: str) -> Any:
    """Parse a Python literal or one of `NAMED_VALUES`; other text is returned as it is."""
    if text.lower() in NAMED_VALUES:
        return NAMED_VALUES[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError):
        return text


def shorter_base_weights(profile_name: str, steps: int) -> str:
    """Return the value of the setting `weights` of runs that start from a shorter-trained base.

    Args:
        profile_name: Name of the profile.
        steps: Number of steps of that base model's whole training, one of the profile's
            `earlier_bases`.
    """
    return find_profile(profile_name).training["weights"].replace("base", f"base-{steps}")


def ablations(profile_name: str) -> list[Variant]:
    """Return the variants that test the settings that the paper leaves open.

    They are variants of `CLIP_FT` and `ABLATED_RUN`, and all have the profile's `short` settings.
    The first variant of each run is the reference, in which nothing else is changed. Each further
    variant changes one setting. The exception is the variant with `image_gradient=False`, which
    needs an unlocked image tower and therefore unlocks it as well. Values that the profile already
    uses are left out. The list is empty for a profile without `short` settings.
    """
    short = find_profile(profile_name).short
    if not short:
        return []
    weight, opened = experiment(ABLATED_RUN, profile_name).weight, {"lock_image": False}
    varied: dict[str, list[dict[str, Any]]] = {
        CLIP_FT: [{}, opened],
        ABLATED_RUN: [
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
    """Return the base models with shorter training, and the `RUNS_FROM_EACH_BASE` from every base.

    The runs start from each of these base models and from the profile's own. They have the
    profile's `short` settings and two seeds. The list is empty for a profile without
    `earlier_bases`.
    """
    profile = find_profile(profile_name)
    starts = [
        {"weights": shorter_base_weights(profile_name, steps)} for steps in profile.earlier_bases
    ]
    runs = [
        Variant(run, profile.short | start, 2)
        for start in (*starts, {})
        for run in RUNS_FROM_EACH_BASE
    ]
    return [*(Variant(BASE, start) for start in starts), *runs] if profile.earlier_bases else []


def weight_variants(profile_name: str) -> list[Variant]:
    """Return the CAE runs of the paper's methods with multiples of their weights λ.

    The multiples are `WEIGHT_MULTIPLIERS`. The run that is in `RUNS_FROM_EACH_BASE` gets three
    seeds, the others one. The list is empty for a profile without `earlier_bases`.
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
    """Return the variants of the profile's runs that the studies train, once for each seed.

    The seeds of a variant are 0 to n - 1, where n is `Variant.seeds` or, if smaller, the profile's
    number of seeds. A variant and seed that occur in several studies are returned once. Base models
    are left out, and so are the runs of the studies that the profile itself lists
    (`Profile.studies`).
    """
    variants = (
        *base_variants(profile_name),
        *ablations(profile_name),
        *weight_variants(profile_name),
    )
    runs = {
        (variant.name(profile_name), seed): (variant, seed)
        for variant in variants
        for seed in range(min(variant.seeds, find_profile(profile_name).seeds))
        if variant.run != BASE
    }
    return list(runs.values())
