"""How much the base model's scores hang on choices that the paper leaves open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from cae_lib.attribution import METHODS
from cae_lib.errors import DataError
from cae_lib.measurements import results
from cae_lib.report.attribution import Draws, mean_draws
from cae_lib.report.faithfulness import Areas, Faithfulness, scorer_label
from cae_lib.report.faithfulness_tables import BRACKETS, shown
from cae_lib.report.figure import (
    METHOD_COLORS,
    METHOD_MARKERS,
    NEUTRAL,
    WIDTH,
    Figure,
    finish,
    style,
)
from cae_lib.report.markup import Table, Text, interval, listing
from cae_lib.report.runs import BASE

SUITE = "sensitivity"
DEFAULT = "default"
MASK_LABELS = {"mean": "mean embedding", "zero": "zero vector", "token": "the token *"}


@dataclass(frozen=True)
class Choice:
    """One way to compute a method's scores.

    Attributes:
        method: The method.
        name: What differs from the default.
        correlation: Mean rank correlation with the default's scores.
        contrast: (A_obj - A_comp) / (|A_obj| + |A_comp|), means over captions.
    """

    method: str
    name: str
    correlation: Draws
    contrast: Draws


def sensitivity(profile: str) -> Mapping[str, Any]:
    """What the record of the base model holds.

    Raises:
        DataError: There is no such record, or it holds something else.
    """
    (record,) = results(BASE, profile, SUITE, 1)
    missing = [name for name in ("choices", "masks", "n_captions") if name not in record.results]
    if missing:
        raise DataError(f"record {record.name} lacks {', '.join(missing)}")
    return record.results


def choices(content: Mapping[str, Any]) -> list[Choice]:
    """Every choice of every method, the default first."""
    return [
        Choice(method, part["name"], mean_draws(_row(part["correlation"])), _contrast(part))
        for method in METHODS
        for part in content["choices"][method]
    ]


def _contrast(part: Mapping[str, Any]) -> Draws:
    top, low = mean_draws(_row(part["object"])), mean_draws(_row(part["composition"]))
    level = abs(top.estimate) + abs(low.estimate)
    levels = np.abs(top.samples) + np.abs(low.samples)
    return Draws(
        (top.estimate - low.estimate) / level if level else 0.0,
        (top.samples - low.samples) / np.where(levels > 0, levels, 1),
        top.n_items, 1,
    )  # fmt: skip


def sensitivity_table(content: Mapping[str, Any]) -> Table:
    """Rank correlation with the default, and what becomes of the gap, choice by choice."""
    rows = [
        [scorer_label(c.method), c.name, "1" if c.name == DEFAULT else shown(c.correlation),
         shown(c.contrast)]
        for c in choices(content)
    ]  # fmt: skip
    return Table(
        name="tab-sensitivity",
        caption="What open choices change in CLIP: rank correlation of a caption's word scores "
        "with those by the default, and the relative gap (A_obj − A_comp) / (|A_obj| + |A_comp|), "
        f"over {content['n_captions']} captions. {BRACKETS}.",
        header=["method", "choice", "rank correlation", "relative gap"],
        rows=rows,
        left=2,
    )


def sensitivity_figure(content: Mapping[str, Any]) -> Figure:
    """Rank correlation of every choice with the default."""
    found = [c for c in choices(content) if c.name != DEFAULT]
    with style():
        canvas, axis = plt.subplots(figsize=(WIDTH, 0.8 + 0.27 * len(found)), layout="constrained")
        for place, choice in enumerate(found):
            value = choice.correlation.interval()
            error = [[value.estimate - value.low], [value.high - value.estimate]]
            axis.errorbar(value.estimate, place, xerr=error, fmt=METHOD_MARKERS[choice.method],
                          color=METHOD_COLORS[choice.method], markersize=5, capsize=2)  # fmt: skip
        labels = [f"{scorer_label(c.method)}: {c.name}" for c in found]
        axis.set_yticks(range(len(found)), labels)
        axis.set_ylim(len(found) - 0.5, -0.5)
        axis.axvline(0, color=NEUTRAL, linewidth=1)
        axis.axvline(1, color=NEUTRAL, linewidth=1, linestyle=":")
        axis.set_xlabel("rank correlation with the default")
        axis.grid(axis="y", visible=False)
        values = "; ".join(
            f"{name} {interval(c.correlation.interval(), 2)}"
            for name, c in zip(labels, found, strict=True)
        )
        return finish(canvas, f"Rank correlations with the default's word scores: {values}.")


def mask_table(content: Mapping[str, Any], base: Faithfulness) -> Table:
    """Faithfulness in the base model when another mask stands in for the words."""
    by_mask = {"mean": {m: base.areas(m) for m in METHODS}} | {
        mask: {m: _areas(part, m) for m in METHODS} for mask, part in content["masks"].items()
    }
    rows = [
        [name, *(shown(by_mask[mask][m].faithfulness) for m in METHODS)]
        for mask, name in MASK_LABELS.items()
        if mask in by_mask
    ]
    return Table(
        name="tab-masks",
        caption="Faithfulness in CLIP when another mask takes the words' place in the curves; the "
        "scores are the same, by the methods' defaults. Perturbation by default scores with the "
        f"first of these masks. {content['n_captions']} captions. {BRACKETS}.",
        header=["mask", *(f"by {scorer_label(m)}" for m in METHODS)],
        rows=rows,
    )


def _areas(part: Mapping[str, Any], method: str) -> Areas:
    own = part["methods"][method]
    return Areas(
        deletion=_row(own["deletion"]["area"]), insertion=_row(own["insertion"]["area"]),
        random=_row(part["random"]["area"]), whole=_row(part["whole"]), empty=_row(part["empty"]),
    )  # fmt: skip


def judge_sensitivity(content: Mapping[str, Any]) -> Text:
    """Which choice matters most for each method, and which turn the deficiency round."""
    found = [c for c in choices(content) if c.name != DEFAULT]
    worst = [min((c for c in found if c.method == m), key=lambda c: c.correlation.estimate)
             for m in METHODS]  # fmt: skip
    parts = [
        f"for {scorer_label(c.method)} “{c.name}” (rank correlation with the default "
        f"{interval(c.correlation.interval(), 2)})"
        for c in worst
    ]
    return Text(f"The choice that changes most is {listing(parts)}. {_gaps(choices(content))}")


def _gaps(found: Sequence[Choice]) -> str:
    ahead = [c for c in found if c.contrast.interval().low > 0]
    if len(ahead) == len(found):
        return f"Object words get more than composition words by all {len(found)} variants."
    lost = [f"{scorer_label(c.method)}, {c.name}" for c in found if c not in ahead]
    return (
        f"Object words get more than composition words for certain by {len(ahead)} of "
        f"{len(found)} variants, but not by: {'; '.join(lost)}."
    )


def _row(values: Sequence[float | None]) -> np.ndarray:
    return np.array([[np.nan if v is None else v for v in values]], dtype=float)
