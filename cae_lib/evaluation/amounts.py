"""How much of its data each measurement uses, and how much there should be."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from cae_lib.data.benchmarks import is_rescored
from cae_lib.data.captions import RETRIEVAL_SETS, Pairs
from cae_lib.data.labelled import LabelledImages
from cae_lib.data.similarity import OFFICIAL as OFFICIAL_PAIRS
from cae_lib.evaluation import datasets
from cae_lib.evaluation.choice import chance, scorable_benchmarks
from cae_lib.profiles import find_profile

ROW: Mapping[str, Any] = {
    "suite": "",
    "family": "",
    "subset": "",
    "n_used": 0,
    "n_expected": 0,
    "headline": "",
    "rule": "",
    "chance": np.nan,
    "counts": {},
}
"""The columns of `subsets`, and what stands in those that do not apply."""


def subsets(profile: str) -> pd.DataFrame:
    """Return a row for each subset of a benchmark and each dataset of another suite.

    Rows of benchmarks also say how the subset is averaged; of other suites the dataset is the
    `family`. n are items, captions or images; counts are JSON.
    """
    rows = pd.DataFrame([{**ROW, **row} for row in _rows(profile)], columns=[*ROW])
    return rows.assign(counts=[json.dumps(dict(counts)) for counts in rows["counts"]])


def drop_rescored(table: pd.DataFrame) -> pd.DataFrame:
    """Drop the subsets that score the items of others again, so that sums of n count items once."""
    rescored = [
        row.suite == "benchmarks" and is_rescored(row.family, row.subset)
        for row in table.itertuples()
    ]
    return table[~np.array(rescored, dtype=bool)]


def _rows(profile_name: str) -> Iterator[dict[str, Any]]:
    profile = find_profile(profile_name)
    for subset in datasets.benchmarks(profile_name):
        for part in scorable_benchmarks([subset]) or [subset]:
            chances = [chance(part, item) for item in part.items]
            yield {
                "suite": "benchmarks",
                "family": part.name,
                "subset": part.subset,
                "n_used": part.n_used,
                "n_expected": part.n_expected,
                "headline": part.headline,
                "rule": part.rule,
                "chance": np.mean(chances) if chances else np.nan,
                "counts": part.counts,
            }
    retrieval = datasets.retrieval_sets(profile_name)
    labelled: Mapping[str, LabelledImages] = {}
    with datasets.log_if_missing("zero_shot", profile.real):
        labelled = datasets.class_sets(profile_name)
    similarity = datasets.similarity_pairs(profile_name)
    loaded = {
        "retrieval": {name: (pairs.n_used, pairs) for name, pairs in retrieval.items()},
        "similarity": {pairs.name: (len(pairs.gold), pairs) for pairs in similarity},
        "zero_shot": {name: (len(data.paths), data) for name, data in labelled.items()},
        "labels": {
            data.source: (len(data.images), data) for data in datasets.label_sets(profile_name)
        },
    }
    published: dict[str, Mapping[str, int]] = {}
    if profile.real:
        published["retrieval"] = {name: one.n_captions for name, one in RETRIEVAL_SETS.items()}
        published["similarity"] = OFFICIAL_PAIRS
    for suite, parts in loaded.items():
        for name, (n_used, data) in parts.items():
            yield {
                "suite": suite,
                "family": name,
                "n_used": n_used,
                "n_expected": data.n_expected,
                "counts": getattr(data, "counts", {}),
            }
        for name, n_expected in published.get(suite, {}).items():
            if name not in parts:
                yield {"suite": suite, "family": name, "n_expected": n_expected}
    for suite, limit in datasets.SAMPLES.items() if "coco" in retrieval or profile.real else ():
        if suite != "heatmaps" or profile.gold:
            counts = _sampled_counts(suite, retrieval.get("coco"), limit)
            yield {"suite": suite, "family": "coco", **counts}


def _sampled_counts(suite: str, pairs: Pairs | None, limit: int) -> dict[str, int]:
    """Count the captions, of heat maps the images, that a suite takes and should take.

    A caption without a word is not used.
    """
    if pairs is None:
        return {"n_expected": limit}
    total = len(pairs.image_paths if suite == "heatmaps" else pairs.captions)
    expected = total if suite == "heatmaps" else pairs.n_expected
    rows, n_empty = datasets.evenly_spaced_indices(total, limit), 0
    if suite in ("attribution", "faithfulness"):
        n_empty = sum(not re.search(r"\w", pairs.captions[row]) for row in rows)
    return {"n_used": len(rows) - n_empty, "n_expected": min(limit, expected)}
