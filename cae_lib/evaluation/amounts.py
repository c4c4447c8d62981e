"""How much of its data each measurement uses, and how much there should be."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import pandas as pd

from cae_lib.data.benchmarks import LAYOUTS
from cae_lib.data.benchmarks.base import Benchmark
from cae_lib.data.captions import RETRIEVAL_SETS, Pairs
from cae_lib.data.labelled import LabelledImages
from cae_lib.data.similarity import OFFICIAL as OFFICIAL_PAIRS
from cae_lib.errors import DataError
from cae_lib.evaluation import datasets
from cae_lib.evaluation.choice import chance, scored
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
"""The columns of `subsets`, with what stands where there is nothing to say."""


def subsets(profile: str) -> pd.DataFrame:
    """A row for each subset of a benchmark, which says too how it is averaged, and for each set of
    another suite, whose name is the `family`; n are items, captions or pictures; counts are JSON.
    DataError if data are missing, and may not be."""
    rows = pd.DataFrame([{**ROW, **row} for row in _rows(profile)], columns=[*ROW])
    return rows.assign(counts=[json.dumps(dict(counts)) for counts in rows["counts"]])


def own_items(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the table `subsets` without further scores over the items of others, so that the
    sums of n are those of items."""
    again = [
        row.suite == "benchmarks" and is_again(row.family, row.subset) for row in table.itertuples()
    ]
    return table[~np.array(again, dtype=bool)]


def is_again(family: str, subset: str) -> bool:
    """Whether a subset scores the items of others of its family once more."""
    patterns = LAYOUTS[family].again if family in LAYOUTS else ()
    return any(fnmatchcase(subset, pattern) for pattern in patterns)


def _rows(profile: str) -> Iterator[dict[str, Any]]:
    known = find_profile(profile)
    for subset in _benchmarks(profile):
        chances = [chance(subset, item) for item in subset.items]
        yield dict(
            suite="benchmarks",
            family=subset.name,
            subset=subset.subset,
            n_used=subset.n_used,
            n_expected=subset.n_expected,
            headline=subset.headline,
            rule=subset.rule,
            chance=np.mean(chances) if chances else np.nan,
            counts=subset.counts,
        )
    real, retrieval = known.real, datasets.retrieval_sets(profile)
    labelled: Mapping[str, LabelledImages] = {}
    with datasets.optional("zero_shot", real):
        labelled = datasets.class_sets(profile)
    similarity, labels = datasets.similarity_pairs(profile), datasets.label_sets(profile)
    here = {
        "retrieval": {name: (pairs.n_used, pairs) for name, pairs in retrieval.items()},
        "similarity": {pairs.name: (len(pairs.gold), pairs) for pairs in similarity},
        "zero_shot": {name: (len(data.paths), data) for name, data in labelled.items()},
        "labels": {data.source: (len(data.images), data) for data in labels},
    }
    published = (
        {
            "retrieval": {name: one.n_captions for name, one in RETRIEVAL_SETS.items()},
            "similarity": OFFICIAL_PAIRS,
        }
        if real
        else {}
    )
    for suite, found in here.items():
        for name, (n_used, data) in found.items():
            yield dict(
                suite=suite,
                family=name,
                n_used=n_used,
                n_expected=data.n_expected,
                counts=getattr(data, "counts", {}),
            )
        for name, n_expected in published.get(suite, {}).items():
            if name not in found:
                yield dict(suite=suite, family=name, n_expected=n_expected)
    for suite, limit in datasets.SAMPLES.items() if "coco" in retrieval or real else ():
        if suite != "heatmaps" or known.gold:
            yield dict(suite=suite, family="coco") | _sampled(suite, retrieval.get("coco"), limit)


def _benchmarks(profile: str) -> list[Benchmark]:
    """All subsets, and SVO-Probes' pairs; DataError if one asks another one's items for something
    else, and its layout does not say so: a sum of n would count them twice."""
    subsets = datasets.benchmarks(profile)
    own = [
        (subset, {(item.id, item.images): {*item.texts} for item in subset.items})
        for subset in subsets
        if subset.items and not is_again(subset.name, subset.subset)
    ]
    for (first, texts), (second, others) in itertools.permutations(own, 2):
        if (
            first.name == second.name
            and first.task != second.task
            and all(key in others and texts[key] <= others[key] for key in texts)
        ):
            raise DataError(
                f"{first.key} scores the items of {second.key} again: name one of "
                "them in `again` of its layout"
            )
    return [each for subset in subsets for each in scored([subset]) or [subset]]


def _sampled(suite: str, pairs: Pairs | None, limit: int) -> dict[str, int]:
    """Captions, of heat maps pictures, that are used and expected; one without a word is not."""
    if pairs is None:
        return {"n_expected": limit}
    total = len(pairs.image_paths if suite == "heatmaps" else pairs.captions)
    expected = total if suite == "heatmaps" else pairs.n_expected
    rows, empty = datasets.even_rows(total, limit), 0
    if suite in ("attribution", "faithfulness"):
        empty = sum(not re.search(r"\w", pairs.captions[row]) for row in rows)
    return {"n_used": len(rows) - empty, "n_expected": min(limit, expected)}
