"""Attribution methods by name."""

from __future__ import annotations

import dataclasses
from typing import Any

from cae_lib.attribution.attention import AttentionAttribution
from cae_lib.attribution.base import Attribution, AttributionMethod
from cae_lib.attribution.binding import BindingAttribution
from cae_lib.attribution.counterfactual import CounterfactualAttribution
from cae_lib.attribution.gradcam import GradcamAttribution
from cae_lib.attribution.gradient import GradientAttribution
from cae_lib.attribution.integrated_gradients import IntegratedGradientsAttribution
from cae_lib.attribution.perturbation import PerturbationAttribution
from cae_lib.errors import ConfigError

# The paper's four.
METHODS: dict[str, type] = {
    "attention": AttentionAttribution,
    "gradcam": GradcamAttribution,
    "perturbation": PerturbationAttribution,
    "gradient": GradientAttribution,
}
_KNOWN = METHODS | {
    "integrated_gradients": IntegratedGradientsAttribution,
    "counterfactual": CounterfactualAttribution,
    "binding": BindingAttribution,
}
__all__ = ["METHODS", "Attribution", "AttributionMethod", "get_method"]


def get_method(method: str | AttributionMethod, **parameters: Any) -> AttributionMethod:
    """The method of a name, its fields set by `parameters`; an object that is a method is returned.
    Names are the keys of `METHODS`, "integrated_gradients", "counterfactual" and "binding".
    ConfigError for an unknown name or parameter, a bad value, or parameters of an object."""
    if not isinstance(method, str):
        if parameters or not callable(method) or not hasattr(method, "reads_words"):
            raise ConfigError(
                f"{type(method).__name__} is not usable as a method here: expected a name with its "
                "parameters, or an object that can be called and has `reads_words`, without them."
            )
        return method
    if method not in _KNOWN:
        raise ConfigError(f"unknown attribution method {method!r}: expected {', '.join(_KNOWN)}.")
    known = [field.name for field in dataclasses.fields(_KNOWN[method])]
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        raise ConfigError(
            f"{method} has no parameter {', '.join(unknown)}; it has {', '.join(known)}."
        )
    return _KNOWN[method](**parameters)
