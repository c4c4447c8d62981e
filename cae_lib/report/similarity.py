"""Similarity of sentences, read from records: correlations with intervals, and differences.

Pairs are resampled together for all runs, and seeds as well, so that differences are paired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from cae_lib.data.similarity import SIMILARITY_SETS
from cae_lib.errors import DataError
from cae_lib.evaluation.correlation import Correlation, correlation_draws
from cae_lib.evaluation.similarity import RESAMPLES, SimilarityResult
from cae_lib.evaluation.statistics import Interval
from cae_lib.measurements import results
from cae_lib.report.attribution import Draws
from cae_lib.report.stored import require

SUITE = "similarity"
KINDS: Mapping[Correlation, str] = {"spearman": "Spearman", "pearson": "Pearson"}
MEAN = "mean"


@lru_cache(maxsize=64)
def correlations(run: str, profile: str, seeds: int, kind: Correlation) -> Mapping[str, Draws]:
    """Correlation of a run on every set, and their unweighted mean under the name "mean".

    Raises:
        NotMeasured: A record is missing.
        DataError: Seeds differ in their sets or pairs, or nothing varies.
    """
    require([run], profile, SUITE, seeds)
    records = results(run, profile, SUITE, seeds)
    if len({tuple(record.results) for record in records}) > 1:
        raise DataError(f"{run}: its seeds were measured on different sets; compute them anew")
    names = sorted(records[0].results, key=SIMILARITY_SETS.index)
    found = {
        name: _draws([SimilarityResult.from_record(r.results[name]) for r in records], kind)
        for name in names
    }
    return {**found, MEAN: mean_draws(list(found.values()))}


def mean_draws(parts: Sequence[Draws]) -> Draws:
    """The unweighted mean of statistics, sample by sample."""
    return Draws(
        float(np.mean([part.estimate for part in parts])),
        np.mean([part.samples for part in parts], axis=0),
        sum(part.n_items for part in parts),
        max(part.n_seeds for part in parts),
    )


def _draws(parts: Sequence[SimilarityResult], kind: Correlation) -> Draws:
    """The mean over seeds on the data and on each bootstrap sample."""
    gold = parts[0].gold
    if any(not np.array_equal(part.gold, gold) for part in parts):
        raise DataError(f"{parts[0].name}: the seeds have different pairs; compute them anew")
    estimate = float(np.mean([part.correlation(kind) for part in parts]))
    by_seed = correlation_draws([part.cosine for part in parts], gold, kind, RESAMPLES)
    by_seed = by_seed.reshape(RESAMPLES, len(parts))
    if np.isnan(estimate):
        raise DataError(f"{parts[0].name}: the cosines or the scores do not vary")
    weights = np.random.default_rng(1).multinomial(
        len(parts), np.full(len(parts), 1 / len(parts)), size=RESAMPLES
    )
    # A resample of a few pairs may not vary; it says nothing, and the estimate stands for it.
    by_seed = np.where(np.isnan(by_seed), estimate, by_seed)
    samples = (weights * by_seed).sum(axis=1) / len(parts)
    return Draws(estimate, samples, len(gold), len(parts))


def correlation_differences(
    run: str, against: str, profile: str, seeds: int, kind: Correlation
) -> dict[str, Interval]:
    """Correlations of a run minus those of another one by set, and for the mean.

    Raises:
        NotMeasured: A record is missing.
        DataError: The two were measured on different sets.
    """
    first, second = (correlations(each, profile, seeds, kind) for each in (run, against))
    if first.keys() != second.keys():
        raise DataError(f"{run} and {against} were measured on different sets; compute them anew")
    return {name: first[name].minus(second[name]).interval() for name in first}
