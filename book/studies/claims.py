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
"""Rows of `PRINTED_TABLE`: the mean of the four methods, its positive control, fine-tuned CLIP."""


def printed_gains(by_family: bool = False) -> pd.Series:
    """Return accuracy minus that of CLIP-FT in points, by model, as the paper's Table 1 prints it.

    It is the mean of seven columns, without Winoground, which is not printed for all models.

    Args:
        by_family: Whether columns of one benchmark ("ARO-R" and "ARO-A") are averaged first.
    """
    accuracy = pd.read_csv(bundled_path(PRINTED_TABLE), index_col="model").drop(
        columns="Winoground"
    )
    gains = accuracy.sub(accuracy.loc[TUNED])
    if by_family:
        gains = gains.T.groupby(gains.columns.str.partition("-").get_level_values(0)).mean().T
    return gains.mean(axis=1)


def expected_gain(control: float, by_family: bool = False) -> float:
    """Return CAE's gain if it has the paper's share of NegCLIP's gain, which is `control` here.

    Args:
        control: NegCLIP's gain on the dataset.
        by_family: As for `printed_gains`.
    """
    printed = printed_gains(by_family)
    return control * printed[CAE] / printed[CONTROL]


TEXT_GAIN = 0.0075
"""CAE's gain over CLIP-FT in the paper's Table 4: Spearman correlations rise by .013 (SICK-R) and
.002 (STS-B), .0075 in the mean."""


def expected_addition(accuracy: float) -> float:
    """Return what CAE gains if it corrects as large a share of errors as in the paper's Table 1.

    The paper prints no gain of CAE over NegCLIP. Its gain over CLIP-FT corrects a share of
    CLIP-FT's errors, in the mean of the printed columns.

    Args:
        accuracy: Accuracy of the model that CAE is added to, from 0 to 1.
    """
    tuned = pd.read_csv(bundled_path(PRINTED_TABLE), index_col="model").loc[TUNED]
    errors = 100 - tuned.drop("Winoground").mean()
    return printed_gains()[CAE] / errors * (1 - accuracy)


def headline_weights(profile_name: str, items: pd.DataFrame) -> pd.DataFrame:
    """Return the weight of each item in the accuracy on which the claims of a profile are judged.

    On paired photographs, all items that swap a relation's phrases count alike; elsewhere each
    benchmark family does.

    Args:
        profile_name: Name of the profile.
        items: Its table `items`.
    """
    if "paired" in (profile_name, load_profile(profile_name).like):
        swaps = items[(items["family"] == "aro") & (items["subset"] == "relation")]
        alike = swaps.assign(score="mean", stratum="places", weight=1 / len(swaps))
        return alike[["score", *ITEM_KEY, "weight", "stratum"]]
    return score_weights(items, "family").query("score == 'mean'")


def average_runs(answers: pd.DataFrame, groups: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Return the mean of each group of runs as one run, by item and seed.

    Args:
        answers: The table `benchmarks`: `run`, `seed`, `picture`, `correct` and `ITEM_KEY`.
        groups: Names of new runs, each with the runs that it is the mean of.

    Raises:
        DataError: A run of a group has no answers, so the mean would be that of the others.
    """
    runs_with_answers, tables = set(answers["run"]), [answers.iloc[:0]]
    for name, runs in groups.items():
        if missing := sorted(set(runs) - runs_with_answers):
            raise DataError(f"{name!r} is a mean of runs without answers: {', '.join(missing)}")
        rows = answers[answers["run"].isin(runs)].astype({"correct": float})
        by_item = rows.groupby(["seed", *ITEM_KEY, "picture"], sort=False, observed=True)
        tables.append(by_item["correct"].mean().reset_index().assign(run=name))
    return pd.concat(tables, ignore_index=True)
