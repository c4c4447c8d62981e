"""Scores of a model from its answers: printed, as CLIP_benchmark's CSV, as the hub's results."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from huggingface_hub import EvalResult

from cae_lib import results
from cae_lib.data.benchmarks import Benchmark
from cae_lib.data.benchmarks.read import LEFT_OUT
from cae_lib.data.needs import FAMILIES, is_real
from cae_lib.data.sources import source
from cae_lib.evaluation import datasets
from cae_lib.evaluation.amounts import own_items
from cae_lib.evaluation.averages import average, weights
from cae_lib.evaluation.choice import headlines, scored
from cae_lib.evaluation.suites import SUITES
from cae_lib.runtime import write_atomic

COLUMNS = ["dataset", "task", "metric", "value", "chance", "n_used", "n_expected"]
TASKS = {"choice": "image_caption_selection", "retrieval": "zeroshot_retrieval",
         "similarity": "text_similarity"}
HUB_TASK = "zero-shot-image-classification"
"""The hub's name of what a CLIP is for; it has none for choices between captions."""

METRICS = {"accuracy": "acc"} | {
    f"{way}, R@{k}": f"{name}_retrieval_recall@{k}" for k in (1, 5, 10)
    for way, name in (("text to image", "image"), ("image to text", "text"))
}
"""CLIP_benchmark's names, which call retrieval by what is found."""


def choice_scores(parts: Sequence[Benchmark], frame: pd.DataFrame) -> pd.DataFrame:
    """The headline of each subset, from `choice.answers`; columns as in `COLUMNS`."""
    items, parts = headlines(parts), scored(parts)
    asked = weights(items, "subset")
    value, chance = average(frame, asked), average(items, asked, "chance")
    rows = [(part.key, "choice", "accuracy", value[part.key], chance[part.key], part.n_used,
             part.n_expected) for part in parts]
    return pd.DataFrame(rows, columns=COLUMNS)


def recorded_choices(title: str, profile_name: str, seed: int) -> pd.DataFrame:
    """The headline of each subset from the stored tables alone, where the sets need not be here:
    `dataset`, `task`, `value`, `n_used`, `n_expected`. DataError if a table is not stored."""
    items, subsets = (results.load(table, profile_name, [results.DATA])
                      for table in ("items", "subsets"))
    answers = results.load("benchmarks", profile_name, [title])
    answers = answers[answers["seed"] == seed]
    value = average(answers, weights(items, "subset"))
    table = answers.groupby(["family", "subset"], sort=False).size().rename("n_used").reset_index()
    expected = subsets.loc[subsets["suite"] == "benchmarks", ["family", "subset", "n_expected"]]
    table = table.merge(expected, on=["family", "subset"])
    key = table["family"] + "/" + table["subset"]
    return table.assign(dataset=named(key, profile_name), task="choice", value=key.map(value))


def named(sets: pd.Series, profile_name: str) -> pd.Series:
    """Names of sets for the world outside: those that are built here have the layouts of real ones,
    not their pictures, and the profile stands before their name."""
    return sets if is_real(profile_name) else f"{profile_name}-" + sets


def stored_scores(title: str, profile_name: str, seed: int,
                  suites: Iterable[str] = ()) -> pd.DataFrame:
    """What the stored tables of a run say, of all suites or some: accuracy of each subset, recall,
    correlation; columns as in `COLUMNS`."""
    wanted = list(suites) or list(SUITES)
    found = {}
    for name in ("benchmarks", "retrieval", "similarity"):
        if name in wanted and not results.missing(name, [title], profile_name):
            frame = results.load(name, profile_name, [title])
            found[name] = frame[frame["seed"] == seed]
    tables = [pd.DataFrame(columns=COLUMNS)]
    if "benchmarks" in found:
        parts = datasets.benchmarks(profile_name)
        tables.append(choice_scores(parts, found["benchmarks"]))
    if "retrieval" in found:
        pairs = datasets.retrieval_sets(profile_name)
        tables.append(pd.DataFrame([
            (name, "retrieval", f"{way}, R@{k}", float((own["rank"] <= k).mean()), float("nan"),
             pairs[name].n_used, pairs[name].n_expected)
            for (name, way), own in found["retrieval"].groupby(["set", "direction"], sort=False)
            for k in (1, 5, 10)], columns=COLUMNS))
    if "similarity" in found:
        pairs = {part.name: part for part in datasets.similarity_pairs(profile_name)}
        tables.append(pd.DataFrame([
            (name, "similarity", "Spearman", float(own["gold"].corr(own["score"], "spearman")),
             float("nan"), len(own), pairs[name].n_expected)
            for name, own in found["similarity"].groupby("set", sort=False)], columns=COLUMNS))
    return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)


def tell(table: pd.DataFrame) -> None:
    """Print scores in percent; a star marks those of incomplete data."""
    if table.empty:
        return
    shown = table[["dataset", "metric"]].copy()
    shown["%"] = (100 * table["value"]).map("{:.1f}".format)
    shown["chance"] = (100 * table["chance"]).map("{:.1f}".format, na_action="ignore").fillna("")
    shown["n used"] = table["n_used"].map("{:,}".format)
    shown["n expected"] = table["n_expected"].map("{:,}".format)
    few = table["n_used"] < table["n_expected"]
    shown[""] = few.map({True: "*", False: ""})
    print(shown.to_string(index=False), flush=True)
    if few.any():
        print("* incomplete, see above: not to be compared with published numbers", flush=True)


def write(table: pd.DataFrame, title: str, folder: Path, tag: str = "") -> list[Path]:
    """Write scores as CLIP_benchmark's CSV, with open_clip's tag if the weights have one, and as
    the hub's evaluation results, the latter of complete sets of the hub alone; returns the files.
    WriteError if they cannot be written."""
    rows = pd.DataFrame({
        "dataset": table["dataset"], "model": title, "pretrained": tag, "language": "en",
        "task": table["task"].map(TASKS), "model_fullname": title,
        "metric": table["metric"], "value": table["value"],
        "n_used": table["n_used"], "n_expected": table["n_expected"],
    })
    keys = list(rows.columns.difference(["metric", "value"], sort=False))
    wide = rows.assign(metric=rows["metric"].map(METRICS).fillna(rows["metric"]))
    wide = wide.pivot_table(index=keys, columns="metric", values="value", sort=False).reset_index()
    files = [folder / f"{title}.csv"]
    write_atomic(files[0], wide.to_csv(index=False))
    entries = hub_entries(table)
    if entries:
        files.append(folder / f"{title}.yaml")
        write_atomic(files[-1], yaml.safe_dump(entries, sort_keys=False))
    return files


def eval_results(table: pd.DataFrame) -> list[EvalResult]:
    """Scores of complete real benchmarks in percent, as the metadata of a model card have them: by
    the data set of the hub where there is one, else by our name of the family."""
    found = []
    for row in table[table["task"] == "choice"].itertuples():
        family, _, subset = row.dataset.partition("/")
        if family in FAMILIES and row.n_used == row.n_expected:
            items = (item for name in FAMILIES[family] for item in source(name).get)
            hub = [item.hub for item in items if (item.hub or "").startswith("datasets/")]
            kind = hub[0].removeprefix("datasets/") if hub else family
            found.append(EvalResult(HUB_TASK, kind, row.dataset, "accuracy",
                                    round(100 * row.value, 2), dataset_config=subset))
    return found


def hub_entries(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Those `eval_results` that are of data sets of the hub, as the entries of a file in a model's
    `.eval_results`; the other benchmarks have no name there."""
    return [{"dataset": {"id": found.dataset_type, "task_id": found.dataset_config},
             "value": found.metric_value, "notes": "cosine, a tie is wrong"}
            for found in eval_results(table) if "/" in found.dataset_type]


def amounts(profile_name: str) -> list[str]:
    """How much of its data each measurement uses: a line for each family or set of a suite, then
    one for each part that is not complete."""
    table = results.load("subsets", profile_name)
    sums = own_items(table).groupby(["suite", "family"], sort=False)[["n_used", "n_expected"]].sum()
    lines = [f"{suite}, {family}: {used:,} used of {expected:,} expected"
             for (suite, family), used, expected in sums.itertuples()]
    return lines + [
        f"  incomplete: {row.suite}, {row.family}/{row.subset}, {row.n_used:,} used of "
        f"{row.n_expected:,} expected{reasons(row.counts)}"
        for row in table[table["n_used"] < table["n_expected"]].itertuples()
    ]


def reasons(counts: str) -> str:
    """Why rows of a subset were left out, by the JSON of its `Benchmark.counts`."""
    found = json.loads(counts)
    told = [f"{found[kind]:,} {kind.replace('_', ' ')}" for kind in LEFT_OUT if found.get(kind)]
    return f" ({', '.join(told)})" if told else ""
