"""ARO's VG-Relation and VG-Attribution (Yuksekgonul et al. 2023): which object stands where, which
one has which attribute. The word-order sets of ARO are in `order.py`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Unpack

from cae_lib.data import rows
from cae_lib.data.benchmarks.base import Benchmark, Choice
from cae_lib.data.benchmarks.collect import Collector, Family, Options
from cae_lib.errors import ConfigError

OFFICIAL = {"relation": 23_937, "attribution": 28_748}
ANNOTATIONS = {
    "relation": "visual_genome_relation.json",
    "attribution": "visual_genome_attribution.json",
}
FAMILY = Family("aro", OFFICIAL, "those of the official vgr_vga_images.zip, under images/")
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


def load(root: str | Path, **options: Unpack[Options]) -> list[Benchmark]:
    """Read VG-Relation and VG-Attribution as ARO's repository lays them out.

    Each item is one picture, cut to its box before preprocessing, and the texts (false, true). The
    headline of both is a macro average: over relations without the symmetric ones, as in the
    official notebook, and over pairs of attributes with at least `MIN_PAIR` items, as in the
    official `evaluate_scores`. Where no group qualifies the headline is the micro average. `root`
    holds the two annotation files and `images/`.
    """
    files = {name: Path(root, file) for name, file in ANNOTATIONS.items()}
    return FAMILY.read(files, _subset, **options)


def _subset(collector: Collector) -> Benchmark:
    related, folder = collector.subset == "relation", collector.source.parent / "images"

    def read(key: str, entry: object) -> Choice:
        crop = rows.box(entry, "bbox_x", "bbox_y", "bbox_w", "bbox_h")
        image = collector.picture(folder / rows.text(entry, "image_path"), crop=crop)
        texts = (rows.text(entry, "false_caption"), rows.text(entry, "true_caption"))
        group = rows.text(entry, "relation_name") if related else _attribute_pair(entry)
        return Choice((image,), texts, truth=1, group=group, id=key)

    collector.rows(enumerate(rows.read_json(collector.source, list)), read)
    sizes = Counter(item.group for item in collector.items)
    if related:
        left_out = symmetric_relations() & sizes.keys()
        collector.counts["symmetric_items"] = sum(sizes[name] for name in left_out)
        rule = f"relations, {len(left_out)} symmetric ones left out"
    else:
        left_out = {name for name, n in sizes.items() if n < MIN_PAIR}
        collector.counts["items_of_small_groups"] = sum(sizes[name] for name in left_out)
        rule = f"attribute pairs with at least {MIN_PAIR} items"
    kept = tuple(sorted(sizes.keys() - left_out))
    if not kept:
        rule = "mean over items: no group qualifies for macro"
        return collector.finish(macro_groups=(), rule=rule)
    rule = f"mean over {len(kept)} {rule}"
    return collector.finish(headline="macro", macro_groups=kept, rule=rule)


def _attribute_pair(entry: object) -> str:
    pair = rows.value(entry, "attributes")
    if not rows.is_texts(pair) or len(pair) != 2:
        raise rows.RowError(f"field 'attributes' is {pair!r}, a list of two texts was expected")
    return "_".join(pair)
