"""Verdicts: whether the intervals of several tests support a claim or contradict it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cae_bench.statistics.estimates import CONFIDENCE
from cae_lib.errors import DataError
from cae_lib.methods import METHODS

OUTCOMES = ("contradicted", "undecided", "negligible", "supported")
"""Outcomes of a test of a claim. A method with several tests has the first of their outcomes."""

MIN_NONZERO_CLUSTERS = 6
"""Smallest number of images with a value other than 0 for which a claim can be decided.

If chance decides the sign of each of m such values, all m have the same sign with probability
`2 * 0.5**m` (sign test): .0625 for five, .031 for six. With fewer than six, no test that assumes
nothing about the distribution of the values can find a sign at the 5 % level, whatever the values
are. An interval may still exclude 0, but only because it assumes normal values; it even has width
zero if all values are equal. Nor do few values other than 0 show that a difference is small: if n
images have the value 0, up to 3 / n of all possible images may have another value (rule of three),
of any size. For `correlations`, pairs that can change the estimate are counted instead of
images."""

UNTESTED, UNDECIDABLE = "not tested", "not decidable here"
"""Verdicts without an outcome: there are no tests, or the positive control fails."""

MIN_VERDICT_SHARE = 0.75
"""An outcome becomes the verdict if at least this share of the methods has it."""


def holm(tests: pd.DataFrame, by: Sequence[str] = ()) -> pd.DataFrame:
    """Adjust p-values for multiple tests by Holm's method.

    Args:
        tests: Rows of `mean_ci`, `contrasts` or `correlations`. The columns used are `estimate`;
            `p`, where NaN does not count as a test; and `nonzero`, if the tests have it.
        by: Columns whose combinations of values are adjusted separately; by default all tests are
            adjusted together.

    Returns:
        The tests with two more columns. `p_holm` is the adjusted p-value, NaN where `p` is NaN.
        `sure` is the sign of the estimate (-1 or 1) if `p_holm` is below .05 and `nonzero`, if the
        tests have it, is at least `MIN_NONZERO_CLUSTERS`; otherwise it is 0.
    """
    # Labels of the index may repeat, as in tables that are put together from several.
    numbered = tests.reset_index(drop=True)
    groups = [group for _, group in numbered.groupby(list(by), sort=False)] if by else [numbered]
    adjusted = pd.Series(np.nan, numbered.index)
    for group in groups:
        # A test that could not be made is not one of those that are corrected for.
        p = group["p"].dropna()
        order = p.sort_values()
        steps = order * np.arange(len(order), 0, -1)
        # The smallest of m p-values is multiplied by m, the next by m - 1; none may end up below
        # one that was smaller.
        adjusted[order.index] = steps.cummax().clip(upper=1)
    # With so few values other than 0, a small p-value rests on the assumption of normal values.
    significant = (adjusted < 1 - CONFIDENCE) & ~_has_too_few(numbered)
    sure = np.sign(numbered["estimate"]).where(significant, 0).astype(int)
    return tests.assign(p_holm=adjusted.to_numpy(), sure=sure.to_numpy())


def _has_too_few(tests: pd.DataFrame) -> pd.Series:
    """Return for each test whether `nonzero` is below `MIN_NONZERO_CLUSTERS`; False without it."""
    return tests.get("nonzero", pd.Series(np.inf, tests.index)) < MIN_NONZERO_CLUSTERS


def classify(tests: pd.DataFrame, delta: float, claim: str = "gain") -> pd.Series:
    """Return one of `OUTCOMES` for each test of a claim, decided by its 95 % interval.

    The claim is one of:

    - "gain", the estimate is positive. *Supported*: the interval lies above 0, the estimate is at
      least `delta`, and the difference is significant by Holm's method. *Contradicted*: the
      interval lies below 0, the estimate is at most `-delta`, and the difference is significant.
      *Negligible*: the interval lies inside (`-delta`, `delta`).
    - "level", the estimate is 0. *Supported*: the interval lies inside (`-delta`, `delta`).
      *Contradicted*: it does not overlap (`-delta`, `delta`).
    - "kept", the estimate does not fall. *Supported*: the interval lies above `-delta`.
      *Contradicted*: it lies below.

    All other tests are *undecided*, and so is every test whose interval is NaN or whose `nonzero`
    is below `MIN_NONZERO_CLUSTERS`.

    Args:
        tests: Rows of `mean_ci`, `contrasts` or `correlations`. For the claim "gain" they have to
            be all of its tests, since p-values are corrected for their number.
        delta: The smallest effect that matters, in the unit of `estimate`.
        claim: "gain", "level" or "kept".

    Returns:
        The outcomes, with the index of `tests`.

    Raises:
        DataError: If the claim is unknown.
    """
    estimate, low, high = tests["estimate"], tests["low"], tests["high"]
    sure = holm(tests)["sure"]
    inside = (low > -delta) & (high < delta)
    # A comparison with NaN is False, so an interval that does not exist is undecided.
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
    # The first case that holds decides, so too few values come before everything else.
    cases = {"undecided": _has_too_few(tests)} | conditions[claim]
    return pd.Series(np.select(list(cases.values()), list(cases), "undecided"), tests.index)


def verdict(
    tests: pd.DataFrame | None,
    delta: float,
    claim: str = "gain",
    by: str = "run",
    decidable: bool = True,
) -> str:
    """Return the verdict on a claim: the outcome that most methods have, as text.

    Args:
        tests: As for `classify`, with the column `by`. If None or empty, the verdict is `UNTESTED`,
            whatever `decidable` is.
        delta: As for `classify`.
        claim: As for `classify`.
        by: Column whose values are the methods. `OUTCOMES` says which of several tests of a method
            counts.
        decidable: Whether the positive control shows the effect that the claim is about. If not,
            and there are tests, the verdict is `UNDECIDABLE`.

    Returns:
        `UNTESTED`, `UNDECIDABLE`, or the outcomes of the methods in one of three forms. If all
        methods have the same outcome, the text is this outcome: "negligible". If they do not, but
        at least a share `MIN_VERDICT_SHARE` of them does, the other methods follow it with theirs:
        "negligible (GradCAM undecided)". Otherwise the text is "mixed" with the outcome of each
        method: "mixed (GradCAM supported; attention, gradient negligible)".

    Raises:
        DataError: If the claim is unknown.
    """
    if tests is None or tests.empty:
        return UNTESTED
    if not decidable:
        return UNDECIDABLE
    # All methods at once, since p-values are corrected for the number of tests of a claim.
    ranks = classify(tests, delta, claim).map(OUTCOMES.index)
    # A method is as weak as the weakest of its tests, for example of its two word roles.
    by_method = ranks.groupby(tests[by], sort=False).min()
    # Names of the methods with each outcome, the strongest outcome first.
    names: dict[str, list[str]] = {}
    for method, rank in by_method.sort_values(ascending=False, kind="stable").items():
        names.setdefault(OUTCOMES[rank], []).append(_method_label(str(method)))
    # Two outcomes cannot both reach `MIN_VERDICT_SHARE`, so a tie does not matter.
    most = max(names, key=lambda outcome: len(names[outcome]))
    shared = len(names[most]) >= MIN_VERDICT_SHARE * len(by_method)
    by_outcome = "; ".join(
        f"{', '.join(methods)} {outcome}"
        for outcome, methods in names.items()
        if not (shared and outcome == most)
    )
    word = most if shared else "mixed"
    return f"{word} ({by_outcome})" if by_outcome else word


def _method_label(run_or_method: str) -> str:
    """Return "GradCAM" for "cae-gradcam+lr=1e-3", "gradcam" and "GradCAM"."""
    name = run_or_method.partition("+")[0].rpartition("-")[2]
    return METHODS[name].label if name in METHODS else run_or_method
