"""The numbers of tables as weights of items: a number is the sum of weight times right or wrong.

Protocols: "table", the columns of the paper's Table 1; "family", the seven families of benchmarks,
each the mean of its columns, and their mean; "official", as each benchmark's paper and script
average; "authors", as the evaluation of CAE's authors does (read in the code of their later work).
These round the accuracy of each of ARO's groups to four digits before they average, which no
weights can do: it is left out here, and changes a number by less than 0.00005.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

import pandas as pd

from cae_lib.data.benchmarks.aro import symmetric_relations
from cae_lib.errors import ConfigError

Tree = str | list["Tree"]
"""A subset as family/subset, a pattern for several, or the unweighted mean of trees."""

MIN_PAIR = 25


@dataclass(frozen=True)
class Rule:
    """How one number comes about.

    Attributes:
        words: The rule as a page prints it.
        tree: What is averaged: the headlines of subsets.
        label: The number's name in full.
        pooled: Average all items of these subsets alike instead.
        without: Average the groups of the one subset instead, but for the relations of this list,
            see `symmetric_relations`.
        min_items: Groups of fewer items are left out too.
    """

    words: str
    tree: Tree
    label: str = ""
    pooled: bool = False
    without: str | None = None
    min_items: int = 1


VALSE_ACTION = ["valse/actant-swap", "valse/action-replacement"]
NESTED: Mapping[str, Tree] = {
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
        [f"vl_checklist/Object/Location/*_{place}" for place in ("margin", "center", "mid")],
        [f"vl_checklist/Object/Size/*_{size}" for size in ("large", "medium", "small")],
    ],
    "valse/action": VALSE_ACTION,
    "valse/spatial": "valse/relations",
    "valse/relation": [VALSE_ACTION, "valse/relations"],
}
"""The nested means of the evaluation of CAE's authors."""

TABLE: Mapping[str, Rule] = {
    "ARO-R": Rule("mean over relations, symmetric ones left out", "aro/relation", "ARO, relation"),
    "ARO-A": Rule(
        "mean over pairs of attributes with at least 25 items",
        "aro/attribution",
        "ARO, attribution",
    ),
    "Winoground": Rule("mean over items", "winoground/group", "Winoground, group score"),
    "SC-Rel": Rule("mean over items", NESTED["sugarcrepe/relation"], "SugarCrepe, relation"),
    "SC-Att": Rule(
        "mean of add, replace, swap", NESTED["sugarcrepe/attribute"], "SugarCrepe, attribute"
    ),
    "VLC-Rel": Rule(
        "mean of actions and spatial relations",
        NESTED["vl_checklist/relation"],
        "VL-CheckList, relation",
    ),
    "VLC-Att": Rule(
        "mean over kinds of the mean over sources",
        NESTED["vl_checklist/attribute"],
        "VL-CheckList, attribute",
    ),
    "VALSE-Rel": Rule(
        "mean of actions and spatial relations", NESTED["valse/relation"], "VALSE, relation"
    ),
    "SVO": Rule("mean over items", "svo_probes/all", "SVO-Probes"),
    "CREPE": Rule(
        "mean of atom, negate, swap, each the mean over complexities",
        ["crepe/atom", "crepe/negate", "crepe/swap"],
        "CREPE, productivity R@1",
    ),
    "Order": Rule("mean over items", "order/coco", "ARO, COCO-Order"),
}

FAMILIES: Mapping[str, tuple[str, ...]] = {
    "ARO": ("ARO-R", "ARO-A"),
    "Winoground": ("Winoground",),
    "SugarCrepe": ("SC-Rel", "SC-Att"),
    "VL-CheckList": ("VLC-Rel", "VLC-Att"),
    "VALSE": ("VALSE-Rel",),
    "SVO-Probes": ("SVO",),
    "CREPE": ("CREPE",),
}
"""The columns of each family; "Order" stands beside them."""

_BY_FAMILY: Mapping[str, Tree] = {
    name: [TABLE[column].tree for column in columns] for name, columns in FAMILIES.items()
}
_BOTH: Mapping[str, Rule] = {
    "aro/attribution": Rule(
        f"mean over pairs with {MIN_PAIR} items",
        "aro/attribution",
        without="none",
        min_items=MIN_PAIR,
    ),
    **{
        f"order/{name}": Rule("share first, P@1", f"order/{name}") for name in ("coco", "flickr30k")
    },
    **{
        name: Rule("mean over items", name)
        for name in ("winoground/text", "winoground/image", "winoground/group")
    },
    **{
        f"crepe/{kind}": Rule("mean over complexities, R@1 among 6", f"crepe/{kind}")
        for kind in ("atom", "swap", "negate")
    },
    "cola/multi": Rule("mean over items, image score", "cola/multi"),
}

PROTOCOLS: Mapping[str, Mapping[str, Rule]] = {
    "table": TABLE,
    "family": {
        **{name: Rule("mean of its columns", tree) for name, tree in _BY_FAMILY.items()},
        "mean": Rule("mean over families", list(_BY_FAMILY.values())),
    },
    "official": {
        "aro/relation": Rule(
            "mean over relations without 157 symmetric ones", "aro/relation", without="official"
        ),
        **_BOTH,
        "sugarcrepe": Rule("mean over all items", "sugarcrepe/*", pooled=True),
        **{
            f"vl_checklist/{kind.lower()}": Rule("mean over files", f"vl_checklist/{kind}/*")
            for kind in ("Relation", "Attribute", "Object")
        },
        "valse": Rule("mean over instruments, valid items", "valse/*"),
        "svo_probes": Rule("match against no match, mean of both accuracies", "svo_probes/match"),
        "whatsup": Rule("mean over the six subsets", "whatsup/*"),
    },
    "authors": {
        "aro/relation": Rule(
            "mean over relations without 160 symmetric ones", "aro/relation", without="authors"
        ),
        **_BOTH,
        **{
            name: Rule("mean over the 171 clean items", name)
            for name in (f"winoground/{task}/authors" for task in ("text", "image", "group"))
        },
        **{name: Rule("nested mean over files", tree) for name, tree in NESTED.items()},
        "svo_probes": Rule("share of rows with the true picture closer", "svo_probes/all"),
        "whatsup/controlled": Rule("mean of A and B", "whatsup/controlled_*"),
        "whatsup/coco": Rule("mean of one and two objects", "whatsup/coco_qa_*"),
        "whatsup/vg": Rule(
            "mean of one object and, by a slip of the reference, COCO's two objects",
            ["whatsup/vg_qa_one_obj", "whatsup/coco_qa_two_obj"],
        ),
    },
}


def weights(items: pd.DataFrame, protocol: str = "table") -> pd.DataFrame:
    """Weights of items in the numbers of a protocol; those of a number sum to 1.

    The weight of subsets that are absent, see `absent`, goes to their siblings.

    Args:
        items: As `items.items` returns them; read are family, subset, group, item, weight, stratum.
        protocol: One of `PROTOCOLS`.

    Returns:
        `score`, name of a number for which there is an item; family, subset, group, item; `weight`,
        larger than 0; `stratum`, equal for items that are averaged together, with equal weights.

    Raises:
        ConfigError: The protocol is unknown.
    """
    parts = _by_key(items)
    found = []
    for score, rule in _rules(protocol).items():
        shares = _shares(rule.tree, list(parts), [])
        rows = [_averaged(rule, parts[key], share) for key, share in shares.items()]
        if rows:
            frame = pd.concat(rows)
            if rule.pooled:
                frame["weight"] = 1 / len(frame)
            found.append(frame[frame["weight"] > 0].assign(score=score))
    columns = ["score", "family", "subset", "group", "item", "weight", "stratum"]
    return pd.concat(found, ignore_index=True)[columns] if found else pd.DataFrame(columns=columns)


def absent(items: pd.DataFrame, protocol: str = "table") -> dict[str, tuple[str, ...]]:
    """For each number of a protocol the subsets or patterns that it names and no item fits."""
    keys, found = list(_by_key(items)), {}
    for score, rule in _rules(protocol).items():
        missing: list[str] = []
        _shares(rule.tree, keys, missing)
        found[score] = tuple(missing)
    return found


def _rules(protocol: str) -> Mapping[str, Rule]:
    if protocol not in PROTOCOLS:
        raise ConfigError(f"no protocol {protocol!r}. Known: {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[protocol]


def _by_key(items: pd.DataFrame) -> dict[str, pd.DataFrame]:
    groups = items.groupby(["family", "subset"], sort=False)
    return {f"{family}/{subset}": part for (family, subset), part in groups}


def _averaged(rule: Rule, part: pd.DataFrame, share: float) -> pd.DataFrame:
    """The items of a subset with their weights, which sum to `share`, and strata."""
    if rule.without is None:
        return part.assign(weight=part["weight"] * share)
    sizes = part.groupby("group")["group"].transform("size")
    counted = ~part["group"].isin(symmetric_relations(rule.without)) & (sizes >= rule.min_items)
    part, sizes = part[counted], sizes[counted]
    return part.assign(weight=share / sizes / part["group"].nunique(), stratum=part["group"])


def _shares(tree: Tree, keys: list[str], missing: list[str]) -> dict[str, float]:
    """Weight of each subset in the nested mean, over those members that are there."""
    if isinstance(tree, str):
        fitting = [key for key in keys if fnmatchcase(key, tree)]
        if not fitting:
            missing.append(tree)
        return {key: 1 / len(fitting) for key in fitting}
    members = [part for part in (_shares(sub, keys, missing) for sub in tree) if part]
    total: dict[str, float] = {}
    for part in members:
        for key, share in part.items():
            total[key] = total.get(key, 0.0) + share / len(members)
    return total
