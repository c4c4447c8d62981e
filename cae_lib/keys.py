"""Keys of stored results.

A result depends on declared inputs alone: the settings and the seed of its run, the data, the
weights that the run starts from, and the versions below. Nothing here reads source code, so
renaming a variable or moving a function makes nothing stale. Whoever changes what a number means
raises the version of what computes it; until that is done `tests/golden` fails. What depends on the
machine (its processor, whether it computes in bfloat16, versions of packages) is provenance and no
part of a key.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from cae_lib.config import Experiment

TRAINING_VERSION = 1
"""Raise it when training gives other weights from the same inputs."""

READING_VERSION = 1
"""Raise it when weights of others are read differently, so that they give another model."""

SUITE_VERSIONS: Mapping[str, int] = {
    "attribution": 1,
    "benchmarks": 1,
    "bindings": 1,
    "blind": 1,
    "data": 1,
    "faithfulness": 1,
    "heatmaps": 1,
    "phrases": 1,
    "retrieval": 1,
    "sensitivity": 1,
    "similarity": 1,
    "validation": 1,
    "zero_shot": 1,
}
"""Versions of the suites of measurements: raise one when its suite gives other numbers from the
same model and data. "data" are the tables that belong to the datasets and to no model."""


def digest(*parts: object) -> str:
    """Hash plain JSON values, as 12 hexadecimal digits."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def run_inputs(experiment: Experiment, data: str, start: str) -> dict[str, str]:
    """Return all that decides the weights of a run, by what each part covers.

    Args:
        experiment: The resolved settings, with the seed.
        data: Digest of the training data, such as that of their manifest.
        start: Digest of the weights that the run starts from.
    """
    return {
        "settings": experiment.key(),
        "training data": data,
        "first weights": start,
        "training version": str(TRAINING_VERSION),
    }


def table_key(suite: str, model: str, data: str) -> str:
    """Return the key of the tables of a suite.

    Args:
        suite: One of `SUITE_VERSIONS`.
        model: Digest of the inputs of the measured run, or of downloaded weights; "" for the tables
            that belong to the data.
        data: Digest of the data that the suite reads.
    """
    return digest(suite, SUITE_VERSIONS[suite], model, data)
