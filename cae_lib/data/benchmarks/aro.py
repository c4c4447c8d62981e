"""How ARO's sets are averaged: see their entry in `table`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cae_lib.errors import ConfigError

if TYPE_CHECKING:
    from cae_lib.data.benchmarks.read import Collector

AUTHORS_EXTRA = ("pulling", "pulled by", "leaning against")
MIN_PAIR = 25


def symmetric_relations(which: str = "official") -> frozenset[str]:
    """Names of the relations that are left out of VG-Relation's macro average: "official", the 157
    of ARO's notebook; "authors", these and three more, as in the evaluation of CAE's authors; or
    "none". ConfigError for anything else."""
    if which == "none":
        return frozenset()
    if which not in ("official", "authors"):
        raise ConfigError(f"symmetric={which!r}: expected 'official', 'authors' or 'none'.")
    lines = Path(__file__).with_name("aro_symmetric.txt").read_text(encoding="utf-8").splitlines()
    names = {line for line in lines if line and not line.startswith("#")}
    return frozenset(names.union(AUTHORS_EXTRA if which == "authors" else ()))


def headline(collector: Collector) -> dict[str, Any]:
    """A macro average: over relations without the symmetric ones, as in the official notebook; over
    pairs of attributes with at least `MIN_PAIR` items, as in the official `evaluate_scores`. Where
    no group qualifies it is the micro average."""
    sizes = Counter(item.group for item in collector.items)
    if collector.subset == "relation":
        left_out = symmetric_relations() & sizes.keys()
        collector.counts["symmetric_items"] = sum(sizes[name] for name in left_out)
        rule = f"relations, {len(left_out)} symmetric ones left out"
    else:
        left_out = {name for name, n in sizes.items() if n < MIN_PAIR}
        collector.counts["items_of_small_groups"] = sum(sizes[name] for name in left_out)
        rule = f"attribute pairs with at least {MIN_PAIR} items"
    kept = tuple(sorted(sizes.keys() - left_out))
    if not kept:
        return {"macro_groups": (), "rule": "mean over items: no group qualifies for macro"}
    return {"headline": "macro", "macro_groups": kept, "rule": f"mean over {len(kept)} {rule}"}
