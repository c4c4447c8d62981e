"""Means and differences with intervals over items and seeds, and verdicts on claims."""

from cae_bench.statistics.estimates import (
    ITEM_KEY,
    VarianceComponents,
    contrasts,
    correlations,
    linearized_ratios,
    mean_ci,
    minimal_detectable_effect,
    seed_means_and_components,
    summarize,
)
from cae_bench.statistics.verdicts import MIN_NONZERO_CLUSTERS, classify, holm, verdict

__all__ = [
    "ITEM_KEY",
    "MIN_NONZERO_CLUSTERS",
    "VarianceComponents",
    "classify",
    "contrasts",
    "correlations",
    "seed_means_and_components",
    "holm",
    "mean_ci",
    "minimal_detectable_effect",
    "linearized_ratios",
    "summarize",
    "verdict",
]
