"""Errors of the library: each message names the place, what was expected, and what to do."""

from __future__ import annotations


class CaeError(Exception):
    """Bad input or a missing prerequisite; its message says what to do."""


class ConfigError(CaeError):
    """An unknown name, or a value of the wrong type or range, in a configuration."""


class DataError(CaeError):
    """A data file that is missing, malformed or incomplete."""


class WriteError(CaeError):
    """A place that cannot be written: a full disk, a read-only one, or no permission."""


class CheckpointError(CaeError):
    """A checkpoint that is missing, damaged or does not fit the model."""
