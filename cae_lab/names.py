"""Names that runs have in every profile, and settings as they are written in names and options."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Mapping
from typing import Any

from cae_lib.config import Experiment
from cae_lib.errors import ConfigError, field_types

BASE, CLIP_FT, NEGCLIP = "base", "clip-ft", "negclip"
"""Names of the base model, of the run without CAE (CLIP-FT), and of NegCLIP, the positive
control."""

DATA_RUN = "data"
"""Name that stands for a run in tables that describe the data and involve no model."""

GELU_CONTROLS: Mapping[str, str] = {f"{run}-gelu": run for run in (BASE, CLIP_FT)}
"""Controls whose weights were trained with QuickGELU but are evaluated with GELU. The name of each
control maps to the run or base model that has these weights. Open_clip evaluates a weight file with
GELU under the plain model name, and so do the evaluations of NegCLIP, CAE and MACCO."""

SETTINGS = tuple(
    field.name
    for field in dataclasses.fields(Experiment)
    if field.name not in ("name", "profile", "seed")
)
"""Names of the settings of a run."""

NAMED_VALUES = {"none": None, "true": True, "false": False}
"""Values of settings that are written as words, in upper or lower case, in a name or an option."""


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
