"""Averages of several benchmarks in one number, as tables print them.

The groupings are those of the evaluation of CAE's authors: SugarCrepe, VL-CheckList and VALSE are
each summed up by nested unweighted means over files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from cae_lib.errors import DataError
from cae_lib.evaluation.results import ChoiceResult

Tree = str | list["Tree"]

AGGREGATES: Mapping[str, Tree] = {
    "sugarcrepe/relation": "sugarcrepe/replace_rel",
    "sugarcrepe/attribute": [f"sugarcrepe/{kind}_att" for kind in ("add", "replace", "swap")],
    "sugarcrepe/object": [f"sugarcrepe/{kind}_obj" for kind in ("add", "replace", "swap")],
    "vl_checklist/relation": [
        [
            f"vl_checklist/Relation/{name}"
            for name in ("hake_action*", "swig_action*", "vg/action")
        ],
        "vl_checklist/Relation/vg/spatial",
    ],
    "vl_checklist/attribute": [
        [f"vl_checklist/Attribute/{source}/{kind}" for source in ("vg", "vaw")]
        for kind in ("action", "color", "material", "size", "state")
    ],
    "vl_checklist/object": [
        [f"vl_checklist/Object/Location/*_{place}" for place in ("margin", "center", "mid")],
        [f"vl_checklist/Object/Size/*_{size}" for size in ("large", "medium", "small")],
    ],
    "valse/action": ["valse/actant-swap", "valse/action-replacement"],
    "valse/spatial": "valse/relations",
    "valse/relation": [["valse/actant-swap", "valse/action-replacement"], "valse/relations"],
}


@dataclass(frozen=True)
class Aggregate:
    """A weighted mean of the micro averages of several results.

    Attributes:
        name: Name of the average.
        value: The average, a fraction.
        weights: Weight of each result by its key; they sum to 1.
        n_used: Items scored, in all results together.
        n_expected: Items that there should be.
        absent: Keys or patterns of the grouping that no result fits; their weight went to their
            siblings.
    """

    name: str
    value: float
    weights: Mapping[str, float]
    n_used: int
    n_expected: int
    absent: tuple[str, ...]


def aggregate(
    results: Sequence[ChoiceResult], name: str, tree: Tree | None = None, micro: bool = False
) -> Aggregate:
    """Average results by a tree of keys; a pattern with `*` is the mean of all it fits.

    Args:
        results: One result for each key.
        name: Name of the average; without `tree`, one of `AGGREGATES`.
        tree: A key, a pattern, or a list of trees, which is the unweighted mean of its members.
        micro: Weigh the results that the tree names by their number of items instead.

    Raises:
        DataError: If no result fits the tree.
    """
    by_key = {result.key: result for result in results}
    absent: list[str] = []
    weights = _weights(AGGREGATES[name] if tree is None else tree, by_key, absent)
    if not weights:
        raise DataError(f"{name}: there is no result for any of {', '.join(absent)}.")
    chosen = {key: by_key[key] for key in weights}
    if micro:
        total = sum(result.n_used for result in chosen.values())
        weights = {key: result.n_used / total for key, result in chosen.items()}
    return Aggregate(
        name=name,
        value=sum(weight * chosen[key].micro for key, weight in weights.items()),
        weights=weights,
        n_used=sum(result.n_used for result in chosen.values()),
        n_expected=sum(result.n_expected for result in chosen.values()),
        absent=tuple(absent),
    )


def _weights(tree: Tree, by_key: Mapping[str, ChoiceResult], absent: list[str]) -> dict[str, float]:
    """Weight of each key in the nested mean, over those members that have a result."""
    if isinstance(tree, str):
        keys = [key for key in by_key if fnmatchcase(key, tree) and by_key[key].n_used]
        if not keys:
            absent.append(tree)
        return dict.fromkeys(keys, 1 / len(keys)) if keys else {}
    members = [part for part in (_weights(sub, by_key, absent) for sub in tree) if part]
    total: dict[str, float] = {}
    for part in members:
        for key, weight in part.items():
            total[key] = total.get(key, 0.0) + weight / len(members)
    return total
