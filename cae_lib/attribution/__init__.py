"""Attribution methods by name, see `cae_lib.methods`."""

from __future__ import annotations

import dataclasses
from importlib import import_module
from typing import Any

from cae_lib import methods
from cae_lib.attribution.base import Attribution, AttributionMethod
from cae_lib.errors import ConfigError

__all__ = ["METHODS", "Attribution", "AttributionMethod", "get_method"]


def get_method(method: str | AttributionMethod, **parameters: Any) -> AttributionMethod:
    """The method of a name, its fields set by `parameters`; an object that is a method is returned.
    ConfigError for an unknown name or parameter, a bad value, or parameters of an object."""
    if isinstance(method, type):
        raise ConfigError(
            f"{method.__name__} is a class: expected the name of a method, or an object of the "
            f"class, {method.__name__}()."
        )
    if not isinstance(method, str):
        if parameters or not callable(method) or not hasattr(method, "reads_words"):
            raise ConfigError(
                f"{type(method).__name__} is not usable as a method here: expected a name with its "
                "parameters, or an object that can be called and has `reads_words`, without them."
            )
        return method
    kind = _class_of(method)
    known = [field.name for field in dataclasses.fields(kind)]
    if unknown := sorted(parameters.keys() - set(known)):
        raise ConfigError(
            f"{method} has no parameter {', '.join(unknown)}; it has {', '.join(known)}."
        )
    return kind(**parameters)


def _class_of(name: str) -> type[AttributionMethod]:
    known = methods.REGISTRY
    if name not in known:
        raise ConfigError(f"unknown attribution method {name!r}: expected {', '.join(known)}.")
    return getattr(import_module(f"cae_lib.attribution.{name}"), known[name].class_name)


METHODS = {name: _class_of(name) for name in methods.METHODS}
"""The classes of the paper's four."""
