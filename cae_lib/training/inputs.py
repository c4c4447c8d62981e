"""What determines the weights of a training: its declared inputs, and their versions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from cae_lib.config import Experiment
from cae_lib.words.versions import (
    DEPENDENCY_VERSION,
    GROUND_TRUTH_VERSION,
    NEGATIVES_VERSION,
    SCENE_GRAPH_VERSION,
    SWAPS_VERSION,
)

TRAINING_VERSION = 1
"""Version of training: raise it when training gives other weights from the same inputs."""


TAGGER_VERSIONS: Mapping[str, int] = {
    "scene-graph": SCENE_GRAPH_VERSION,
    "dependency": DEPENDENCY_VERSION,
    "truth": GROUND_TRUTH_VERSION,
}
"""Versions of the word roles, by the setting `tagger` of a run."""


def digest(*parts: object) -> str:
    """Return a SHA-256 digest of plain JSON values, cut to 12 hexadecimal digits."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def text_versions(config: Experiment) -> dict[str, int]:
    """Return the versions of what a training reads from the text of its captions, by name."""
    # Only what this training reads: a better tagger does not outdate the weights of CLIP-FT.
    versions: dict[str, int] = {}
    swaps_words = config.method == "binding" or config.foils == "exchanged"
    if config.method or swaps_words:
        versions[config.tagger] = TAGGER_VERSIONS.get(config.tagger, 0)
        # The other taggers find no swaps; `binding` derives them from the roles.
        if swaps_words and config.tagger == "dependency":
            versions["swaps"] = SWAPS_VERSION
    # The hard negatives of all other training sets come with the data, whose digest covers them.
    if config.train_data in ("spacy", "kept") and (config.negatives or config.foils == "given"):
        versions["negatives from text"] = NEGATIVES_VERSION
    return versions


def run_inputs(experiment: Experiment, data_digest: str, weights_digest: str) -> dict[str, str]:
    """Return digests and versions of all that determines the weights of a run, by printable name.

    `experiment` holds the resolved settings, with the seed.
    """
    return {
        "settings": experiment.key(),
        "training data": data_digest,
        "first weights": weights_digest,
        "training version": str(TRAINING_VERSION),
        **{f"{name} version": str(version) for name, version in text_versions(experiment).items()},
    }
