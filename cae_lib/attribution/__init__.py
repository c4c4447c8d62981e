"""Attribution methods; `cae_lib.methods` lists them by name."""

from __future__ import annotations

import dataclasses
from importlib import import_module
from typing import Any

from cae_lib.attribution.base import Attribution, AttributionMethod, Captions
from cae_lib.errors import ConfigError
from cae_lib.methods import REGISTRY

__all__ = ["Attribution", "AttributionMethod", "Captions", "get_method"]


def get_method(method: str | AttributionMethod, **parameters: Any) -> AttributionMethod:
    """Return an attribution method by its name; an object that is a method is returned as it is.

    Args:
        method: A name of `cae_lib.methods.REGISTRY`, or an `AttributionMethod`.
        parameters: Fields of the named method.

    Raises:
        ConfigError: The name or a parameter is unknown, a value is not allowed, or parameters are
            given for an object.
    """
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
