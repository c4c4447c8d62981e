"""A difference by several attribution methods in short: its range, and how often it is certain."""

from __future__ import annotations

from collections.abc import Mapping

from cae_lib.evaluation.statistics import Interval
from cae_lib.report.markup import count, interval
from cae_lib.report.runs import method_label


def span(found: Mapping[str, Interval], digits: int = 1, scale: float = 100.0) -> str:
    """The lowest and the highest difference by method, "-1 [..] (attention) to +2 [..] (GradCAM)".

    Args:
        found: A difference by attribution method; at least one.
        digits: Decimals.
        scale: Factor of the numbers; 100 turns fractions into points.
    """
    order = sorted(found, key=lambda method: found[method].estimate)
    ends = dict.fromkeys((order[0], order[-1]))
    return " to ".join(
        f"{interval(found[method], digits, scale, sign=True)} ({method_label(method)})"
        for method in ends
    )


def certain(found: Mapping[str, Interval], up: str, down: str) -> str:
    """With how many methods the interval lies above zero, and below zero."""
    above = sum(value.low > 0 for value in found.values())
    below = sum(value.high < 0 for value in found.values())
    return f"{up} with {above}, {down} with {below} of {count(len(found), 'method')}"
