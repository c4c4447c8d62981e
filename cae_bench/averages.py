"""Averages of benchmarks as weights of items: a score is a weighted sum of right answers.

A protocol says how scores are averaged (`PROTOCOLS`): it maps the name of each score to an
`AveragingRule`. The tree of a rule names subsets, and a list in it is the unweighted mean of its
members. For example, the rule of "VALSE-Rel" has the tree

    [["valse/actant-swap", "valse/action-replacement"], "valse/relations"]

so this score is the mean of two numbers: the mean accuracy of the two subsets on actions, and the
accuracy on spatial relations. An item of "valse/actant-swap" has 1/4 of the weight that it has in
the accuracy of its subset, and an item of "valse/relations" 1/2. A pattern such as "valse/*" is the
mean over all subsets that fit it. If a subset is absent, its weight goes to the other members of
its list. `score_weights` computes the weight of each item in each score of a protocol, and
`weighted_average` adds up the weights of the right answers.

Items and answers are matched by family, subset and item, whatever their order.
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

SubsetTree = str | list["SubsetTree"]
"""A subset as "family/subset", a pattern that several subsets fit, or a list of trees, which stands
for the unweighted mean of its members. The docstring of this module has an example."""


@dataclass(frozen=True)
class AveragingRule:
    """How one score is averaged.

    Attributes:
        tree: The subsets and how their accuracies are averaged.
        label: The full name of the score.
        pooled: Whether all items of these subsets have the same weight. If so, neither the shape of
            the tree nor `average` nor the benchmarks' own averages affect the weights.
        average: How items are averaged within a subset. If None, the average is the benchmark's
            own: the mean that is weighted by the column `weight` of the table "items".
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
"""Columns of `TABLE1_RULES` whose mean is the score of each of the paper's seven families. "Order"
belongs to none."""


def _family_tree(name: str) -> SubsetTree:
    """Return the list of the trees of a family's columns.

    Raises:
        ConfigError: If the rule of a column is pooled or has an average of its own.
    """
    rules = [TABLE1_RULES[column] for column in COLUMNS_OF_FAMILY[name]]
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
_CLEAN_WINOGROUND = [f"winoground/{task}/authors" for task in ("text", "image", "group")]
PROTOCOLS: Mapping[str, Mapping[str, AveragingRule]] = {
    "table": TABLE1_RULES,
    "family": {
        **{name: AveragingRule(tree) for name, tree in _BY_FAMILY.items()},
        "mean": AveragingRule([*_BY_FAMILY.values()]),
    },
    "official": {
        **_aro(SYMMETRIC_RELATIONS),
        **_AS_HEADLINE,
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
- "family": a score for each of the paper's seven families, the mean of the family's columns, and
  "mean", the mean of these seven scores.
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
            "cae.results.load('items', 'mini')."
        )
    require_unique_items(items)
    groups = items.groupby(["family", "subset"], sort=False)
    subsets = {f"{family}/{subset}": frame for (family, subset), frame in groups}
    protocols = {**PROTOCOLS, "subset": {key: AveragingRule(key) for key in subsets}}
    if protocol not in protocols:
        raise ConfigError(f"no protocol {protocol!r}. Known: {', '.join(protocols)}.")
    columns = ["score", *ITEM_KEY[:2], "group", "item", "weight", "stratum"]
    frames = [pd.DataFrame(columns=columns)]
    for score, rule in protocols[protocol].items():
        shares = _shares(rule.tree, list(subsets))
        rows = [_weighted(rule, subsets[key], share) for key, share in shares.items()]
        if rows:
            frame = pd.concat(rows)
            if rule.pooled:
                frame["weight"] = 1 / len(frame)
            frames.append(frame[frame["weight"] > 0].assign(score=score)[columns])
    return pd.concat(frames[1:] or frames, ignore_index=True)


def weighted_average(
    table: pd.DataFrame, weights: pd.DataFrame, column: str = "correct"
) -> pd.Series:
    """Compute scores as weighted sums of a column over items.

    Args:
        table: A row for each item, such as the answers of one run and seed. Items without a weight
            are ignored.
        weights: Weights of the items in each score, as the function `score_weights` returns them.
        column: Name of the column of `table` to average. NaN in this column counts as 0.

    Returns:
        The value of each score, by its name.

    Raises:
        DataError: If `table` lacks an item of a score or has an item twice, or if `weights` has an
            item twice in a score, which happens if two protocols are concatenated.
    """
    items = list(ITEM_KEY)
    require_unique_items(table)
    repeated = weights[weights.duplicated(["score", *items])]
    if len(repeated):
        raise DataError(
            f"the weights have {_first_item(repeated)} twice in the score "
            f"{repeated['score'].iloc[0]!r}, which would count it twice: pass the weights of one "
            "protocol at a time."
        )
    _require_items(weights, table)
    rows = table[[*items, column]].merge(weights[[*items, "score", "weight"]], on=items)
    return (rows[column] * rows["weight"]).groupby(rows["score"]).sum()


def item_weights(groups: Sequence[str] | pd.Series, average: Average) -> np.ndarray:
    """Return the weights `(n,)`, float64, of the n items of a subset that has at least one item.

    Args:
        groups: The group `(n,)` of each item, such as the relation that the item is about.
        average: How the items are averaged: with equal weights for items, or for groups.

    Returns:
        Weights that sum to 1; items of groups that `average` leaves out have weight 0. But if
        `average` leaves out all groups, all weights are 0.
    """
    if not average.over_groups:
        return np.full(len(groups), 1 / len(groups))
    sizes = average.counted_group_sizes(groups)
    weights = {group: 1 / (n * len(sizes)) for group, n in sizes.items()}
    return np.array([weights.get(group, 0.0) for group in groups])


def _weighted(rule: AveragingRule, items: pd.DataFrame, share: float) -> pd.DataFrame:
    """Return the items of one subset with their weights in a score.

    Args:
        rule: How the score is averaged.
        items: The subset's rows of the table "items", with weights that sum to 1.
        share: Weight of the whole subset in the score.

    Returns:
        The rows with a column `weight`, which sums to `share`, and a column `stratum`, which is
        equal for items that are averaged together. If the rule has an average of its own, this
        average gives the weights, and the groups are the strata. Otherwise the weights of the table
        are scaled, and the strata are those of the table.
    """
    if rule.average is None:
        return items.assign(weight=items["weight"] * share)
    weights = share * item_weights(items["group"], rule.average)
    return items.assign(weight=weights, stratum=items["group"])


def _shares(tree: SubsetTree, keys: list[str]) -> dict[str, float]:
    """Return the weight of each present subset in the nested mean `tree`; the weights sum to 1.

    Args:
        tree: The nested mean. A member without any present subset is left out.
        keys: The subsets that are present, as "family/subset".

    Returns:
        The weights by subset; {} if no subset of the tree is present.
    """
    if isinstance(tree, str):
        matching = [key for key in keys if fnmatchcase(key, tree)]
        return {key: 1 / len(matching) for key in matching}
    members = [shares for shares in (_shares(member, keys) for member in tree) if shares]
    total: dict[str, float] = {}
    for shares in members:
        for key, share in shares.items():
            total[key] = total.get(key, 0.0) + share / len(members)
    return total


def join_by_item(items: pd.DataFrame, answers: pd.DataFrame) -> pd.DataFrame:
    """Join the columns of `answers` to `items` by family, subset and item (`ITEM_KEY`).

    The order of `answers` does not matter. If both tables have a further column of the same name,
    the two get the suffixes "_x" and "_y".

    Returns:
        The rows of `items` in their order, with the further columns of `answers`.

    Raises:
        DataError: If an item is missing in one of the tables, or occurs twice in one.
    """
    require_unique_items(items)
    require_unique_items(answers)
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
