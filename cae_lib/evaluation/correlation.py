"""Bootstrap of correlations: pairs are resampled, ranks follow without sorting anything again.

A resample gives each pair a count. Ranks among the resampled pairs are sums of counts in the
order of the full sample, so one cumulated sum stands in for a sort in each resample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

Correlation = Literal["spearman", "pearson"]
CELLS_AT_ONCE = 4_000_000


def correlation_draws(
    columns: Sequence[np.ndarray],
    gold: np.ndarray,
    kind: Correlation,
    resamples: int,
    seed: int = 0,
) -> np.ndarray:
    """Correlations of each column with `gold` in each of many resamples of the pairs.

    Args:
        columns: S arrays `(n,)`; all of them see the same resamples.
        gold: `(n,)`.
        kind: "spearman" (ties share their mean rank) or "pearson".
        resamples: R.
        seed: Of the resampling.

    Returns:
        `(R, S)`; NaN where a resample does not vary.
    """
    generator = np.random.default_rng(seed)
    n = len(gold)
    step = max(1, CELLS_AT_ONCE // max(n, 1))
    parts = []
    for start in range(0, resamples, step):
        counts = generator.multinomial(n, np.full(n, 1 / n), size=min(step, resamples - start))
        b = _values(gold, counts, kind)
        parts.append(
            np.stack([_weighted(_values(a, counts, kind), b, counts) for a in columns], axis=1)
        )
    return np.concatenate(parts)


def _values(a: np.ndarray, counts: np.ndarray, kind: Correlation) -> np.ndarray:
    """What is correlated: `a` itself, or the rank of each of its values in each resample."""
    return np.asarray(a, dtype=np.float64)[None] if kind == "pearson" else ranks(a, counts)


def ranks(a: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean ranks `(R, n)` of the values of `a` in samples that hold pair i `counts[r, i]` times.

    Ranks start at 1/2 rather than 1, which no correlation notices.
    """
    order = np.argsort(a, kind="stable")
    ordered = a[order]
    starts = np.flatnonzero(np.append(True, np.diff(ordered) != 0))
    groups = np.add.reduceat(counts[:, order], starts, axis=1)
    middle = np.cumsum(groups, axis=1) - groups / 2
    group_of = np.empty(len(a), dtype=int)
    group_of[order] = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(a))))
    return middle[:, group_of]


def _weighted(a: np.ndarray, b: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Pearson correlation `(R,)` of a and b, `(R, n)` or `(1, n)`, weighted by counts."""
    total = counts.sum(axis=1, keepdims=True)
    a = a - (counts * a).sum(axis=1, keepdims=True) / total
    b = b - (counts * b).sum(axis=1, keepdims=True) / total
    product = (counts * a * b).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return product / np.sqrt((counts * a * a).sum(axis=1) * (counts * b * b).sum(axis=1))
