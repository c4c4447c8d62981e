"""How much of its data a measurement used: n used of n expected, as lines to print."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

USED, EXPECTED = "n_used", "n_expected"


def amounts(suite: str, results: Mapping[str, Any]) -> list[str]:
    """One line for each family or set of a suite, then one for each part that is not complete.

    Args:
        suite: Name of the suite.
        results: What its record holds, by `family/subset` or by set.
    """
    used = results.get(USED, results.get("n_captions"))
    if used is not None and EXPECTED in results:
        return [f"{suite}: {_of(used, results[EXPECTED])}"]
    parts = {key: part for key, part in results.items()
             if isinstance(part, Mapping) and EXPECTED in part and USED in part}  # fmt: skip
    sums: dict[str, list[int]] = {}
    for key, part in parts.items():
        total = sums.setdefault(key.partition("/")[0], [0, 0])
        total[0] += part[USED]
        total[1] += part[EXPECTED]
    lines = [f"{suite}, {family}: {_of(*total)}" for family, total in sums.items()]
    return lines + [
        f"  incomplete: {key}, {_of(part[USED], part[EXPECTED])}"
        for key, part in parts.items()
        if "/" in key and part[USED] != part[EXPECTED]
    ]


def _of(used: int, expected: int) -> str:
    return f"{used:,} used of {expected:,} expected"
