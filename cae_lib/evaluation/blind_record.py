"""The record `blind`: all choosers that never see the picture, on the benchmarks of a profile."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from cae_lib.config import profile
from cae_lib.data.benchmarks.base import ImageRef
from cae_lib.data.captions import Pairs
from cae_lib.data.identity import data_digests
from cae_lib.data.needs import TRAINING, is_real
from cae_lib.data.training_set import training_pairs
from cae_lib.errors import CheckpointError
from cae_lib.evaluation.blind import (
    Chooser,
    average_picture,
    average_picture_chooser,
    length_choosers,
    likelihood_choosers,
    measure_blind,
)
from cae_lib.evaluation.embed import Encoder
from cae_lib.evaluation.suite import benchmarks
from cae_lib.evaluation.weights import Weights
from cae_lib.experiments import BASE, weights_of
from cae_lib.records import load_or_run
from cae_lib.runtime import pick_device

RECORD = "blind"
MEASUREMENT = 2
"""Raise when what is stored changes meaning."""

PICTURES = 500
"""Training pictures whose mean stands in for every picture, spread evenly over the set."""

AVERAGE = "average_picture/"
"""What the names of choosers by a model begin with; the run follows."""

EVERYWHERE = (BASE, "clip-ft")
"""Runs that are also measured on the shuffled captions of ARO, which are half of all texts."""


def blind_record(profile_name: str, fresh: bool = False) -> Mapping[str, Any]:
    """Measure the blind choosers on the choice benchmarks; record `blind`.

    The runs of seed 0 that are trained take part with the average picture: the base, CLIP-FT, and
    CLIP-CAE by every method. One that is not trained is named and left out.

    Args:
        profile_name: Whose benchmarks and training captions.
        fresh: Compute anew what this clone has not computed itself.

    Raises:
        DataError: Data are missing; the message says which, and how to get them.
    """
    runs = _weights(profile_name)
    data = data_digests(profile_name, ("benchmarks",), TRAINING)["benchmarks"]
    pairs = training_pairs(profile_name)
    captions = hashlib.sha256("\n".join(pairs.captions).encode()).hexdigest()
    digests = {name: weights.digest() for name, weights in runs.items()}
    content = f"{MEASUREMENT} {PICTURES} {data} {captions} {sorted(digests.items())}"
    config = {"data": data[:12], "captions": captions[:12],
              "weights": {name: digest[:12] for name, digest in digests.items()}}  # fmt: skip
    return load_or_run(
        RECORD,
        profile_name,
        hashlib.sha256(content.encode()).hexdigest()[:12],
        lambda: _measure(profile_name, pairs, runs),
        config=config,
        seed=0,
        fresh=fresh,
    ).results


def _weights(profile_name: str) -> dict[str, Weights]:
    """Weights of seed 0 of the runs that are there."""
    plain = [name for name, row in profile(profile_name).methods.items()
             if not row.get("negatives")]  # fmt: skip
    found = {}
    for name in (BASE, *plain):
        weights = weights_of(name, profile_name)
        try:
            weights.digest()
        except CheckpointError:
            print(f"Left out of `{RECORD}`: {name}/0 is not there", flush=True)
        else:
            found[name] = weights
    return found


def _measure(profile_name: str, pairs: Pairs, runs: Mapping[str, Weights]) -> dict[str, Any]:
    paths = pairs.image_paths
    rows = np.unique(np.linspace(0, len(paths) - 1, min(PICTURES, len(paths))).astype(int))
    refs = [ImageRef(paths[row]) for row in rows]
    choosers: dict[str, Chooser] = length_choosers() | likelihood_choosers(pairs.captions)
    parts = benchmarks(profile_name)
    subsets = measure_blind(parts, choosers)
    for name, weights in runs.items():
        encoder = Encoder(weights.load(pick_device()), allow_truncated=is_real(profile_name))
        picture = average_picture(encoder.images(refs))
        chooser = {f"{AVERAGE}{name}": average_picture_chooser(encoder.texts, picture)}
        chosen = [part for part in parts if name in EVERYWHERE or part.name != "order"]
        for key, found in measure_blind(chosen, chooser).items():
            subsets[key]["choosers"] |= found["choosers"]
        choosers |= chooser
    return {
        "n_captions": pairs.n_used,
        "n_captions_expected": pairs.n_expected,
        "n_pictures": len(refs),
        "choosers": list(choosers),
        "subsets": subsets,
    }
