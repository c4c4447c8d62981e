"""What the paper's gains lead one to expect elsewhere, and means of several runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from cae_bench.averages import score_weights
from cae_bench.benchmarks.base import ITEM_KEY
from cae_lab.profiles import load_profile
from cae_lib.config import bundled_path
from cae_lib.errors import DataError

PRINTED_TABLE = "data/paper.csv"
CAE, CONTROL, TUNED = "CLIP-CAE, mean of 4", "NegCLIP", "CLIP-FT"
"""Rows of `PRINTED_TABLE`."""


def printed_gains(by_family: bool = False) -> pd.Series:
    """Return the mean gain over CLIP-FT in points, by model, of the paper's Table 1.

    With `by_family`, columns of one benchmark ("ARO-R" and "ARO-A") are averaged first.
    """
    # The paper prints Winoground for some models only.
    accuracy = pd.read_csv(bundled_path(PRINTED_TABLE), index_col="model").drop(
        columns="Winoground"
    )
    gains = accuracy.sub(accuracy.loc[TUNED])
    if by_family:
        gains = gains.T.groupby(gains.columns.str.partition("-").get_level_values(0)).mean().T
    return gains.mean(axis=1)


def expected_gain(control: float, by_family: bool = False) -> float:
    """Return CAE's gain if it is the paper's share of NegCLIP's, which is `control` here."""
    printed = printed_gains(by_family)
    return control * printed[CAE] / printed[CONTROL]


TEXT_GAIN = 0.0075
"""CAE's gain over CLIP-FT in the paper's Table 4: Spearman correlations rise by .013 (SICK-R) and
.002 (STS-B), .0075 in the mean."""


def expected_addition(accuracy: float) -> float:
    """Return what CAE adds to an accuracy (0 to 1) if it corrects the paper's share of errors.

    The paper prints no gain of CAE over NegCLIP; the share is that of CLIP-FT's errors in Table 1.
    """
    tuned = pd.read_csv(bundled_path(PRINTED_TABLE), index_col="model").loc[TUNED]
    errors = 100 - tuned.drop("Winoground").mean()
    return printed_gains()[CAE] / errors * (1 - accuracy)


def headline_weights(profile_name: str, items: pd.DataFrame) -> pd.DataFrame:
    """Return the weights of a profile's items in the accuracy on which its claims are judged.

    On paired photographs these are the items that swap a relation's phrases; elsewhere families
    weigh alike.
    """
    if load_profile(profile_name).pairs_photographs:
        swaps = items[(items["family"] == "aro") & (items["subset"] == "relation")]
        alike = swaps.assign(score="mean", stratum="places", weight=1 / len(swaps))
        return alike[["score", *ITEM_KEY, "weight", "stratum"]]
    return score_weights(items, "family").query("score == 'mean'")


def average_runs(answers: pd.DataFrame, groups: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Return the mean of each group of runs as one run, by item and seed.

    `answers` is the table `benchmarks`, and `groups` are the runs by the name of their mean.
    """
    runs_with_answers, tables = set(answers["run"]), [answers.iloc[:0]]
    for name, runs in groups.items():
        # Without a run, the mean of the others would pass for that of the group.
        if missing := sorted(set(runs) - runs_with_answers):
            raise DataError(f"{name!r} is a mean of runs without answers: {', '.join(missing)}")
        rows = answers[answers["run"].isin(runs)].astype({"correct": float})
        by_item = rows.groupby(["seed", *ITEM_KEY, "picture"], sort=False, observed=True)
        tables.append(by_item["correct"].mean().reset_index().assign(run=name))
    return pd.concat(tables, ignore_index=True)
