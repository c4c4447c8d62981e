"""What'sUp (Kamath et al. 2023): captions that differ in a spatial preposition.

The images are from COCO, from Visual Genome, or taken for this benchmark. Those taken for it form
the subsets "controlled_images" and "controlled_clevr", where each pair of objects is shown in four
arrangements. The true caption is option 0. The group of an item is its preposition.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from cae_bench.benchmarks.base import Family, ImageRef, Item
from cae_lib.data.rows import is_list_of_texts, json_rows

ITEM_COUNTS = {
    "controlled_images": 412,
    "controlled_clevr": 408,
    "coco_qa_one_obj": 2247,
    "coco_qa_two_obj": 440,
    "vg_qa_one_obj": 1160,
    "vg_qa_two_obj": 291,
}
"""Published number of items of each subset."""

CONTROLLED_PREPOSITIONS = {
    "controlled_images": ("left", "right", "on", "under"),
    "controlled_clevr": ("left", "right", "in-front", "behind"),
}
"""Prepositions in image names of the controlled subsets, as in "mug_left_of_plate.jpeg"."""

N_OPTIONS = 4
"""Number of captions of an item of the controlled subsets; with more, chance would be smaller."""

PREPOSITION_OF_PHRASE = {
    "left of": "left",
    "right of": "right",
    "front of": "front",
    "behind": "behind",
    "above": "above",
    "below": "below",
    # "top" has to stay after the phrases above: it also occurs in "laptop".
    "top": "top",
    "bottom": "bottom",
}
"""Preposition, as a name of a group, by the phrase that expresses it in a caption."""


def read_items(root: Path, subset: str) -> Iterator[Item]:
    """Yield the items of one subset."""
    if subset in CONTROLLED_PREPOSITIONS:
        yield from _read_controlled(root, subset)
        return
    # COCO pads its image ids with zeros, Visual Genome does not.
    image_name = "val2017/{:012d}.jpg" if subset.startswith("coco") else "vg_images/{}.jpg"
    for row in json_rows(root / _annotation_file(subset), list):
        content = row.content
        if not isinstance(content, list) or len(content) != 3 or not is_list_of_texts(content[1:]):
            raise row.error(f"is {content!r}, [image id, true caption, false caption] was expected")
        image = ImageRef(root / "whatsup" / image_name.format(row.integer("0")))
        yield Item(row.key, (image,), tuple(content[1:]), group=_preposition(content[1]))


def _annotation_file(subset: str) -> str:
    """Return the path of the annotation file of a subset in the folder of all datasets."""
    end = "_dataset" if subset in CONTROLLED_PREPOSITIONS else ""
    return f"whatsup/{subset}{end}.json"


def _read_controlled(root: Path, subset: str) -> Iterator[Item]:
    """Yield the items of a controlled subset, whose image names contain the preposition."""
    for row in json_rows(root / _annotation_file(subset), list):
        path = row.text("image_path")
        parts = PurePosixPath(path).stem.split("_")
        if len(parts) < 3 or parts[1] not in CONTROLLED_PREPOSITIONS[subset]:
            raise row.error(
                f"its image is {path!r}, a name like thing_PREPOSITION_thing.jpeg was expected "
                f"with one of {', '.join(CONTROLLED_PREPOSITIONS[subset])}"
            )
        texts = row.texts("caption_options")
        if len(texts) != N_OPTIONS:
            raise row.error(f"has {len(texts)} caption_options, {N_OPTIONS} were expected")
        # "data/" is the folder of the official repository.
        image = ImageRef(root / "whatsup" / path.removeprefix("data/"))
        yield Item(row.key, (image,), texts, group=parts[1])


def _preposition(caption: str) -> str:
    """Return the preposition of a caption; without a known one, its last word."""
    # Captions of one object end in it, as in "a photo of a cup on the left".
    last = caption.split()[-1].strip(".")
    if last in PREPOSITION_OF_PHRASE.values():
        return last
    return next((word for phrase, word in PREPOSITION_OF_PHRASE.items() if phrase in caption), last)


FAMILY = Family(
    "whatsup",
    "whatsup",
    read_items,
    published_counts=ITEM_COUNTS,
    files=tuple(_annotation_file(name) for name in ITEM_COUNTS),
    images_advice=(
        "in the official archives controlled_images, controlled_clevr, val2017 and vg_images"
    ),
)
