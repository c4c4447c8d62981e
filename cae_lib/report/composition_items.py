"""What the true captions of the stored answers state: the record of counts, paired with answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cae_lib.errors import DataError
from cae_lib.evaluation.aggregates import AGGREGATES, Tree, aggregate
from cae_lib.evaluation.caption_load import RECORD, unpack_loads
from cae_lib.evaluation.results import ChoiceResult
from cae_lib.records import load_record, record_path
from cae_lib.report.benchmarks import COLUMNS
from cae_lib.report.stored import NotMeasured

OBJECTS = "object questions"
OBJECT_TREE: Tree = [AGGREGATES["sugarcrepe/object"], AGGREGATES["vl_checklist/object"],
                     "valse/foil-it"]  # fmt: skip
BOTH, LENGTH, WORLD = "both", "words", "world attributes"
TOPS = {"relations": 3, "attributes": 3, BOTH: 5, WORLD: 3}
"""For each count, the class that takes in all larger ones."""


def load_content(profile: str) -> Mapping[str, Any]:
    """What the record of the captions' counts holds.

    Raises:
        NotMeasured: There is none.
    """
    if not record_path(RECORD, profile).is_file():
        raise NotMeasured(
            f"Not measured yet in the profile {profile}: the record `{RECORD}` is missing. "
            f"`cae reproduce --profile {profile}` computes it."
        )
    return load_record(RECORD, profile).results


def chosen_subsets(results: Sequence[ChoiceResult]) -> dict[str, list[str]]:
    """Keys of the subsets behind the columns of each of the seven families, and object questions.

    Families of which nothing is stored are left out.
    """
    trees: dict[str, list[Tree]] = {}
    for column in COLUMNS:
        if column.family:
            trees.setdefault(column.family, []).append(column.tree)
    trees[OBJECTS] = [OBJECT_TREE]
    found = {}
    for name, tree in trees.items():
        try:
            found[name] = list(aggregate(results, name, tree).weights)
        except DataError:
            continue
    return found


def subset_loads(content: Mapping[str, Any], result: ChoiceResult) -> dict[str, np.ndarray]:
    """Counts `(n,)` of the items of a stored answer, by name.

    Raises:
        DataError: The record has no such subset, or other items.
    """
    part = content["subsets"].get(result.key)
    if part is None or part["items"] != result.items or part["n_used"] != result.n_used:
        there = "none" if part is None else f"{part['n_used']} items, digest {part['items']}"
        raise DataError(
            f"record {RECORD}, {result.key}: {there}, but the stored answers are to "
            f"{result.n_used} items, digest {result.items}. Run `cae reproduce` again"
        )
    return named_loads(content, part)


def named_loads(content: Mapping[str, Any], part: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Counts `(n,)` by name, of one part of the record."""
    loads = unpack_loads(content["rows"], part["loads"], part["n_used"])
    found = dict(zip(content["counts"], loads.T, strict=True))
    return found | {BOTH: found["relations"] + found["attributes"]}


def property_columns(content: Mapping[str, Any]) -> list[str]:
    """Properties of the items: counts, then a 0-1 column for each class but the first."""
    world = [WORLD] if WORLD in content["counts"] else []
    counted = ["relations", "attributes", BOTH, *world]
    classes = [f"{name} {k}" for name in counted for k in range(1, TOPS[name] + 1)]
    return ["relations", "attributes", BOTH, LENGTH, *world, *classes]


def properties(loads: Mapping[str, np.ndarray], columns: Sequence[str]) -> np.ndarray:
    """The columns `(n, p)` that `property_columns` names."""
    table = dict(loads)
    for name in TOPS.keys() & loads.keys():
        table |= {f"{name} {k}": np.minimum(loads[name], TOPS[name]) == k
                  for k in range(1, TOPS[name] + 1)}  # fmt: skip
    return np.stack([table[name] for name in columns], axis=1)
