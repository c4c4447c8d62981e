"""Registry of the attribution methods.

A method is one file of `cae_lib/attribution`, named as the method, and one line of `REGISTRY`. Its
code is imported by `get_method`: a page that only shows tables does without.
"""

from __future__ import annotations

import dataclasses
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from cae_lib.errors import ConfigError

if TYPE_CHECKING:
    from cae_lib.attribution.base import AttributionMethod


class Method(NamedTuple):
    """An attribution method.

    Attributes:
        class_name: Name of its class in `cae_lib.attribution.NAME`.
        label: Name in tables and figures.
        color: Color of its marks in figures.
    """

    class_name: str
    label: str
    color: str


REGISTRY: dict[str, Method] = {
    "attention": Method("AttentionAttribution", "attention", "#0173b2"),
    "gradcam": Method("GradcamAttribution", "GradCAM", "#d55e00"),
    "perturbation": Method("PerturbationAttribution", "perturbation", "#029e73"),
    "gradient": Method("GradientAttribution", "gradient", "#cc78bc"),
    "binding": Method("BindingAttribution", "bindings", "#de8f05"),
    "counterfactual": Method("CounterfactualAttribution", "counterfactual", "#ca9161"),
    "integrated_gradients": Method(
        "IntegratedGradientsAttribution", "integrated gradients", "#949494"
    ),
}
"""All methods, by name."""

METHODS = ("attention", "gradcam", "perturbation", "gradient")
"""Names of the paper's four methods, in its order."""


def get_method(method: str | AttributionMethod, **parameters: Any) -> AttributionMethod:
    """Return an attribution method by its name; an object that is a method is returned as it is.

    Args:
        method: A name of `REGISTRY`, or an `AttributionMethod`.
        parameters: Fields of the named method.

    Raises:
        ConfigError: The name or a parameter is unknown, a value is not allowed, or parameters are
            given for an object.
    """
    from cae_lib.attribution.base import AttributionMethod

    if isinstance(method, type):
        raise ConfigError(
            f"{method.__name__} is a class: expected the name of a method, or an object of the "
            f"class, {method.__name__}()."
        )
    if not isinstance(method, str):
        if parameters or not isinstance(method, AttributionMethod):
            raise ConfigError(
                f"{type(method).__name__} is not usable as a method here: expected a name with its "
                "parameters, or an AttributionMethod without them."
            )
        return method
    if method not in REGISTRY:
        names = ", ".join(REGISTRY)
        raise ConfigError(f"unknown attribution method {method!r}: expected {names}.")
    module = import_module(f"cae_lib.attribution.{method}")
    method_class = getattr(module, REGISTRY[method].class_name)
    names = [field.name for field in dataclasses.fields(method_class)]
    if unknown := sorted(parameters.keys() - set(names)):
        raise ConfigError(
            f"{method} has no parameter {', '.join(unknown)}; it has {', '.join(names)}."
        )
    return method_class(**parameters)
