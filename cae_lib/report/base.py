"""The base model: the curve of its training, and what it had to be like before it was frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from cae_lib.errors import DataError
from cae_lib.evaluation.attribution import ROLES
from cae_lib.records import load_record
from cae_lib.report.figure import (
    NEUTRAL,
    ROLE_COLORS,
    ROLE_MARKERS,
    WIDTH,
    Figure,
    finish,
    style,
)
from cae_lib.report.markup import Table, number

OBJECT_CHOICES = 0.90
WEAK = 0.75
CHANCE = 0.50
RECALL = 0.30
LEAD = 1.25


def base_record(profile: str) -> Mapping[str, Any]:
    """What the record `base` holds: the curve, the final numbers, the number of parameters.

    Raises:
        DataError: There is no such record, or it holds something else.
    """
    content = load_record("base", profile).results
    missing = [name for name in ("curve", "final", "parameters") if not content.get(name)]
    if missing:
        raise DataError(f"record base of profile {profile} lacks {', '.join(missing)}")
    return content


def curve_figure(content: Mapping[str, Any]) -> Figure:
    """Accuracy of choices, recall, and attention over the base model's training."""
    curve = content["curve"]
    steps = [point["step"] for point in curve]
    with style():
        canvas, axes = plt.subplots(1, 3, figsize=(WIDTH, 3.0), layout="constrained")
        _lines(axes[0], steps, curve, "")
        axes[0].axhline(100 * CHANCE, color=NEUTRAL, linestyle=":", linewidth=1.2)
        axes[0].set(title="choices", ylabel="accuracy, %")
        for key, words, look in (
            ("retrieval_t2i_r1", "text to image", "-"),
            ("retrieval_i2t_r1", "image to text", "--"),
        ):
            values = [100 * point[key] for point in curve]
            axes[1].plot(steps, values, look, color=NEUTRAL, label=words)
        axes[1].set(title="retrieval, COCO test", ylabel="R@1, %", ylim=(0, None))
        axes[1].legend(loc="lower right")
        _lines(axes[2], steps, curve, "attention_")
        axes[2].set(title="attention", ylabel="mean of a token", ylim=(0, None))
        for axis in axes:
            axis.set_xlabel("training step")
            axis.locator_params(axis="x", nbins=4)
        handles, labels = axes[0].get_legend_handles_labels()
        canvas.legend(handles, labels, loc="outside upper center", ncols=3)
        return finish(canvas, _curve_alt(curve))


def _lines(axis: Axes, steps: Sequence[int], curve: Sequence[Mapping], prefix: str) -> None:
    scale = 1 if prefix else 100
    for role in ROLES:
        values = [scale * point[prefix + role] for point in curve]
        axis.plot(steps, values, color=ROLE_COLORS[role], marker=ROLE_MARKERS[role], markersize=4,
                  label=role)  # fmt: skip


def _curve_alt(curve: Sequence[Mapping[str, float]]) -> str:
    def words(point: Mapping[str, float]) -> str:
        choices = ", ".join(f"{role} {number(100 * point[role], 1)} %" for role in ROLES)
        attention = ", ".join(f"{role} {number(point[f'attention_{role}'])}" for role in ROLES)
        return (
            f"after {point['step']} steps choices {choices}; text-to-image R@1 "
            f"{number(100 * point['retrieval_t2i_r1'], 1)} %; attention {attention}"
        )

    ends = "; ".join(words(point) for point in (curve[0], curve[-1]))
    return f"Three panels of lines over the base model's training: {ends}."


def calibration_table(content: Mapping[str, Any]) -> Table:
    """What the base had to be like, what it is like, and which of it was met."""
    final = content["final"]
    rows = [
        ["object choices", f"at least {100 * OBJECT_CHOICES:.0f} %", _share(final["object"]),
         _met(final["object"]["estimate"] >= OBJECT_CHOICES)],
    ]  # fmt: skip
    for kind in ("relation", "attribute"):
        found = final[kind]
        met = found["low"] > CHANCE and found["estimate"] < WEAK
        wanted = f"above chance for certain, below {100 * WEAK:.0f} %"
        rows.append([f"{kind} choices", wanted, _share(found), _met(met)])
    n = final["n_pictures"]
    for key, words in (
        ("retrieval_t2i_r1", "text to image"),
        ("retrieval_i2t_r1", "image to text"),
    ):
        rows.append([f"R@1, {words}, {n} pictures", f"at least {100 * RECALL:.0f} %",
                     number(100 * final[key], 1), _met(final[key] >= RECALL)])  # fmt: skip
    top = final["attention_object"]
    for kind in ("relation", "attribute"):
        ratio = top["estimate"] / final[f"attention_{kind}"]["estimate"]
        rows.append([f"attention, object / {kind}", f"at least {LEAD}", number(ratio, 2),
                     _met(ratio >= LEAD)])  # fmt: skip
    items = ", ".join(f"{kind} {final[kind]['n_items']}" for kind in ROLES)
    return Table(
        name="tab-calibration",
        caption="What the base model was required to be like, before any CAE run existed, and what "
        f"it is like; choices in percent, mean over subsets, 95 % bootstrap intervals over items "
        f"(n: {items}); one model of {content['parameters'] / 1e6:.1f} million parameters.",
        header=["measure", "required", "found", "met"],
        rows=rows,
        left=2,
    )


def _share(found: Mapping[str, float]) -> str:
    low, middle, high = (number(100 * found[key], 1) for key in ("low", "estimate", "high"))
    return f"{middle} [{low},\N{NO-BREAK SPACE}{high}]"


def _met(met: bool) -> str:
    return "yes" if met else "**no**"
