"""Scores of a model from its answers: printed, as CLIP_benchmark's CSV, as the hub's results."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from cae_lib import results
from cae_lib.commands.options import REAL
from cae_lib.data.benchmarks import FAMILIES, Benchmark
from cae_lib.data.benchmarks.load import BROKEN_IMAGES, MISSING_IMAGES
from cae_lib.data.sources import source
from cae_lib.errors import ConfigError
from cae_lib.evaluation import datasets
from cae_lib.evaluation.averages import average, weights
from cae_lib.evaluation.choice import answers, scorable_benchmarks, weighted_items
from cae_lib.evaluation.encoder import Encoder
from cae_lib.evaluation.suites import SUITES
from cae_lib.evaluation.tables import join_by_item
from cae_lib.models.clip import Clip
from cae_lib.profiles import find_profile
from cae_lib.results import ANSWERS
from cae_lib.runtime import write_atomic

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

COLUMNS = ["dataset", "task", "metric", "value", "chance", "n_used", "n_expected"]
TASKS = {
    "choice": "image_caption_selection",
    "retrieval": "zeroshot_retrieval",
    "similarity": "text_similarity",
}
HUB_TASK = "zero-shot-image-classification"
"""The hub's name of what a CLIP is for; it has none for choices between captions."""

METRICS = {"accuracy": "acc"} | {
    f"{way}, R@{k}": f"{name}_retrieval_recall@{k}"
    for k in (1, 5, 10)
    for way, name in (("text to image", "image"), ("image to text", "text"))
}
"""CLIP_benchmark's names, which call retrieval by what is found."""


def items_of(benchmarks: Sequence[Benchmark]) -> pd.DataFrame:
    """The items of benchmarks as `choice_scores` takes them."""
    items = weighted_items(benchmarks)
    amounts = {
        (part.name, part.subset): part.n_expected for part in scorable_benchmarks(benchmarks)
    }
    subset = zip(items["family"], items["subset"], strict=True)
    return items.assign(n_expected=[amounts[name] for name in subset])


def stored_items(profile_name: str) -> pd.DataFrame:
    """The items of a profile from its tables, where the sets need not be here."""
    items, subsets = (
        results.load(table, profile_name, [results.DATA]) for table in ("items", "subsets")
    )
    amounts = subsets.loc[subsets["suite"] == "benchmarks", ["family", "subset", "n_expected"]]
    return items.merge(amounts, on=["family", "subset"])


def choice_scores(given: pd.DataFrame, items: pd.DataFrame) -> pd.DataFrame:
    """The headline of each subset; columns as in `COLUMNS`. What is `given` are rows of
    `choice.answers`; `items` are those of `items_of` or `stored_items`, whose subsets without any
    answer have no score. DataError unless all other items have one answer each."""
    answered = given[["family", "subset"]].drop_duplicates()
    rows = join_by_item(items.merge(answered), given[[*ANSWERS, "correct"]])
    asked = weights(rows, "subset")
    value, chance = average(rows, asked), average(rows, asked, "chance")
    sizes = given.groupby(["family", "subset"], sort=False, observed=True).size()
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
    """The headlines of some families of benchmarks, of all without a name, of answers that are not
    stored; columns as in `COLUMNS`. By default of the sets below `data/raw` of this folder, or of
    the environment variable `CAE_HOME`; their files are read anew in each call.

    Args:
        model: One of `load_clip`, or a function that opens it once the sets are known to be here.
        families: Such as "sugarcrepe", see `cae_lib.data.benchmarks.FAMILIES`.
        profile: "paper" for real sets, "mini" for those of the small world, ...

    ConfigError for an unknown family or profile; DataError, which says how to get them, if sets are
    missing or malformed."""
    for name in FAMILIES.keys() & {*families}:
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


def measured(title: str, profile_name: str, suites: Iterable[str] = ()) -> bool:
    """Whether a table of a run is stored, of any suite or of some."""
    return not all(results.missing(suite, [title], profile_name) for suite in suites or SUITES)


def named(sets: pd.Series, profile_name: str) -> pd.Series:
    """Names of sets for the world outside: those that are built here have the layouts of real ones,
    not their pictures, and the profile stands before their name."""
    return sets if find_profile(profile_name).real else f"{profile_name}-" + sets


def stored_scores(
    title: str, profile_name: str, seed: int, suites: Iterable[str] = ()
) -> pd.DataFrame:
    """What the stored tables of a run say, of all suites or some: accuracy of each subset, recall,
    correlation; columns as in `COLUMNS`."""
    wanted, tables = list(suites), []

    def stored(suite: str) -> bool:
        return (suite in wanted or not wanted) and not results.missing(suite, [title], profile_name)

    def rows_of(suite: str) -> pd.DataFrame:
        frame = results.load(suite, profile_name, [title])
        return frame[frame["seed"] == seed]

    if stored("benchmarks"):
        items = items_of(datasets.benchmarks(profile_name))
        tables.append(choice_scores(rows_of("benchmarks"), items))
    if stored("retrieval"):
        pairs = datasets.retrieval_sets(profile_name)
        tables.append(
            pd.DataFrame(
                [
                    (
                        name,
                        "retrieval",
                        f"{way}, R@{k}",
                        float((own["rank"] <= k).mean()),
                        float("nan"),
                        pairs[name].n_used,
                        pairs[name].n_expected,
                    )
                    for (name, way), own in rows_of("retrieval").groupby(
                        ["set", "direction"], sort=False
                    )
                    for k in (1, 5, 10)
                ],
                columns=COLUMNS,
            )
        )
    if stored("similarity"):
        expected = {part.name: part.n_expected for part in datasets.similarity_pairs(profile_name)}
        tables.append(
            pd.DataFrame(
                [
                    (
                        name,
                        "similarity",
                        "Spearman",
                        float(own["gold"].corr(own["score"], "spearman")),
                        float("nan"),
                        len(own),
                        expected[name],
                    )
                    for name, own in rows_of("similarity").groupby("set", sort=False)
                ],
                columns=COLUMNS,
            )
        )
    empty = pd.DataFrame(columns=COLUMNS)
    return pd.concat([table for table in tables if len(table)] or [empty], ignore_index=True)


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
    own = list(rows.columns.difference(["metric", "value"], sort=False))
    wide = rows.pivot_table(index=own, columns="metric", values="value", sort=False).reset_index()
    files = {folder / f"{title}.csv": wide.to_csv(index=False)}
    if entries := hub_entries(table):
        files[folder / f"{title}.yaml"] = yaml.safe_dump(entries, sort_keys=False)
    for file, content in files.items():
        write_atomic(file, content)
    return list(files)


def eval_results(table: pd.DataFrame) -> list[EvalResult]:
    """Scores of complete real benchmarks in percent, as the metadata of a model card have them: by
    the data set of the hub where there is one, else by our name of the family."""
    from huggingface_hub import EvalResult

    found = []
    for row in table[table["task"] == "choice"].itertuples():
        family, _, subset = row.dataset.partition("/")
        if family in FAMILIES and row.n_used == row.n_expected:
            names = FAMILIES[family].source_names
            items = (item for name in names for item in source(name).get)
            hub = [item.hub for item in items if (item.hub or "").startswith("datasets/")]
            kind = hub[0].removeprefix("datasets/") if hub else family
            found.append(
                EvalResult(
                    HUB_TASK,
                    kind,
                    row.dataset,
                    "accuracy",
                    round(100 * row.value, 2),
                    dataset_config=subset,
                )
            )
    return found


def hub_entries(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Those `eval_results` that are of data sets of the hub, as the entries of a file in a model's
    `.eval_results`; the other benchmarks have no name there."""
    return [
        {
            "dataset": {"id": result.dataset_type, "task_id": result.dataset_config},
            "value": result.metric_value,
            "notes": "cosine, a tie is wrong",
        }
        for result in eval_results(table)
        if "/" in result.dataset_type
    ]


def amounts(profile_name: str) -> list[str]:
    """How much of its data each measurement uses: a line for each family or set of a suite, then
    one for each part that is not complete, with why rows of it were left out."""
    from cae_lib.evaluation.amounts import drop_rescored

    table = results.load("subsets", profile_name)
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
