"""Errors of the library: a message names the place, what was expected, and what to do.

Every error that the user can correct is a `CaeError`, so catching this class is enough. Files that
do not exist or are damaged raise a `DataError`, settings that do not fit a `ConfigError`, and files
that cannot be written a `WriteError`; docstrings of functions that pass these on do not repeat it.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from typing import Any


class CaeError(Exception):
    """Base class of errors that the user can correct; the message says how."""


class ConfigError(CaeError):
    """A name, setting, model or device that is unknown, missing, wrong or does not fit."""


class DataError(CaeError):
    """Data that are missing, malformed or incomplete, from a file or passed as an argument."""


class MissingDataError(DataError):
    """Some or all of the required data are not on this machine."""


class WriteError(CaeError):
    """A file that cannot be written: the disk is full or read-only, or permission is missing."""


class CheckpointError(CaeError):
    """A checkpoint that is missing or damaged, or that does not fit the model or the run."""


class TimeLimitError(CaeError):
    """A training that would take longer on this machine than its time limit allows."""


class Terminated(KeyboardInterrupt):
    """The process received SIGTERM; a KeyboardInterrupt, so code that handles Ctrl-C handles it."""


def check_fields(settings: Any) -> None:
    """Check that the values of a dataclass instance have the types of its fields."""
    hints = field_types(type(settings))
    for field in dataclasses.fields(settings):
        value, hint = getattr(settings, field.name), hints[field.name]
        if type(value) is not hint or hint is float:  # a float may be infinite
            check_type(field.name, value, hint)


@functools.cache
def field_types(cls: type) -> dict[str, Any]:
    """Return the type of each field of a dataclass, by name."""
    # The annotations are texts (`from __future__ import annotations`) and have to be evaluated.
    return typing.get_type_hints(cls)


def check_type(name: str, value: Any, hint: Any) -> None:
    """Raise a ConfigError if a value does not fit the annotation `hint`, or is not finite.

    An integer fits `float`, but a bool fits only `bool`. A `Literal` may hold texts alone.
    """
    if typing.get_origin(hint) is typing.Literal:
        if value not in typing.get_args(hint):
            options = ", ".join(typing.get_args(hint))
            raise ConfigError(f"{name} is {value!r}: expected one of {options}.")
    elif not _has_type_of(value, hint):
        expected = hint.__name__ if isinstance(hint, type) else hint
        raise ConfigError(f"{name} is {value!r}: expected {expected}, finite if a number.")


def _has_type_of(value: Any, hint: Any) -> bool:
    """Return whether a value fits an annotation of one of the few kinds that settings use."""
    if isinstance(hint, types.UnionType):
        return any(_has_type_of(value, option) for option in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        items = typing.get_args(hint)
        if not isinstance(value, tuple):
            return False
        if items[-1] is Ellipsis:
            return all(_has_type_of(item, items[0]) for item in value)
        return len(value) == len(items) and all(map(_has_type_of, value, items))
    if hint is Any:
        return True
    # `isinstance(True, int)` holds in Python, but a bool is no number of a setting.
    if hint in (int, float) and isinstance(value, (int, hint)):
        return not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, hint)
