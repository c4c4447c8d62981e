"""What the paper prints for its models, as a measure of what is to be found in another world."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from cae_lib.config import shipped
from cae_lib.errors import DataError
from cae_lib.statistics import ANSWERS

PAPER = "data/paper.csv"
OURS, CONTROL, PLAIN = "CLIP-CAE, mean of 4", "NegCLIP", "CLIP-FT"
"""Rows of `PAPER`: the mean of the four attribution methods, its control, plain fine-tuning."""


def printed_gains() -> pd.Series:
    """Accuracy minus that of CLIP-FT in points, by model, as the paper's Table 1 prints it: mean
    of its seven columns without Winoground, which it does not print for all models."""
    accuracy = pd.read_csv(shipped(PAPER), index_col="model").drop(columns="Winoground")
    return accuracy.sub(accuracy.loc[PLAIN]).mean(axis=1)


def expected_gain(control: float) -> float:
    """The gain that CAE would have where NegCLIP gains `control`, in the unit of `control`, if it
    gained the share of NegCLIP's that it gains in the paper."""
    printed = printed_gains()
    return control * printed[OURS] / printed[CONTROL]


def pooled(answers: pd.DataFrame, groups: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """The runs of each group as one run of its name, whose `correct` is their mean for each item
    and seed: "the mean of four methods" as a row of its own.

    Args:
        answers: The table `benchmarks`: `run`, `seed`, `picture`, `correct` and `ANSWERS`.
        groups: Names of new runs, each with the runs that it is the mean of.

    Raises:
        DataError: A run of a group has no answers, so the mean would be that of the others.
    """
    known, made = set(answers["run"]), [answers.iloc[:0]]
    for name, runs in groups.items():
        if absent := sorted(set(runs) - known):
            raise DataError(f"{name!r} is a mean of runs without answers: {', '.join(absent)}")
        own = answers[answers["run"].isin(runs)].astype({"correct": float})
        own = own.groupby(["seed", *ANSWERS, "picture"], sort=False, observed=True)["correct"]
        made.append(own.mean().reset_index().assign(run=name))
    return pd.concat(made, ignore_index=True)
