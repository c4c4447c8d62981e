"""Evaluate a model on benchmarks, and format and export its scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cae_bench.answers import answer_benchmarks, scorable_benchmarks, weighted_items
from cae_bench.averages import join_by_item, score_weights, weighted_average
from cae_bench.benchmarks import (
    BENCHMARK_FAMILIES,
    Benchmark,
    is_size_unknown,
)
from cae_bench.benchmarks.base import ITEM_KEY
from cae_bench.datasets import Datasets, load_benchmarks, load_family
from cae_bench.encoder import Encoder
from cae_bench.sources import find_source
from cae_lib.config import paths
from cae_lib.models.clip import Clip
from cae_lib.runtime import write_atomic

SCORE_COLUMNS = ["dataset", "task", "metric", "value", "chance", "n_used", "n_expected"]
"""Columns of a table of scores. `dataset` is "family/subset" of a benchmark or another dataset;
`n_used` and `n_expected` are numbers of items, captions or pairs of sentences.
"""

CLIP_BENCHMARK_TASKS = {
    "choice": "image_caption_selection",
    "retrieval": "zeroshot_retrieval",
    "similarity": "text_similarity",
}
"""CLIP_benchmark's names of the tasks."""

# CLIP_benchmark names retrieval after what is retrieved: "image" for text to image.
CLIP_BENCHMARK_METRICS = {"accuracy": "acc"} | {
    f"{way}, R@{k}": f"{name}_retrieval_recall@{k}"
    for k in (1, 5, 10)
    for way, name in (("text to image", "image"), ("image to text", "text"))
}
"""CLIP_benchmark's names of the metrics."""


def items_of(benchmarks: Sequence[Benchmark]) -> pd.DataFrame:
    """Return the table of `weighted_items` with a column `n_expected`, the size of the subset."""
    items = weighted_items(benchmarks)
    amounts = {
        (part.name, part.subset): part.n_expected for part in scorable_benchmarks(benchmarks)
    }
    subset = zip(items["family"], items["subset"], strict=True)
    return items.assign(n_expected=[amounts[name] for name in subset])


def answered_items(answer_table: pd.DataFrame, items: pd.DataFrame) -> pd.DataFrame:
    """Return the items of the subsets with answers, which are of one run and seed, with these."""
    answered = answer_table[["family", "subset"]].drop_duplicates()
    # Items of subsets without answers are left out; within a subset each item needs an answer.
    return join_by_item(items.merge(answered), answer_table[[*ITEM_KEY, "correct"]])


def accuracy_table(answer_table: pd.DataFrame, items: pd.DataFrame) -> pd.DataFrame:
    """Return the headline accuracy of each subset with answers, which are of one run and seed."""
    rows = answered_items(answer_table, items)
    weights = score_weights(rows, "subset")
    value, chance = weighted_average(rows, weights), weighted_average(rows, weights, "chance")
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
    model: Clip | Callable[[], Clip], *families: str, datasets: Datasets | None = None
) -> pd.DataFrame:
    """Evaluate a model on benchmarks.

    Each call reads the annotation files again.

    Args:
        model: A model that `load_clip` returns, or a function that returns one. The function is
            called after the datasets have been read.
        *families: Names of families of benchmarks, such as "sugarcrepe" (see
            `cae_bench.benchmarks.BENCHMARK_FAMILIES`); hyphens may stand for underscores. If no
            names are given, all families are used.
        datasets: Where the benchmarks are. By default they are published ones in `data/raw`, below
            the folder that the environment variable `CAE_HOME` names. If it is not set, this folder
            is the repository or, if the package was installed without one, the current folder.

    Returns:
        A row for the headline accuracy of each subset that has usable items, and for SVO-Probes
        also a row of its official metric ("svo_probes/match"). Columns: `dataset`
        ("family/subset"), `task`, `metric`, `value` and `chance` (fractions), `n_used` and
        `n_expected` (numbers of items). If published data are incomplete, `n_used` is smaller, and
        a message says what is left out.

    Raises:
        ConfigError: If a family is unknown or, of generated datasets, missing, or if the family
            "order" finds no English spaCy model.
        DataError: If data are malformed, if generated data are incomplete, or if one of the
            `families` has no usable item. The message says how to get what is missing.
    """
    datasets = datasets or Datasets(paths().raw)
    # The user may have added files since the last call.
    load_family.cache_clear()
    # The data first: if something is missing, the error comes before a model is loaded.
    benchmarks = load_benchmarks(datasets, families)
    clip = model if isinstance(model, Clip) else model()
    encoder = Encoder(clip, show_progress=datasets.is_published)
    return accuracy_table(answer_benchmarks(benchmarks, encoder), items_of(benchmarks))


def format_scores(table: pd.DataFrame) -> str:
    """Format scores, times 100, as a text table in which a star marks incomplete datasets."""
    shown = table[["dataset", "metric"]].copy()
    shown["%"] = (100 * table["value"]).map("{:.1f}".format)
    shown["chance"] = [
        "" if math.isnan(value) else f"{100 * value:.1f}" for value in table["chance"]
    ]
    shown["n used"] = table["n_used"].map("{:,}".format)
    # Without a published number, `n_expected` is only what the files hold.
    unknown = [is_size_unknown(*name.partition("/")[::2]) for name in table["dataset"]]
    shown["n expected"] = table["n_expected"].map("{:,}".format).mask(unknown, "unknown")
    few = table["n_used"] < table["n_expected"]
    shown[""] = few.map({True: "*", False: ""})
    note = (
        "\n* incomplete, see above: not to be compared with published numbers" if any(few) else ""
    )
    return shown.to_string(index=False) + note


def write_scores(table: pd.DataFrame, model_name: str, folder: Path, tag: str = "") -> list[Path]:
    """Write scores to a CSV file in CLIP_benchmark's layout, and to a YAML file for the hub.

    Args:
        table: Scores; generated datasets must be named by `qualified_dataset_names`.
        model_name: Name of the model, which also names the files.
        folder: Folder to write to.
        tag: open_clip's name of the pretrained weights; "" if they have none.

    Returns:
        The paths of the written files; no YAML file is written if `hub_entries` has none.
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
    # CLIP_benchmark has a column for each metric, and a row for each dataset.
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

    Only complete subsets of benchmarks that are datasets of the hub have entries. Generated
    datasets must be named by `qualified_dataset_names`, as only names tell them from real ones.
    """
    entries = []
    for row in table[table["task"] == "choice"].itertuples():
        family, _, subset = row.dataset.partition("/")
        # The hub compares models, so a score of a part of the items must not get there.
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
