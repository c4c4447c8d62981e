"""Compute the scores of a model, from its stored answers or anew, and format and export them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cae_lib import store
from cae_lib.data.benchmarks import (
    BENCHMARK_FAMILIES,
    Benchmark,
    family_names,
    is_size_unknown,
)
from cae_lib.data.benchmarks.load import BROKEN_IMAGES_KEY, MISSING_IMAGES_KEY
from cae_lib.data.sources import find_source
from cae_lib.errors import ConfigError, DataError
from cae_lib.evaluation import datasets
from cae_lib.evaluation.averages import join_by_item, score_weights, weighted_average
from cae_lib.evaluation.choice import answer_benchmarks, scorable_benchmarks, weighted_items
from cae_lib.evaluation.dataset_sizes import drop_rescored
from cae_lib.evaluation.encoder import Encoder
from cae_lib.evaluation.suites import RUN_SUITES
from cae_lib.models.clip import Clip
from cae_lib.profiles import find_profile
from cae_lib.runtime import write_atomic
from cae_lib.store import ITEM_KEY

REAL_PROFILE = "paper"
"""Name of the profile whose datasets are the published ones."""

SCORE_COLUMNS = ["dataset", "task", "metric", "value", "chance", "n_used", "n_expected"]
"""Columns of a table of scores. `dataset` is "family/subset" of a benchmark, or the name of another
dataset; `n_used` and `n_expected` are numbers of items, captions or pairs of sentences."""

CLIP_BENCHMARK_TASKS = {
    "choice": "image_caption_selection",
    "retrieval": "zeroshot_retrieval",
    "similarity": "text_similarity",
}
"""CLIP_benchmark's names of the tasks."""

CLIP_BENCHMARK_METRICS = {"accuracy": "acc"} | {
    f"{way}, R@{k}": f"{name}_retrieval_recall@{k}"
    for k in (1, 5, 10)
    for way, name in (("text to image", "image"), ("image to text", "text"))
}
"""CLIP_benchmark's names of the metrics, which name retrieval after what is retrieved."""


def items_of(benchmarks: Sequence[Benchmark]) -> pd.DataFrame:
    """Return the items of benchmarks in the form that `choice_scores` needs.

    Returns:
        The table of `weighted_items` with a further column `n_expected`, the number of items that
        the subset should have.
    """
    items = weighted_items(benchmarks)
    amounts = {
        (part.name, part.subset): part.n_expected for part in scorable_benchmarks(benchmarks)
    }
    subset = zip(items["family"], items["subset"], strict=True)
    return items.assign(n_expected=[amounts[name] for name in subset])


def choice_scores(answer_table: pd.DataFrame, items: pd.DataFrame) -> pd.DataFrame:
    """Compute the headline accuracy of each subset that has answers.

    Args:
        answer_table: Answers of one run and seed, as `choice.answer_benchmarks` returns them.
        items: The items, as `items_of` returns them.

    Returns:
        A row for each subset with answers, with the columns `SCORE_COLUMNS`. `value` and `chance`
        are fractions.

    Raises:
        DataError: If an item of a subset with answers does not have exactly one answer, or an
            answer has no item.
    """
    answered = answer_table[["family", "subset"]].drop_duplicates()
    rows = join_by_item(items.merge(answered), answer_table[[*ITEM_KEY, "correct"]])
    asked = score_weights(rows, "subset")
    value, chance = weighted_average(rows, asked), weighted_average(rows, asked, "chance")
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
    return pd.DataFrame(rows, columns=SCORE_COLUMNS)


def evaluate(
    model: Clip | Callable[[], Clip], *families: str, profile_name: str = REAL_PROFILE
) -> pd.DataFrame:
    """Evaluate a model on benchmarks, without storing the results.

    The datasets are read from `data/raw` in the folder that the environment variable `CAE_HOME`
    names. If it is not set, this folder is the repository or, if the package was installed without
    one, the current folder. Each call reads the annotation files again.

    Args:
        model: A model that `load_clip` returns, or a function that returns one. The function is
            called after the datasets have been read.
        *families: Names of families of benchmarks, such as "sugarcrepe" (see
            `cae_lib.data.benchmarks.BENCHMARK_FAMILIES`); hyphens may stand for underscores. If no
            names are given, all families of the profile are used.
        profile_name: Name of the profile: "paper" for real datasets, "mini" for the synthetic
            scenes.

    Returns:
        A row for the headline accuracy of each subset that has usable items, and for SVO-Probes
        also a row of its official metric ("svo_probes/match"). Columns: `dataset`
        ("family/subset"), `task`, `metric`, `value` and `chance` (fractions), `n_used` and
        `n_expected` (numbers of items). If real data are incomplete, `n_used` is smaller, and a
        message says what is left out.

    Raises:
        ConfigError: If a family or the profile is unknown, if the profile lacks a family, or if the
            family "order" finds no English spaCy model.
        DataError: If data are malformed, if generated data are incomplete, or if one of the
            `families` has no usable item. The message says how to get what is missing.
    """
    names = family_names(families)
    for name in names if not find_profile(profile_name).is_real else ():
        if name not in datasets.benchmark_families(profile_name):
            raise ConfigError(
                f"{name} is no set of the profile {profile_name}: give --profile {REAL_PROFILE}, "
                "or in place of a run a weight file, data/mini/base.safetensors for "
                "example, with which sets below data/raw are read"
            )
    datasets.load_family.cache_clear()
    asked = datasets.load_benchmarks(profile_name, names)
    encoder = Encoder(model if isinstance(model, Clip) else model(), profile_name)
    return choice_scores(answer_benchmarks(asked, encoder), items_of(asked))


def is_measured(run: str, profile_name: str, suites: Iterable[str] = ()) -> bool:
    """Return whether the table of at least one suite is stored for a run.

    Args:
        run: The run's name in tables.
        profile_name: Name of the profile.
        suites: Names of the suites to look for; by default all of `RUN_SUITES`.
    """
    return not all(store.missing_runs(suite, [run], profile_name) for suite in suites or RUN_SUITES)


def qualified_dataset_names(names: pd.Series, profile_name: str) -> pd.Series:
    """Prefix the names of generated datasets with the name of their profile and a hyphen.

    Generated datasets have the names of the real ones whose layout they share. Names of real
    datasets are returned unchanged.

    Args:
        names: The names.
        profile_name: Name of the profile that the datasets belong to.
    """
    return names if find_profile(profile_name).is_real else f"{profile_name}-" + names


def stored_scores(
    run: str, profile_name: str, seed: int, suites: Iterable[str] = ()
) -> pd.DataFrame:
    """Compute scores from the stored tables of a run: accuracies, recalls, correlations.

    Args:
        run: The run's name in tables.
        profile_name: Name of the profile.
        seed: Seed of the run.
        suites: Which of "benchmarks", "retrieval" and "similarity" to score; all three by default.
            Suites that are not stored for this run and seed, and any other suites, give no rows.

    Returns:
        A row for each score, with the columns `SCORE_COLUMNS`. `value` is a fraction or, for
        similarity, Spearman's correlation over all pairs of a dataset together, as is usual since
        SimCSE (Gao et al. 2021). `chance` is NaN except for accuracies.

    Raises:
        DataError: If the datasets, from which the numbers of items are read, are missing or
            malformed, or their items are not those of the stored answers.
    """
    measured = [
        suite
        for suite in suites or ("benchmarks", "retrieval", "similarity")
        if not store.missing_runs(suite, [run], profile_name)
    ]

    def rows_of(suite: str) -> pd.DataFrame:
        frame = store.load(suite, profile_name, [run])
        return frame[frame["seed"] == seed]

    tables, scores = [], []
    if "benchmarks" in measured:
        items = items_of(datasets.load_benchmarks(profile_name))
        tables.append(choice_scores(rows_of("benchmarks"), items))
    if "retrieval" in measured:
        pairs = datasets.retrieval_sets(profile_name)
        by_direction = rows_of("retrieval").groupby(["set", "direction"], sort=False)
        for (name, way), ranks in by_direction:
            if name not in pairs:
                raise _no_dataset_error(name, profile_name)
            amounts = pairs[name].n_used, pairs[name].n_expected
            for k in (1, 5, 10):
                recall = float((ranks["rank"] <= k).mean())
                scores.append((name, "retrieval", f"{way}, R@{k}", recall, math.nan, *amounts))
    if "similarity" in measured:
        expected = {part.name: part.n_expected for part in datasets.similarity_sets(profile_name)}
        for name, rows in rows_of("similarity").groupby("set", sort=False):
            if name not in expected:
                raise _no_dataset_error(name, profile_name)
            spearman = float(rows["gold"].corr(rows["score"], "spearman"))
            amounts = len(rows), expected[name]
            scores.append((name, "similarity", "Spearman", spearman, math.nan, *amounts))
    tables.append(pd.DataFrame(scores, columns=SCORE_COLUMNS))
    return pd.concat([table for table in tables if len(table)] or tables, ignore_index=True)


def _no_dataset_error(name: Any, profile_name: str) -> DataError:
    return DataError(
        f"{name} of {profile_name} is not on this machine, but its number of items is read from "
        "its files: `cae data list` says how to get it"
    )


def format_scores(table: pd.DataFrame) -> str:
    """Format scores, times 100, as a text table in which a star marks incomplete datasets.

    Where no number of items is published, "unknown" stands for the expected number.

    Args:
        table: Scores with the columns `SCORE_COLUMNS`.
    """
    shown = table[["dataset", "metric"]].copy()
    shown["%"] = (100 * table["value"]).map("{:.1f}".format)
    shown["chance"] = [
        "" if math.isnan(value) else f"{100 * value:.1f}" for value in table["chance"]
    ]
    shown["n used"] = table["n_used"].map("{:,}".format)
    unknown = [is_size_unknown(*name.partition("/")[::2]) for name in table["dataset"]]
    shown["n expected"] = table["n_expected"].map("{:,}".format).mask(unknown, "unknown")
    few = table["n_used"] < table["n_expected"]
    shown[""] = few.map({True: "*", False: ""})
    note = (
        "\n* incomplete, see above: not to be compared with published numbers" if any(few) else ""
    )
    return shown.to_string(index=False) + note


def write_scores(table: pd.DataFrame, model_name: str, folder: Path, tag: str = "") -> list[Path]:
    """Write scores to a CSV file and to a YAML file.

    The CSV file has the layout of CLIP_benchmark, with the further columns `n_used` and
    `n_expected`. The YAML file holds the evaluation results that `hub_entries` returns for the
    Hugging Face hub; it is not written if there are none.

    Args:
        table: Scores with the columns `SCORE_COLUMNS`; generated datasets must be named by
            `qualified_dataset_names`.
        model_name: Name of the model, which also names the files.
        folder: Folder to write to.
        tag: open_clip's name of the pretrained weights; "" if they have none.

    Returns:
        The paths of the written files, named after `model_name` with ".csv" and ".yaml" added.

    Raises:
        WriteError: If a file cannot be written.
    """
    import yaml

    rows = pd.DataFrame(
        {
            "dataset": table["dataset"],
            "model": model_name,
            "pretrained": tag,
            "language": "en",
            "task": table["task"].map(CLIP_BENCHMARK_TASKS),
            "model_fullname": model_name,
            "metric": table["metric"].map(CLIP_BENCHMARK_METRICS).fillna(table["metric"]),
            "value": table["value"],
            "n_used": table["n_used"],
            "n_expected": table["n_expected"],
        }
    )
    names = list(rows.columns.difference(["metric", "value"], sort=False))
    wide = rows.pivot_table(index=names, columns="metric", values="value", sort=False).reset_index()
    files = {folder / f"{model_name}.csv": wide.to_csv(index=False)}
    if entries := hub_entries(table):
        files[folder / f"{model_name}.yaml"] = yaml.safe_dump(entries, sort_keys=False)
    for file, content in files.items():
        write_atomic(file, content)
    return list(files)


def hub_entries(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return accuracies in percent as entries of a model's `.eval_results` on the hub.

    Args:
        table: Scores as fractions, with the columns `SCORE_COLUMNS`. A real benchmark is recognised
            by its name in `dataset` alone, so generated datasets must be named by
            `qualified_dataset_names`.

    Returns:
        An entry for each complete subset of a benchmark that is a dataset of the hub. Other
        subsets, generated datasets, retrieval and similarity have no entries.
    """
    entries = []
    for row in table[table["task"] == "choice"].itertuples():
        family, _, subset = row.dataset.partition("/")
        is_complete = row.n_used == row.n_expected and not is_size_unknown(family, subset)
        if family not in BENCHMARK_FAMILIES or not is_complete:
            continue
        items = (
            item
            for name in BENCHMARK_FAMILIES[family].source_names
            for item in find_source(name).files
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


def describe_dataset_sizes(profile_name: str) -> list[str]:
    """Describe how many items the suites use, and which datasets are incomplete.

    Returns:
        First a line for each benchmark family or dataset of each suite, without rescored subsets.
        It says of how many subsets the published number of items is unknown, if real data have
        such subsets. Then a line for each incomplete subset or dataset. Of a benchmark, it has the
        numbers of items that were left out because of missing and of broken images.

    Raises:
        DataError: If the profile has no stored table "subsets".
    """
    table = store.load("subsets", profile_name)
    is_real = find_profile(profile_name).is_real
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
