"""What the intervals of several tests mean for a claim."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from statsmodels.stats.multitest import multipletests

from cae_lib.errors import DataError
from cae_lib.statistics.crossed import LEVEL

WORDS = ("contradicted", "undecided", "negligible", "supported")
"""What a method says of a claim; of one with several parts, such as two roles, the first of these
words that a part says."""

FEWEST = 6
"""The least number of pictures with a value other than 0 that a verdict needs.

If chance decides the sign of each of m such values, all m have the same sign with probability
`2 * 0.5**m` (sign test): .0625 for five, .031 for six. With fewer than six, no test that assumes
nothing about the distribution of the values can find a sign at the 5 % level, whatever the values
are; an interval that excludes 0 then owes this to its assumption of normal values, and has width
zero if the values are alike. Few values other than 0 do not show that a difference is small either:
if n pictures are alike, 3 / n of all pictures may still differ (rule of three), by any amount."""

UNTESTED, UNDECIDABLE = "not tested", "not decidable here"
ENOUGH = 0.75
"""Share of the methods that have to say a word."""


def holm(tests: pd.DataFrame, by: Sequence[str] = ()) -> pd.DataFrame:
    """Add `p_holm`, adjusted for all tests of the frame (or of each group of `by`), and `sure`, the
    sign of a difference whose adjusted p-value is below .05 over at least `FEWEST` pictures, else
    0; a test without a p-value counts as none."""
    groups = [part for _, part in tests.groupby(list(by), sort=False)] if by else [tests]
    adjusted = pd.Series(np.nan, tests.index)
    for part in groups:
        p = part["p"].dropna()
        if len(p):
            adjusted[p.index] = multipletests(p, method="holm")[1]
    significant = (adjusted < 1 - LEVEL) & ~_too_few(tests)
    sure = np.sign(tests["estimate"]).where(significant, 0).astype(int)
    return tests.assign(p_holm=adjusted, sure=sure)


def _too_few(tests: pd.DataFrame) -> pd.Series:
    """Which rows have fewer than `FEWEST` in `nonzero`; none of a table without that column."""
    return tests.get("nonzero", pd.Series(np.inf, tests.index)) < FEWEST


def reasons(tests: pd.DataFrame) -> pd.Series:
    """Why `words` says "undecided" of a row whatever its interval, as a sentence to show beside it;
    empty where the interval decides."""
    told, few = pd.Series("", tests.index, dtype=object), _too_few(tests)
    if few.any():
        counted, total = ("pictures", "pictures") if "pictures" in tests else ("pairs", "n")
        numbers = tests.loc[few, ["nonzero", total]].itertuples(index=False)
        told[few] = [
            f"{nonzero} of {n} {counted} have a value other than 0; a verdict needs {FEWEST}"
            for nonzero, n in numbers
        ]
    return told


def words(tests: pd.DataFrame, delta: float, claim: str = "gain") -> pd.Series:
    """One of `WORDS` for each row of `levels`, `contrasts` or `correlations`, by its 95 % interval.

    Args:
        tests: All tests of one claim, for Holm's correction; one row a method and part.
        delta: The smallest size that matters, in the unit of `estimate`.
        claim: "gain": *supported* above 0 and reaching delta, *contradicted* below 0 and reaching
            -delta, both asking for Holm's `sure`; *negligible* inside (-delta, delta).
            "level", a quantity is 0: *supported* inside, *contradicted* outside. "kept", it does
            not fall: *supported* above -delta, *contradicted* below. *Undecided* is the rest, and
            whatever has fewer than `FEWEST` pictures with another value than 0: see `reasons`.
    """
    low, high, sure = tests["low"], tests["high"], holm(tests)["sure"]
    inside = (low > -delta) & (high < delta)
    known = {
        "gain": {
            "negligible": inside,
            "supported": (sure > 0) & (low > 0) & (high >= delta),
            "contradicted": (sure < 0) & (high < 0) & (low <= -delta),
        },
        "level": {"supported": inside, "contradicted": (low >= delta) | (high <= -delta)},
        "kept": {"supported": low > -delta, "contradicted": high <= -delta},
    }
    if claim not in known:
        raise DataError(f"unknown claim {claim!r}: expected one of {', '.join(known)}")
    cases = {"undecided": _too_few(tests)} | known[claim]
    return pd.Series(np.select(list(cases.values()), list(cases), "undecided"), tests.index)


def verdict(
    tests: pd.DataFrame | None,
    delta: float,
    claim: str = "gain",
    by: str = "run",
    decidable: bool = True,
) -> str:
    """What the methods, the values of `by`, say together: the word of `ENOUGH` of them, with their
    number unless all say it; else "mixed (2 of 4 negligible)", with the commonest words. For
    `tests`, `delta` and `claim` see `words`; no tests are `UNTESTED`. `decidable` is whether the
    positive control does what the claim asks: else the word is `UNDECIDABLE`."""
    if tests is None or tests.empty:
        return UNTESTED
    if not decidable:
        return UNDECIDABLE
    ranks = words(tests, delta, claim).map(WORDS.index)
    said = ranks.groupby(tests[by]).min().map(dict(enumerate(WORDS))).value_counts()
    n, most = said.sum(), said[said == said.max()].sort_index()
    counts = ", ".join(f"{count} of {n} {word}" for word, count in most.items())
    if said.max() < ENOUGH * n:
        return f"mixed ({counts})"
    return most.index[0] if said.max() == n else f"{most.index[0]} ({said.max()} of {n})"
