"""Verdicts: what the intervals of several tests mean for a claim."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cae_lib.errors import DataError
from cae_lib.statistics.estimates import CONFIDENCE

OUTCOMES = ("contradicted", "undecided", "negligible", "supported")
"""Outcomes of a claim for one method.

Of a method with several tests, such as two roles, the first of these that a test has.
"""

MIN_NONZERO = 6
"""The least number of images with a value other than 0 that a verdict needs.

If chance decides the sign of each of m such values, all m have the same sign with probability
`2 * 0.5**m` (sign test): .0625 for five, .031 for six. With fewer than six, no test that assumes
nothing about the distribution of the values can find a sign at the 5 % level, whatever the values
are; an interval that excludes 0 then owes this to its assumption of normal values, and has width
zero if the values are alike. Few values other than 0 do not show that a difference is small either:
if n images are alike, 3 / n of all images may still differ (rule of three), by any amount."""

UNTESTED, UNDECIDABLE = "not tested", "not decidable here"
MAJORITY = 0.75
"""Share of the methods that need to have an outcome for it to be the verdict."""


def holm(tests: pd.DataFrame, by: Sequence[str] = ()) -> pd.DataFrame:
    """Adjust p-values for multiple tests by Holm's method.

    Args:
        tests: The tests, with the columns `estimate`, `p` (NaN is not counted as a test) and, where
            it is known, `nonzero`, the number of images whose answers differ.
        by: Columns whose groups are adjusted separately; by default all tests are one group.

    Returns:
        The tests with two more columns. `p_holm` is the adjusted p-value. `sure` is the sign of the
        estimate if `p_holm` is below .05 and `nonzero` is at least `MIN_NONZERO`, and 0 otherwise.
    """
    groups = [group for _, group in tests.groupby(list(by), sort=False)] if by else [tests]
    adjusted = pd.Series(np.nan, tests.index)
    for group in groups:
        p = group["p"].dropna()
        order = p.sort_values()
        steps = order * np.arange(len(order), 0, -1)
        adjusted[order.index] = steps.cummax().clip(upper=1)
    significant = (adjusted < 1 - CONFIDENCE) & ~_has_too_few(tests)
    sure = np.sign(tests["estimate"]).where(significant, 0).astype(int)
    return tests.assign(p_holm=adjusted, sure=sure)


def _has_too_few(tests: pd.DataFrame) -> pd.Series:
    """Whether each row has fewer than `MIN_NONZERO` in `nonzero`; none does without that column."""
    return tests.get("nonzero", pd.Series(np.inf, tests.index)) < MIN_NONZERO


def classify(tests: pd.DataFrame, delta: float, claim: str = "gain") -> pd.Series:
    """Return one of `OUTCOMES` for each test, by its 95 % interval.

    Args:
        tests: All tests of one claim, for Holm's correction: rows of `mean_ci`, `contrasts` or
            `correlations`.
        delta: The smallest size that matters, in the unit of `estimate`.
        claim: "gain": *supported* if the interval lies above 0 and the estimate is at least delta,
            *contradicted* if it lies below 0 and the estimate is at most -delta, both asking for
            Holm's `sure`; *negligible* if the interval lies inside (-delta, delta).
            "level", a quantity is 0: *supported* inside, *contradicted* outside. "kept", it does
            not fall: *supported* above -delta, *contradicted* below. *Undecided* is the rest, and
            whatever has fewer than `MIN_NONZERO` images with another value than 0.
    """
    estimate, low, high = tests["estimate"], tests["low"], tests["high"]
    sure = holm(tests)["sure"]
    inside = (low > -delta) & (high < delta)
    conditions = {
        "gain": {
            "negligible": inside,
            "supported": (sure > 0) & (low > 0) & (estimate >= delta),
            "contradicted": (sure < 0) & (high < 0) & (estimate <= -delta),
        },
        "level": {"supported": inside, "contradicted": (low >= delta) | (high <= -delta)},
        "kept": {"supported": low > -delta, "contradicted": high <= -delta},
    }
    if claim not in conditions:
        raise DataError(f"unknown claim {claim!r}: expected one of {', '.join(conditions)}")
    cases = {"undecided": _has_too_few(tests)} | conditions[claim]
    return pd.Series(np.select(list(cases.values()), list(cases), "undecided"), tests.index)


def verdict(
    tests: pd.DataFrame | None,
    delta: float,
    claim: str = "gain",
    by: str = "run",
    decidable: bool = True,
) -> str:
    """Return the outcome that `MAJORITY` of the methods have.

    Args:
        tests: See `classify`; without tests the verdict is `UNTESTED`.
        delta: See `classify`.
        claim: See `classify`.
        by: Column whose values are the methods.
        decidable: Whether the positive control does what the claim asks: else the verdict is
            `UNDECIDABLE`.

    Returns:
        The outcome, with the numbers of methods unless all have it, such as "negligible (3 of 4, 1
        undecided)"; else "mixed (2 of 4 negligible)" with the commonest outcomes.
    """
    if tests is None or tests.empty:
        return UNTESTED
    if not decidable:
        return UNDECIDABLE
    ranks = classify(tests, delta, claim).map(OUTCOMES.index)
    counts = ranks.groupby(tests[by]).min().map(dict(enumerate(OUTCOMES))).value_counts()
    n, commonest = counts.sum(), counts[counts == counts.max()].sort_index()
    if counts.max() < MAJORITY * n:
        texts = (f"{count} of {n} {outcome}" for outcome, count in commonest.items())
        return f"mixed ({', '.join(texts)})"
    outcome, *others = [*commonest.index, *counts.index.difference(commonest.index)]
    parts = [f"{counts[outcome]} of {n}", *(f"{counts[other]} {other}" for other in others)]
    return f"{outcome} ({', '.join(parts)})" if others else outcome
