"""Attribution methods by name."""

from __future__ import annotations

import dataclasses
from typing import Any

from cae_lib.attribution.attention import AttentionAttribution
from cae_lib.attribution.base import Attribution, AttributionMethod
from cae_lib.attribution.gradcam import GradcamAttribution
from cae_lib.attribution.gradient import GradientAttribution
from cae_lib.attribution.perturbation import PerturbationAttribution
from cae_lib.errors import ConfigError

METHODS: dict[str, type] = {
    "attention": AttentionAttribution,
    "gradcam": GradcamAttribution,
    "perturbation": PerturbationAttribution,
    "gradient": GradientAttribution,
}

__all__ = ["METHODS", "Attribution", "AttributionMethod", "get_method"]


def get_method(name: str, **parameters: Any) -> AttributionMethod:
    """Build an attribution method.

    Args:
        name: a key of `METHODS`.
        parameters: fields of that method's class.

    Raises:
        ConfigError: for an unknown name or parameter, with the known ones, or for a bad value.
    """
    if name not in METHODS:
        raise ConfigError(f"unknown attribution method {name!r}: expected {', '.join(METHODS)}.")
    known = [field.name for field in dataclasses.fields(METHODS[name])]
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        raise ConfigError(
            f"{name} has no parameter {', '.join(unknown)}: its parameters are {', '.join(known)}."
        )
    return METHODS[name](**parameters)
