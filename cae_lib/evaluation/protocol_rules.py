"""The rules of a table's numbers: the benchmarks' own, and those of CAE's authors.

`official` averages as each benchmark's paper and script do; `authors` as the evaluation of CAE's
authors does (read in the code of their later work).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cae_lib.errors import ConfigError
from cae_lib.evaluation.aggregates import AGGREGATES, Tree

MIN_PAIR = 25


@dataclass(frozen=True)
class Rule:
    """How one number comes about.

    Attributes:
        words: The rule as a page prints it.
        tree: Results to average, see `aggregate`; a single key for one result.
        by_items: Weigh the results by their items instead.
        without: Name of the list of symmetric relations to leave out, see `symmetric_relations`;
            None to average items rather than groups.
        min_items: Groups of fewer items are left out.
        digits: Round each group's accuracy so before averaging.
        metric: Take this number of the result's `metrics` instead.
    """

    words: str
    tree: Tree
    by_items: bool = False
    without: str | None = None
    min_items: int = 1
    digits: int | None = None
    metric: str | None = None


def _groups(key: str, words: str, **fields: object) -> Rule:
    return Rule(words, key, without=fields.pop("without", "none"), **fields)


_ITEMS = "mean over items"
_WINOGROUND = {f"winoground/{task}": Rule(_ITEMS, f"winoground/{task}")
               for task in ("text", "image", "group")}  # fmt: skip
_CREPE = {f"crepe/{kind}": _groups(f"crepe/{kind}", "mean over complexities, R@1 among 6")
          for kind in ("atom", "swap", "negate")}  # fmt: skip
_ORDER = {f"order/{name}": Rule("share first, P@1", f"order/{name}")
          for name in ("coco", "flickr30k")}  # fmt: skip
_COLA = {"cola/multi": Rule(f"{_ITEMS}, image score", "cola/multi")}

PROTOCOLS: Mapping[str, Mapping[str, Rule]] = {
    "official": {
        "aro/relation": _groups(
            "aro/relation", "mean over relations without 157 symmetric ones", without="official"
        ),
        "aro/attribution": _groups(
            "aro/attribution", f"mean over pairs with {MIN_PAIR} items", min_items=MIN_PAIR
        ),
        **_ORDER,
        **_WINOGROUND,
        "sugarcrepe": Rule("mean over all items", "sugarcrepe/*", by_items=True),
        "vl_checklist/relation": Rule("mean over files", "vl_checklist/Relation/*"),
        "vl_checklist/attribute": Rule("mean over files", "vl_checklist/Attribute/*"),
        "vl_checklist/object": Rule("mean over files", "vl_checklist/Object/*"),
        "valse": Rule("mean over instruments, valid items", "valse/*"),
        "svo_probes": Rule(
            "match against no match, mean of both accuracies", "svo_probes/all", metric="match/all"
        ),
        **_CREPE,
        "whatsup": Rule("mean over the six subsets", "whatsup/*"),
        **_COLA,
    },
    "authors": {
        "aro/relation": _groups(
            "aro/relation", "mean over relations without 160 symmetric ones, each to 4 digits",
            without="authors", digits=4,
        ),
        "aro/attribution": _groups(
            "aro/attribution", f"mean over pairs with {MIN_PAIR} items, each to 4 digits",
            min_items=MIN_PAIR, digits=4,
        ),
        **_ORDER,
        **_WINOGROUND,
        **{f"winoground/{task}/authors": Rule("mean over the 171 clean items",
                                              f"winoground/{task}/authors")
           for task in ("text", "image", "group")},
        **{name: Rule("nested mean over files", tree) for name, tree in AGGREGATES.items()},
        "svo_probes": Rule("share of rows with the true picture closer", "svo_probes/all"),
        **_CREPE,
        "whatsup/controlled": Rule("mean of A and B", "whatsup/controlled_*"),
        "whatsup/coco": Rule("mean of one and two objects", "whatsup/coco_qa_*"),
        "whatsup/vg": Rule(
            "mean of one object and, by a slip of the reference, COCO's two objects",
            ["whatsup/vg_qa_one_obj", "whatsup/coco_qa_two_obj"],
        ),
        **_COLA,
    },
}  # fmt: skip


def protocol(name: str) -> Mapping[str, Rule]:
    """The rules of a protocol by the name of the number.

    Raises:
        ConfigError: There is no such protocol.
    """
    if name not in PROTOCOLS:
        raise ConfigError(f"no protocol {name!r}. Known: {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]
