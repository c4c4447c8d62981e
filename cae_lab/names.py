"""Names that runs have in every profile, and settings as they are written in names and options."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Mapping
from typing import Any

from cae_lib.config import Experiment
from cae_lib.errors import ConfigError, field_types

# The base model, the run without CAE, and the positive control.
BASE, CLIP_FT, NEGCLIP = "base", "clip-ft", "negclip"

# Stands for a run in tables that describe the data and involve no model.
DATA_RUN = "data"

# Controls by the run or base model whose weights they have: trained with QuickGELU, evaluated with
# GELU. open_clip evaluates a weight file so under the plain model name, and so did the evaluations
# of NegCLIP, CAE and MACCO.
GELU_CONTROLS: Mapping[str, str] = {f"{run}-gelu": run for run in (BASE, CLIP_FT)}

# Names of the settings of a run.
SETTINGS = tuple(
    field.name
    for field in dataclasses.fields(Experiment)
    if field.name not in ("name", "profile", "seed")
)

# Values that are written as words, in upper or lower case, in a name or an option.
NAMED_VALUES = {"none": None, "true": True, "false": False}


def parse_setting(key: str, text: str) -> Any:
    """Parse the value of a setting of a run, such as `2`, `none` or `(0.9, 0.98)`.

    `Profile.experiment` checks whether it has the type of the setting.
    """
    if key not in SETTINGS:
        raise ConfigError(f"{key}={text}: expected a setting, one of {', '.join(SETTINGS)}")
    value = parse_value(text)
    # Fields of `Experiment` with several values are tuples, as `profiles` makes them from YAML.
    if isinstance(value, (dict, list)):
        return tuple(value.items() if isinstance(value, dict) else value)
    # Not `isinstance`, since a bool is an int: `lr=true` has to stay a bool and be refused.
    is_integer = field_types(Experiment)[key] is float and type(value) is int
    return float(value) if is_integer else value


def parse_value(text: str) -> Any:
    """Parse a Python literal or one of `NAMED_VALUES`; other text is returned as it is."""
    if text.lower() in NAMED_VALUES:
        return NAMED_VALUES[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError):  # TypeError: a list as the key of a mapping
        return text
