"""Count the items, captions or images that each suite uses, and how many it should use."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from cae_bench import datasets
from cae_bench.answers import chance, scorable_benchmarks
from cae_bench.benchmarks import is_rescored
from cae_bench.labelled import LabelledImages
from cae_bench.similarity import OFFICIAL_PAIR_COUNTS
from cae_lab.measures import classification_sets
from cae_lab.runs import Profile
from cae_lab.samples import SAMPLE_SIZES, evenly_spaced_indices
from cae_lib.data.captions import RETRIEVAL_SETS, ImageCaptionPairs


def subset_table(profile: Profile) -> pd.DataFrame:
    """Return a row for each subset of a benchmark and each dataset of another suite.

    Outside of "benchmarks", `family` is the name of the dataset. `headline`, `rule`, `chance` and
    `counts` (JSON) belong to benchmarks; sentence pairs have `counts`, too.
    """
    real = profile.is_real
    retrieval = datasets.retrieval_sets(profile.datasets)
    labelled: Mapping[str, LabelledImages] = {}
    with datasets.skip_if_missing("zero_shot", real):
        labelled = classification_sets(profile)
    similarity = {pairs.name: pairs for pairs in datasets.similarity_sets(profile.datasets)}
    rows = [*_benchmark_rows(profile)]
    rows += [_row("retrieval", name, s.n_used, s.n_expected) for name, s in retrieval.items()]
    # Missing real data have a row with 0 used, so that the table tells what is lacking.
    if real:
        missing = [name for name in RETRIEVAL_SETS if name not in retrieval]
        rows += [_row("retrieval", name, 0, RETRIEVAL_SETS[name].n_captions) for name in missing]
    rows += [
        _row("similarity", name, len(s.human_scores), s.n_expected, counts=s.counts)
        for name, s in similarity.items()
    ]
    if real:
        missing = [name for name in OFFICIAL_PAIR_COUNTS if name not in similarity]
        rows += [_row("similarity", name, 0, OFFICIAL_PAIR_COUNTS[name]) for name in missing]
    # Labelled images are the user's own, so none are expected, and missing ones have no row.
    rows += [_row("zero_shot", name, len(s.paths), s.n_expected) for name, s in labelled.items()]
    rows += _sample_rows(profile, retrieval.get("coco"))
    return pd.DataFrame(rows)


def drop_rescored(table: pd.DataFrame) -> pd.DataFrame:
    """Drop subsets that score the items of another one again, so that sums count an item once."""
    rescored = [
        row.suite == "benchmarks" and is_rescored(row.family, row.subset)
        for row in table.itertuples()
    ]
    return table[~np.array(rescored, dtype=bool)]


def _row(
    suite: str,
    family: str,
    n_used: int,
    n_expected: int,
    subset: str = "",
    headline: str = "",
    rule: str = "",
    chance: float = np.nan,
    counts: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    return {
        "suite": suite,
        "family": family,
        "subset": subset,
        "n_used": n_used,
        "n_expected": n_expected,
        "headline": headline,
        "rule": rule,
        "chance": chance,
        "counts": json.dumps(dict(counts or {})),
    }


def _benchmark_rows(profile: Profile) -> Iterator[dict[str, Any]]:
    for benchmark in datasets.load_benchmarks(profile.datasets):
        # SVO-Probes gets a second row for its match benchmark. A subset of which no item can be
        # used is not scorable, but has a row, too.
        for part in scorable_benchmarks([benchmark]) or [benchmark]:
            chances = [chance(part, item) for item in part.items]
            yield _row(
                "benchmarks",
                part.name,
                part.n_used,
                part.n_expected,
                subset=part.subset,
                headline=part.average_kind,
                rule=part.average_description,
                chance=float(np.mean(chances)) if chances else np.nan,
                counts=part.property_counts,
            )


def _sample_rows(profile: Profile, pairs: ImageCaptionPairs | None) -> Iterator[dict[str, Any]]:
    """Yield a row for the sample of COCO that each suite in `SAMPLE_SIZES` uses."""
    if pairs is None and not profile.is_real:
        return
    for suite, limit in SAMPLE_SIZES.items():
        # Heat maps are compared with the boxes of objects, which only synthetic scenes have.
        if suite == "heatmaps" and not profile.is_synthetic:
            continue
        if pairs is None:
            yield _row(suite, "coco", 0, limit)
            continue
        # Heat maps sample images, all other suites captions.
        total = len(pairs.image_paths if suite == "heatmaps" else pairs.captions)
        n_expected = total if suite == "heatmaps" else pairs.n_expected
        rows = evenly_spaced_indices(total, limit)
        yield _row(suite, "coco", len(rows), min(limit, n_expected))
