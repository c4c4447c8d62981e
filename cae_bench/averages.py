"""Averages of benchmarks as weights of items: a score is a weighted sum of right answers.

A protocol (`PROTOCOLS`) has an `AveragingRule` for each score: a tree of subsets, in which a list
is the unweighted mean of its members. Items and answers are matched by `ITEM_KEY`, in any order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import pandas as pd

from cae_bench.benchmarks.aro import (
    AUTHORS_SYMMETRIC_RELATIONS,
    MIN_ITEMS_PER_PAIR,
    SYMMETRIC_RELATIONS,
)
from cae_bench.benchmarks.base import ITEM_KEY, Average
from cae_lib.errors import ConfigError, DataError

# In [["f/a", "f/b"], "f/c"], an item of f/a has 1/4 of the weight that it has in the accuracy of
# its subset, and an item of f/c 1/2. "f/*" is the mean over all subsets of f.
SubsetTree = str | list["SubsetTree"]
"""A subset as "family/subset", a pattern of `fnmatch`, or a list: the mean of its members."""


@dataclass(frozen=True)
class AveragingRule:
    """How one score is averaged.

    Attributes:
        pooled: Whether all items weigh the same, whatever the shape of the tree and the averages.
        average: Average within a subset; None for the benchmark's own (column `weight` of "items").
    """

    tree: SubsetTree
    label: str = ""
    pooled: bool = False
    average: Average | None = None


_VALSE_ACTION: SubsetTree = ["valse/actant-swap", "valse/action-replacement"]
AUTHORS_SUBSET_TREES: Mapping[str, SubsetTree] = {
    "sugarcrepe/relation": "sugarcrepe/replace_rel",
    "sugarcrepe/attribute": [f"sugarcrepe/{kind}_att" for kind in ("add", "replace", "swap")],
    "sugarcrepe/object": [f"sugarcrepe/{kind}_obj" for kind in ("add", "replace", "swap")],
    "vl_checklist/relation": [
        [f"vl_checklist/Relation/{name}" for name in ("hake_action*", "swig_action*", "vg/action")],
        "vl_checklist/Relation/vg/spatial",
    ],
    "vl_checklist/attribute": [
        [f"vl_checklist/Attribute/{source}/{kind}" for source in ("vg", "vaw")]
        for kind in ("action", "color", "material", "size", "state")
    ],
    "vl_checklist/object": [
        [f"vl_checklist/Object/Location/*_{where}" for where in ("margin", "center", "mid")],
        [f"vl_checklist/Object/Size/*_{size}" for size in ("large", "medium", "small")],
    ],
    "valse/action": _VALSE_ACTION,
    "valse/spatial": "valse/relations",
    "valse/relation": [_VALSE_ACTION, "valse/relations"],
}
"""The nested means that the evaluation code of CAE's authors computes, by name of the score."""

TABLE1_RULES: Mapping[str, AveragingRule] = {
    "ARO-R": AveragingRule("aro/relation", "ARO, relation"),
    "ARO-A": AveragingRule("aro/attribution", "ARO, attribution"),
    "Winoground": AveragingRule("winoground/group", "Winoground, group score"),
    "SC-Rel": AveragingRule(AUTHORS_SUBSET_TREES["sugarcrepe/relation"], "SugarCrepe, relation"),
    "SC-Att": AveragingRule(AUTHORS_SUBSET_TREES["sugarcrepe/attribute"], "SugarCrepe, attribute"),
    "VLC-Rel": AveragingRule(
        AUTHORS_SUBSET_TREES["vl_checklist/relation"], "VL-CheckList, relation"
    ),
    "VLC-Att": AveragingRule(
        AUTHORS_SUBSET_TREES["vl_checklist/attribute"], "VL-CheckList, attribute"
    ),
    "VALSE-Rel": AveragingRule(AUTHORS_SUBSET_TREES["valse/relation"], "VALSE, relation"),
    "SVO": AveragingRule("svo_probes/all", "SVO-Probes"),
    "CREPE": AveragingRule(["crepe/atom", "crepe/negate", "crepe/swap"], "CREPE, productivity R@1"),
    "Order": AveragingRule("order/coco", "ARO, COCO-Order"),
}
"""Rules of the columns of the paper's Table 1, and of ARO's COCO-Order ("Order"), by column."""

COLUMNS_OF_FAMILY: Mapping[str, tuple[str, ...]] = {
    "ARO": ("ARO-R", "ARO-A"),
    "Winoground": ("Winoground",),
    "SugarCrepe": ("SC-Rel", "SC-Att"),
    "VL-CheckList": ("VLC-Rel", "VLC-Att"),
    "VALSE": ("VALSE-Rel",),
    "SVO-Probes": ("SVO",),
    "CREPE": ("CREPE",),
}
"""Columns whose mean is the score of a family of the paper; "Order" belongs to none."""


def _family_tree(name: str) -> SubsetTree:
    """Return the list of the trees of a family's columns."""
    rules = [TABLE1_RULES[column] for column in COLUMNS_OF_FAMILY[name]]
    # A tree has no place for either, so the mean of the trees would silently be another average.
    if any(rule.pooled or rule.average for rule in rules):
        raise ConfigError(
            f"the family {name!r} has a column that is pooled or has an average of its own, which "
            "its mean cannot keep: write a rule for the family into PROTOCOLS"
        )
    return [rule.tree for rule in rules]


_BY_FAMILY: Mapping[str, SubsetTree] = {name: _family_tree(name) for name in COLUMNS_OF_FAMILY}


def _aro(symmetric: frozenset[str]) -> Mapping[str, AveragingRule]:
    """Return the rules of ARO's two sets; the relation score leaves out `symmetric` relations."""
    relations = Average(over_groups=True, excluded_groups=symmetric)
    pairs = Average(over_groups=True, min_items=MIN_ITEMS_PER_PAIR)
    return {
        "aro/relation": AveragingRule("aro/relation", average=relations),
        "aro/attribution": AveragingRule("aro/attribution", average=pairs),
    }


_AS_HEADLINE: Mapping[str, AveragingRule] = {
    subset: AveragingRule(subset)
    for subset in (
        "order/coco",
        "order/flickr30k",
        "winoground/text",
        "winoground/image",
        "winoground/group",
        "crepe/atom",
        "crepe/swap",
        "crepe/negate",
        "cola/multi",
    )
}
# Winoground's items without tags by Diwan et al. (2022), minus one: see `winoground.py`.
_CLEAN_WINOGROUND = [f"winoground/{task}/authors" for task in ("text", "image", "group")]
PROTOCOLS: Mapping[str, Mapping[str, AveragingRule]] = {
    "table": TABLE1_RULES,
    "family": {
        **{name: AveragingRule(tree) for name, tree in _BY_FAMILY.items()},
        # A list of lists: ARO's two columns share one seventh of the weight.
        "mean": AveragingRule([*_BY_FAMILY.values()]),
    },
    "official": {
        **_aro(SYMMETRIC_RELATIONS),
        **_AS_HEADLINE,
        # The total in SugarCrepe's Table 5 is a mean over all items, not over its seven subsets.
        "sugarcrepe": AveragingRule("sugarcrepe/*", pooled=True),
        "vl_checklist/relation": AveragingRule("vl_checklist/Relation/*"),
        "vl_checklist/attribute": AveragingRule("vl_checklist/Attribute/*"),
        "vl_checklist/object": AveragingRule("vl_checklist/Object/*"),
        "valse": AveragingRule("valse/*"),
        "svo_probes": AveragingRule("svo_probes/match"),
        "whatsup": AveragingRule("whatsup/*"),
    },
    # The authors also round the score of each of ARO's groups to four digits, which changes a score
    # by 0.00005 at most.
    "authors": {
        **_aro(AUTHORS_SYMMETRIC_RELATIONS),
        **_AS_HEADLINE,
        **{subset: AveragingRule(subset) for subset in _CLEAN_WINOGROUND},
        **{name: AveragingRule(tree) for name, tree in AUTHORS_SUBSET_TREES.items()},
        "svo_probes": AveragingRule("svo_probes/all"),
        "whatsup/controlled": AveragingRule("whatsup/controlled_*"),
        "whatsup/coco": AveragingRule("whatsup/coco_qa_*"),
        # By a slip, the authors' code takes COCO's two objects here, not Visual Genome's.
        "whatsup/vg": AveragingRule(["whatsup/vg_qa_one_obj", "whatsup/coco_qa_two_obj"]),
    },
}
"""The rule of each score, by protocol and name of the score:

- "table": the columns of the paper's Table 1, and ARO's COCO-Order as "Order".
- "family": the paper's seven families, each the mean of its columns, and "mean", their mean.
- "official": the averages of each benchmark's own paper and script.
- "authors": the averages that CAE's authors compute, according to the code of their later work.
"""


def score_weights(items: pd.DataFrame, protocol: str = "table") -> pd.DataFrame:
    """Return the weight of each benchmark item in each score of an averaging protocol.

    The items of a score have weights that sum to 1. The score is the sum of the weights of those
    items that are answered right. If the table `items` contains no item of some subset, the weight
    of this subset goes to the other members of its list in the rule.

    Args:
        items: The stored table "items", or a table that `choice.weighted_items` returns.
        protocol: How scores are averaged. "table" gives the columns of Table 1 and "Order", ARO's
            COCO-Order; "subset" gives the benchmark's own average of each subset. For "family",
            "official" and "authors", see `PROTOCOLS`.

    Returns:
        A row for each score and each of its items; a score without items has no row. Columns:
        `score`; `family`; `subset`; `group`; `item`; `weight`, which is larger than 0; and
        `stratum`. Items of a score that have the same stratum have equal weights and are averaged
        together.

    Raises:
        ConfigError: If the protocol is unknown.
        DataError: If `items` is no table or lacks a column, or if an item occurs twice.
    """
    needed = {*ITEM_KEY, "group", "weight", "stratum"}
    if not isinstance(items, pd.DataFrame) or not needed <= {*items.columns}:
        columns = list(items.columns) if isinstance(items, pd.DataFrame) else None
        raise DataError(
            f"items are a {type(items).__name__}{f' with the columns {columns}' if columns else ''}"
            f": expected a table of items with the columns {', '.join(sorted(needed))}, such as "
            "cae_lab.results.load('items', 'mini')."
        )
    require_unique_items(items)
    groups = items.groupby(["family", "subset"], sort=False)
    subsets = {f"{family}/{subset}": frame for (family, subset), frame in groups}
    protocols = {**PROTOCOLS, "subset": {key: AveragingRule(key) for key in subsets}}
    if protocol not in protocols:
        raise ConfigError(f"no protocol {protocol!r}. Known: {', '.join(protocols)}.")
    columns = ["score", *ITEM_KEY[:2], "group", "item", "weight", "stratum"]
    # The columns of a result without scores: pandas cannot concatenate an empty list.
    frames = [pd.DataFrame(columns=columns)]
    for score, rule in protocols[protocol].items():
        shares = _shares(rule.tree, list(subsets))
        rows = [_weighted(rule, subsets[key], share) for key, share in shares.items()]
        if rows:
            frame = pd.concat(rows)
            if rule.pooled:
                frame["weight"] = 1 / len(frame)
            # Groups that do not count, such as ARO's symmetric relations, have weight 0.
            frames.append(frame[frame["weight"] > 0].assign(score=score)[columns])
    return pd.concat(frames[1:] or frames, ignore_index=True)


def weighted_average(
    table: pd.DataFrame, weights: pd.DataFrame, column: str = "correct"
) -> pd.Series:
    """Return scores by name: weighted sums of a column over items, where NaN counts as 0.

    `weights` are a table of `score_weights`; items of `table` without a weight are ignored.
    """
    items = list(ITEM_KEY)
    require_unique_items(table)
    # Two protocols may have a score of one name: "winoground/group" is in "authors" and "official".
    repeated = weights[weights.duplicated(["score", *items])]
    if len(repeated):
        raise DataError(
            f"the weights have {_first_item(repeated)} twice in the score "
            f"{repeated['score'].iloc[0]!r}, which would count it twice: pass the weights of one "
            "protocol at a time."
        )
    _require_items(weights, table)
    # One row for each score that an item belongs to.
    rows = table[[*items, column]].merge(weights[[*items, "score", "weight"]], on=items)
    return (rows[column] * rows["weight"]).groupby(rows["score"]).sum()


def item_weights(groups: Sequence[str] | pd.Series, average: Average) -> np.ndarray:
    """Return the weights `(n,)`, float64, of the n > 0 items of a subset; they sum to 1.

    Items of groups that `average` leaves out weigh 0; if it leaves out all groups, all weigh 0.
    """
    if not average.over_groups:
        return np.full(len(groups), 1 / len(groups))
    sizes = average.counted_group_sizes(groups)
    weights = {group: 1 / (n * len(sizes)) for group, n in sizes.items()}
    return np.array([weights.get(group, 0.0) for group in groups])


def _weighted(rule: AveragingRule, items: pd.DataFrame, share: float) -> pd.DataFrame:
    """Return the rows of a subset with weights that sum to `share`, and with strata to match."""
    if rule.average is None:
        return items.assign(weight=items["weight"] * share)
    # The stored weights and strata are those of the benchmark's own average, not of this one.
    average = rule.average.of_groups(items["group"])
    weights = share * item_weights(items["group"], average)
    return items.assign(weight=weights, stratum=items["group"] if average.over_groups else "")


def _shares(tree: SubsetTree, keys: list[str]) -> dict[str, float]:
    """Return the weight of each subset of `keys` that `tree` names; {} or weights that sum to 1."""
    if isinstance(tree, str):
        matching = [key for key in keys if fnmatchcase(key, tree)]
        return {key: 1 / len(matching) for key in matching}
    # A member without any present subset drops out, and the others share its weight.
    members = [shares for shares in (_shares(member, keys) for member in tree) if shares]
    total: dict[str, float] = {}
    for shares in members:
        for key, share in shares.items():
            # Added up, because two members may name the same subset.
            total[key] = total.get(key, 0.0) + share / len(members)
    return total


def join_by_item(items: pd.DataFrame, answers: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `items`, in their order, with the further columns of `answers`."""
    require_unique_items(items)
    require_unique_items(answers)
    # Both directions: an answer without an item means that the two are of different data.
    _require_items(items, answers)
    _require_items(answers, items)
    return items.merge(answers, on=list(ITEM_KEY), how="left")


def require_unique_items(table: pd.DataFrame) -> None:
    """Raise a DataError if an item occurs more than once in a table."""
    repeated = table[table.duplicated(list(ITEM_KEY))]
    if len(repeated):
        raise DataError(
            f"{_first_item(repeated)} stands more than once, and {len(repeated) - 1} further "
            "rows repeat an item: expected one row for each item, of one run and one seed."
        )


def _require_items(required: pd.DataFrame, table: pd.DataFrame) -> None:
    """Raise a DataError if an item of the table `required` is missing in `table`."""
    names = pd.MultiIndex.from_frame(table[list(ITEM_KEY)])
    missing = required[~pd.MultiIndex.from_frame(required[list(ITEM_KEY)]).isin(names)]
    if len(missing):
        raise DataError(
            f"{_first_item(missing)} has no counterpart, and {len(missing) - 1} further "
            "items have none: items and answers have to be of the same data. Measure again."
        )


def _first_item(table: pd.DataFrame) -> str:
    family, subset, item = table[list(ITEM_KEY)].iloc[0]
    return f"item {item} of {family}/{subset}"
