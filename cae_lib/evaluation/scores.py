"""Scores of a model: compute them, read them from stored answers, and export them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cae_lib import store
from cae_lib.data.benchmarks import BENCHMARK_FAMILIES, Benchmark
from cae_lib.data.benchmarks.load import BROKEN_IMAGES, MISSING_IMAGES
from cae_lib.data.sources import source
from cae_lib.errors import ConfigError
from cae_lib.evaluation import datasets
from cae_lib.evaluation.amounts import drop_rescored
from cae_lib.evaluation.averages import average, join_by_item, weights
from cae_lib.evaluation.choice import answers, scorable_benchmarks, weighted_items
from cae_lib.evaluation.encoder import Encoder
from cae_lib.evaluation.suites import SUITES
from cae_lib.models.clip import Clip
from cae_lib.profiles import find_profile
from cae_lib.runtime import write_atomic
from cae_lib.store import ITEM_KEY

REAL = "paper"
"""The profile whose datasets are the published ones."""

COLUMNS = ["dataset", "task", "metric", "value", "chance", "n_used", "n_expected"]
TASKS = {
    "choice": "image_caption_selection",
    "retrieval": "zeroshot_retrieval",
    "similarity": "text_similarity",
}
METRICS = {"accuracy": "acc"} | {
    f"{way}, R@{k}": f"{name}_retrieval_recall@{k}"
    for k in (1, 5, 10)
    for way, name in (("text to image", "image"), ("image to text", "text"))
}
"""CLIP_benchmark's names, which call retrieval by what is found."""


def items_of(benchmarks: Sequence[Benchmark]) -> pd.DataFrame:
    """Return the items of benchmarks as `choice_scores` takes them."""
    items = weighted_items(benchmarks)
    amounts = {
        (part.name, part.subset): part.n_expected for part in scorable_benchmarks(benchmarks)
    }
    subset = zip(items["family"], items["subset"], strict=True)
    return items.assign(n_expected=[amounts[name] for name in subset])


def choice_scores(answer_table: pd.DataFrame, items: pd.DataFrame) -> pd.DataFrame:
    """Compute the headline of each subset; columns as in `COLUMNS`.

    Args:
        answer_table: Rows of `choice.answers`.
        items: Items of `items_of`; a subset without any answer has no score.

    Raises:
        DataError: If an item of the other subsets does not have exactly one answer.
    """
    answered = answer_table[["family", "subset"]].drop_duplicates()
    rows = join_by_item(items.merge(answered), answer_table[[*ITEM_KEY, "correct"]])
    asked = weights(rows, "subset")
    value, chance = average(rows, asked), average(rows, asked, "chance")
    sizes = answer_table.groupby(["family", "subset"], sort=False, observed=True).size()
    expected = items.groupby(["family", "subset"], observed=True)["n_expected"].first()
    rows = [
        (
            "/".join(key),
            "choice",
            "accuracy",
            value["/".join(key)],
            chance["/".join(key)],
            n,
            int(expected[key]),
        )
        for key, n in sizes.items()
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def evaluate(model: Clip | Callable[[], Clip], *families: str, profile: str = REAL) -> pd.DataFrame:
    """Evaluate a model on some families of benchmarks, or on all; nothing is stored.

    The datasets are those below `data/raw` of this folder, or of the environment variable
    `CAE_HOME`; their files are read anew in each call.

    Args:
        model: One of `load_clip`, or a function that loads it once the data are known to be here.
        families: Such as "sugarcrepe", see `cae_lib.data.benchmarks.BENCHMARK_FAMILIES`.
        profile: "paper" for real datasets, "mini" for the synthetic scenes, ...

    Returns:
        The headline of each subset; columns as in `COLUMNS`.

    Raises:
        ConfigError: For an unknown family or profile.
        DataError: If datasets are missing or malformed; the message says how to get them.
    """
    for name in BENCHMARK_FAMILIES.keys() & {*families}:
        if not find_profile(profile).real and name not in datasets.families_of(profile):
            raise ConfigError(
                f"{name} is no set of the profile {profile}: give --profile {REAL}, "
                "or in place of a run a weight file, data/mini/base.safetensors for "
                "example, with which sets below data/raw are read"
            )
    datasets.load_family.cache_clear()
    asked = datasets.benchmarks(profile, families)
    encoder = Encoder(model if isinstance(model, Clip) else model(), profile)
    return choice_scores(answers(asked, encoder), items_of(asked))


def is_measured(title: str, profile_name: str, suites: Iterable[str] = ()) -> bool:
    """Return whether any table of a run is stored; with `suites`, any table of these suites."""
    return not all(store.missing(suite, [title], profile_name) for suite in suites or SUITES)


def qualified_dataset_names(datasets: pd.Series, profile_name: str) -> pd.Series:
    """Return names of datasets that distinguish generated datasets from real ones.

    Generated datasets have the layout of real ones but other images, so the name of the profile is
    put before their name.
    """
    return datasets if find_profile(profile_name).real else f"{profile_name}-" + datasets


def stored_scores(
    title: str, profile_name: str, seed: int, suites: Iterable[str] = ()
) -> pd.DataFrame:
    """Compute scores from the stored tables of a run: accuracies, recalls, correlations.

    Args:
        title: The run's name in tables.
        profile_name: Its profile.
        seed: Its seed.
        suites: Which of "benchmarks", "retrieval" and "similarity"; all three by default. Other
            suites have no scores, and one that is not stored has no rows.

    Returns:
        One row for each score; columns as in `COLUMNS`. `value` is a fraction or Spearman's rho;
        `chance` is NaN except for accuracies.

    Raises:
        DataError: If the datasets, which say how many items there are, are missing or malformed.
    """
    measured = [
        suite
        for suite in suites or ("benchmarks", "retrieval", "similarity")
        if not store.missing(suite, [title], profile_name)
    ]

    def rows_of(suite: str) -> pd.DataFrame:
        frame = store.load(suite, profile_name, [title])
        return frame[frame["seed"] == seed]

    tables, scores = [], []
    if "benchmarks" in measured:
        items = items_of(datasets.benchmarks(profile_name))
        tables.append(choice_scores(rows_of("benchmarks"), items))
    if "retrieval" in measured:
        pairs = datasets.retrieval_sets(profile_name)
        by_direction = rows_of("retrieval").groupby(["set", "direction"], sort=False)
        for (name, way), ranks in by_direction:
            amounts = pairs[name].n_used, pairs[name].n_expected
            for k in (1, 5, 10):
                recall = float((ranks["rank"] <= k).mean())
                scores.append((name, "retrieval", f"{way}, R@{k}", recall, math.nan, *amounts))
    if "similarity" in measured:
        expected = {part.name: part.n_expected for part in datasets.similarity_pairs(profile_name)}
        for name, rows in rows_of("similarity").groupby("set", sort=False):
            spearman = float(rows["gold"].corr(rows["score"], "spearman"))
            amounts = len(rows), expected[name]
            scores.append((name, "similarity", "Spearman", spearman, math.nan, *amounts))
    tables.append(pd.DataFrame(scores, columns=COLUMNS))
    return pd.concat([table for table in tables if len(table)] or tables, ignore_index=True)


def format_scores(table: pd.DataFrame) -> str:
    """Format scores in percent as a table of text; a star marks scores on incomplete data."""
    shown = table[["dataset", "metric"]].copy()
    shown["%"] = (100 * table["value"]).map("{:.1f}".format)
    shown["chance"] = (100 * table["chance"]).map("{:.1f}".format, na_action="ignore").fillna("")
    shown["n used"] = table["n_used"].map("{:,}".format)
    shown["n expected"] = table["n_expected"].map("{:,}".format)
    few = table["n_used"] < table["n_expected"]
    shown[""] = few.map({True: "*", False: ""})
    note = (
        "\n* incomplete, see above: not to be compared with published numbers" if any(few) else ""
    )
    return shown.to_string(index=False) + note


def write(table: pd.DataFrame, title: str, folder: Path, tag: str = "") -> list[Path]:
    """Write scores as CLIP_benchmark's CSV and as evaluation results of the Hugging Face hub.

    The latter contain only scores on complete datasets that are on the hub.

    Args:
        table: Columns as in `COLUMNS`.
        title: Name of the model.
        folder: Folder of the files.
        tag: open_clip's tag of the weights, if they have one.

    Returns:
        The files.

    Raises:
        WriteError: If they cannot be written.
    """
    import yaml

    rows = pd.DataFrame(
        {
            "dataset": table["dataset"],
            "model": title,
            "pretrained": tag,
            "language": "en",
            "task": table["task"].map(TASKS),
            "model_fullname": title,
            "metric": table["metric"].map(METRICS).fillna(table["metric"]),
            "value": table["value"],
            "n_used": table["n_used"],
            "n_expected": table["n_expected"],
        }
    )
    names = list(rows.columns.difference(["metric", "value"], sort=False))
    wide = rows.pivot_table(index=names, columns="metric", values="value", sort=False).reset_index()
    files = {folder / f"{title}.csv": wide.to_csv(index=False)}
    if entries := hub_entries(table):
        files[folder / f"{title}.yaml"] = yaml.safe_dump(entries, sort_keys=False)
    for file, content in files.items():
        write_atomic(file, content)
    return list(files)


def hub_entries(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return accuracies in percent as entries of a model's `.eval_results` on the hub.

    Args:
        table: Scores as fractions, with the columns `COLUMNS`.

    Returns:
        An entry for each complete, real benchmark that is a dataset of the hub; none for retrieval
        and similarity.
    """
    entries = []
    for row in table[table["task"] == "choice"].itertuples():
        family, _, subset = row.dataset.partition("/")
        if family not in BENCHMARK_FAMILIES or row.n_used != row.n_expected:
            continue
        items = (
            item for name in BENCHMARK_FAMILIES[family].source_names for item in source(name).files
        )
        repositories = (item.hub or "" for item in items)
        datasets_of_hub = [name for name in repositories if name.startswith("datasets/")]
        if datasets_of_hub:
            name = datasets_of_hub[0].removeprefix("datasets/")
            entries.append(
                {
                    "dataset": {"id": name, "task_id": subset},
                    "value": round(100 * row.value, 2),
                    "notes": "cosine, a tie is wrong",
                }
            )
    return entries


def describe_amounts(profile_name: str) -> list[str]:
    """Say how much of its data each suite uses.

    Returns:
        A line for each family or dataset of a suite, then one for each subset that is not complete,
        with why rows of it were left out.
    """
    table = store.load("subsets", profile_name)
    sums = (
        drop_rescored(table)
        .groupby(["suite", "family"], sort=False)[["n_used", "n_expected"]]
        .sum()
    )
    lines = [
        f"{suite}, {family}: {used:,} used of {expected:,} expected"
        for (suite, family), used, expected in sums.itertuples()
    ]
    for row in table[table["n_used"] < table["n_expected"]].itertuples():
        counts = json.loads(row.counts)
        why = ", ".join(
            f"{counts[kind]:,} {kind.replace('_', ' ')}"
            for kind in (MISSING_IMAGES, BROKEN_IMAGES)
            if counts.get(kind)
        )
        lines.append(
            f"  incomplete: {row.suite}, {row.family}/{row.subset}, {row.n_used:,} used "
            f"of {row.n_expected:,} expected{f' ({why})' if why else ''}"
        )
    return lines
