"""Scores of runs from their stored answers, and the sizes of the datasets of a profile."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

import pandas as pd

from cae_bench import datasets
from cae_bench.averages import score_weights, weighted_average
from cae_bench.benchmarks import is_size_unknown
from cae_bench.benchmarks.load import BROKEN_IMAGES_KEY, MISSING_IMAGES_KEY
from cae_bench.scores import SCORE_COLUMNS, accuracy_table, answered_items, items_of
from cae_lab import store
from cae_lab.dataset_sizes import drop_rescored
from cae_lab.runs import Profile
from cae_lab.suites import SUITES
from cae_lib.errors import DataError

REAL_PROFILE = "paper"  # whose datasets are the published ones


def is_measured(run: str, profile: Profile, suites: Iterable[str] = ()) -> bool:
    """Return whether the table of at least one suite, by default of all, is stored for a run."""
    return not all(store.missing_runs(suite, [run], profile) for suite in suites or SUITES)


def qualified_dataset_names(names: pd.Series, profile: Profile) -> pd.Series:
    """Prefix the names of generated datasets with the name of their profile, as in "mini-aro"."""
    # Generated datasets have the names of the real ones whose layout they share.
    return names if profile.is_real else f"{profile.name}-" + names


def stored_scores(
    run: str, profile: Profile, seed: int, suites: Iterable[str] = ()
) -> pd.DataFrame:
    """Compute the accuracies, recalls and correlations of a run from its stored tables.

    Suites other than "benchmarks", "retrieval" and "similarity" give no rows. `value` is a fraction
    or Spearman's correlation.
    """
    measured = [
        suite
        for suite in suites or ("benchmarks", "retrieval", "similarity")
        if not store.missing_runs(suite, [run], profile)
    ]

    def rows_of(suite: str) -> pd.DataFrame:
        frame = store.load(suite, profile, [run])
        return frame[frame["seed"] == seed]

    tables, scores = [], []
    if "benchmarks" in measured:
        items = items_of(datasets.load_benchmarks(profile.datasets))
        tables.append(accuracy_table(rows_of("benchmarks"), items))
    if "retrieval" in measured:
        pairs = datasets.retrieval_sets(profile.datasets)
        by_direction = rows_of("retrieval").groupby(["set", "direction"], sort=False)
        for (name, way), ranks in by_direction:
            if name not in pairs:
                raise _no_dataset_error(name, profile)
            amounts = pairs[name].n_used, pairs[name].n_expected
            for k in (1, 5, 10):
                recall = float((ranks["rank"] <= k).mean())
                scores.append((name, "retrieval", f"{way}, R@{k}", recall, math.nan, *amounts))
    if "similarity" in measured:
        expected = {
            part.name: part.n_expected for part in datasets.similarity_sets(profile.datasets)
        }
        for name, rows in rows_of("similarity").groupby("set", sort=False):
            if name not in expected:
                raise _no_dataset_error(name, profile)
            # Over all pairs of a dataset together, as is usual since SimCSE (Gao et al. 2021), and
            # not as a mean over its parts.
            spearman = float(rows["gold"].corr(rows["score"], "spearman"))
            amounts = len(rows), expected[name]
            scores.append((name, "similarity", "Spearman", spearman, math.nan, *amounts))
    tables.append(pd.DataFrame(scores, columns=SCORE_COLUMNS))
    # pandas warns of empty tables in a concatenation, but the columns are needed if all are empty.
    return pd.concat([table for table in tables if len(table)] or tables, ignore_index=True)


def describe_family_means(run: str, profile: Profile, seed: int, suites: Iterable[str] = ()) -> str:
    """Tell the accuracy of a run on the paper's families, and its mean; "" if none is measured.

    It is also empty if `suites` are named, but not "benchmarks".
    """
    is_asked = not suites or "benchmarks" in suites
    if not is_asked or store.missing_runs("benchmarks", [run], profile):
        return ""
    answers = store.load("benchmarks", profile, [run])
    items = items_of(datasets.load_benchmarks(profile.datasets))
    rows = answered_items(answers[answers["seed"] == seed], items)
    means = 100 * weighted_average(rows, score_weights(rows, "family"))
    if means.empty:
        return ""
    mean = means.pop("mean")
    listed = ", ".join(f"{name} {value:.1f}" for name, value in means.items())
    return f"Mean of the paper's families, {len(means)} of 7: {mean:.1f} % ({listed})"


def _no_dataset_error(name: Any, profile: Profile) -> DataError:
    return DataError(
        f"{name} of {profile.name} is not on this machine, but its number of items is read from "
        "its files: `cae data list` says how to get it"
    )


def describe_dataset_sizes(profile: Profile) -> list[str]:
    """Return lines that say how many items the suites use, and which datasets are incomplete."""
    table = store.load("subsets", profile)
    is_real = profile.is_real
    unknown = [
        is_real and row.suite == "benchmarks" and is_size_unknown(row.family, row.subset)
        for row in table.itertuples()
    ]
    sums = (
        drop_rescored(table.assign(unknown=unknown))
        .groupby(["suite", "family"], sort=False)
        .agg({"n_used": "sum", "n_expected": "sum", "unknown": "sum", "subset": "size"})
    )
    lines = [
        f"{suite}, {family}: {used:,} used"
        # Without a published number, `n_expected` is the number of items that were read.
        + (f" of {expected:,} expected" if unknown < n else "")
        + (f"; number published unknown of {unknown} of {n} subsets" if unknown else "")
        for (suite, family), used, expected, unknown, n in sums.itertuples()
    ]
    for row in table[table["n_used"] < table["n_expected"]].itertuples():
        counts = json.loads(row.counts)
        why = ", ".join(
            f"{counts[kind]:,} {kind.replace('_', ' ')}"
            for kind in (MISSING_IMAGES_KEY, BROKEN_IMAGES_KEY)
            if counts.get(kind)
        )
        lines.append(
            f"  incomplete: {row.suite}, {row.family}/{row.subset}, {row.n_used:,} used "
            f"of {row.n_expected:,} expected{f' ({why})' if why else ''}"
        )
    return lines
