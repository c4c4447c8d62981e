"""ARO's VG-Relation and VG-Attribution (Yuksekgonul et al. 2023).

The negative captions of VG-Relation swap the two objects of a relation, those of VG-Attribution the
attributes of two objects. The image is cropped to the box of the item before preprocessing. The
negative caption is option 0, the true caption option 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from cae_bench.benchmarks.base import Average, Family, ImageRef, Item
from cae_lib.data.rows import json_rows

# As in the official `evaluate_scores`.
MIN_ITEMS_PER_PAIR = 25
"""Number of items that a pair of attributes needs to count in VG-Attribution's macro average."""

_LINES = Path(__file__).with_name("aro_symmetric.txt").read_text(encoding="utf-8").splitlines()
# Swapping the objects of such a relation, such as "near", does not make its caption wrong.
SYMMETRIC_RELATIONS = frozenset(line for line in _LINES if line and not line.startswith("#"))
"""The 157 relations that the macro average of VG-Relation leaves out, as in ARO's notebook."""

AUTHORS_SYMMETRIC_RELATIONS = SYMMETRIC_RELATIONS | {"pulling", "pulled by", "leaning against"}
"""The 160 relations that the evaluation code of CAE's authors leaves out."""


def read_items(root: Path, subset: str) -> Iterator[Item]:
    """Yield the items of "relation" or "attribution", by relation or pair of attributes."""
    for row in json_rows(root / f"aro/visual_genome_{subset}.json", list):
        # The official loader crops the image before it resizes it.
        box = row.box("bbox_x", "bbox_y", "bbox_w", "bbox_h")
        image = ImageRef(root / "aro/images" / row.text("image_path").strip(), box)
        # The official order has the true caption last.
        texts = row.text("false_caption"), row.text("true_caption")
        if subset == "relation":
            group = row.text("relation_name")
        else:
            group = f"{row.text('attributes.0')}_{row.text('attributes.1')}"
        yield Item(row.key, (image,), texts, truth=1, group=group)


AVERAGE_OF_SUBSET = {
    "relation": Average(
        "mean over {n} relations, {n_without} symmetric ones left out",
        over_groups=True,
        excluded_groups=SYMMETRIC_RELATIONS,
    ),
    "attribution": Average(
        f"mean over {{n}} attribute pairs with at least {MIN_ITEMS_PER_PAIR} items",
        over_groups=True,
        min_items=MIN_ITEMS_PER_PAIR,
    ),
}
"""How the items of each subset are averaged."""


def _count_excluded_from_average(subset: str, items: Sequence[Item]) -> Mapping[str, int]:
    """Count the items of the groups that do not count in the macro average of a subset."""
    counted = AVERAGE_OF_SUBSET[subset].counted_group_sizes(item.group for item in items)
    name = "symmetric_items" if subset == "relation" else "items_of_small_groups"
    return {name: len(items) - sum(counted.values())}


FAMILY = Family(
    "aro",
    "aro",
    read_items,
    published_counts={"relation": 23_937, "attribution": 28_748},
    files=("aro/visual_genome_relation.json", "aro/visual_genome_attribution.json"),
    images_advice="in the official vgr_vga_images.zip: put them into aro/images",
    in_paper=True,
    averages=AVERAGE_OF_SUBSET,
    extra_counts=_count_excluded_from_average,
)
