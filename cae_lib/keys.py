"""Keys of stored results.

A result depends on declared inputs alone: the settings and the seed of its run, the data, the
weights that the run starts from, and the versions below. Keys do not depend on source code, so
renaming a variable or moving a function makes no result stale. Whoever changes how a number is
computed has to raise the version of that computation; until then `tests/golden` fails. Properties
of the machine (its processor, whether it computes in bfloat16, versions of packages) belong to the
provenance of a result and to no key.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from cae_lib.config import Experiment

TRAINING_VERSION = 1
"""Version of training: raise it when training gives other weights from the same inputs."""

EXTERNAL_LOADER_VERSION = 1
"""Version of the code that loads models that were not trained here (see `load_external`).

Raise it when the same weights give another model.
"""

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
same model and data. The suite "data" measures the datasets themselves, without a model."""


def digest(*parts: object) -> str:
    """Return a SHA-256 digest of plain JSON values, cut to 12 hexadecimal digits."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def run_inputs(experiment: Experiment, data_digest: str, weights_digest: str) -> dict[str, str]:
    """Return the inputs that determine the weights of a run.

    Args:
        experiment: The resolved settings, with the seed.
        data_digest: Digest of the training data, such as the digest of their manifest.
        weights_digest: Digest of the weights that the run starts from.

    Returns:
        A mapping from printable names to the digest of the settings, the digest of the training
        data, the digest of the first weights, and the version of training.
    """
    return {
        "settings": experiment.key(),
        "training data": data_digest,
        "first weights": weights_digest,
        "training version": str(TRAINING_VERSION),
    }


def table_key(suite: str, model_digest: str, data_digest: str) -> str:
    """Return the key under which the tables that a suite gives for a model are stored.

    Args:
        suite: Name of a suite, one of `SUITE_VERSIONS`.
        model_digest: Digest that identifies the model, as `measuring.model_digest` returns it for
            runs; "" for the suite "data", which measures no model.
        data_digest: Digest of the data that the suite reads.
    """
    return digest(suite, SUITE_VERSIONS[suite], model_digest, data_digest)
