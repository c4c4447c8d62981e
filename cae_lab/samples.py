"""Sizes of the samples of captions and images that some suites use."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

# Largest number of COCO's test captions, or for "heatmaps" of its test images, that a suite uses.
# "bindings" has the sample of "attribution", and "sensitivity" that of "faithfulness".
SAMPLE_SIZES: Mapping[str, int] = {
    "attribution": 500,
    "phrases": 500,
    "faithfulness": 120,
    "heatmaps": 300,
}


def evenly_spaced_indices(total: int, limit: int | None) -> np.ndarray:
    """Return up to `limit` evenly spaced indices below `total`, sorted; all if `limit` is None."""
    return np.unique(
        np.linspace(0, total - 1, total if limit is None else min(limit, total)).astype(int)
    )
