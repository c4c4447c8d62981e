"""What'sUp (Kamath et al. 2023): where one thing stands, in photographs taken for the purpose, COCO
and Visual Genome."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import Unpack

from cae_lib.data import rows
from cae_lib.data.benchmarks.base import Benchmark, Choice
from cae_lib.data.benchmarks.collect import Collector, Family, Options

OFFICIAL = {
    "controlled_images": 412, "controlled_clevr": 408, "coco_qa_one_obj": 2247,
    "coco_qa_two_obj": 440, "vg_qa_one_obj": 1160, "vg_qa_two_obj": 291,
}
PAIRS = {
    "controlled_images": (("left", "right"), ("on", "under")),
    "controlled_clevr": (("left", "right"), ("in-front", "behind")),
}
IMAGE_NAMES = {"coco": "val2017/{:012d}.jpg", "vg": "vg_images/{:d}.jpg"}
FAMILY = Family(
    "whatsup", OFFICIAL,
    "those of the official archives controlled_images, controlled_clevr, val2017 and vg_images",
)
# Words of a caption that tell its preposition, looked for in this order.
PHRASES = {
    "left of": "left", "right of": "right", "front of": "front", "behind": "behind",
    "above": "above", "below": "below", "top": "top", "bottom": "bottom",
}


def load(root: str | Path, **options: Unpack[Options]) -> list[Benchmark]:
    """Read the six subsets, one benchmark each: one picture and (true caption, false ones).

    `controlled_images` (A) and `controlled_clevr` (B) have four captions, the others two. In A and
    B the same two things stand in four ways, so besides the accuracy over items there are that of
    pairs (left with right, on with under or in front with behind) and that of sets of four, in
    which all items have to be right; pairs and sets that are not complete are counted. Groups are
    the prepositions; the headline is the mean over items, and the paper averages over subsets.
    Paths in A and B start with `data/`, the official name of `root`, whatever its name is here.
    """
    ends = {name: "_dataset" if name in PAIRS else "" for name in OFFICIAL}
    files = {name: Path(root, f"{name}{end}.json") for name, end in ends.items()}
    return FAMILY.read(files, _subset, **options)


def _subset(collector: Collector) -> Benchmark:
    controlled = collector.subset in PAIRS

    def read(key: str, entry: object) -> Choice:
        return _scene(collector, key, entry) if controlled else _question(collector, key, entry)

    collector.rows(enumerate(rows.read_json(collector.source, list)), read)
    return collector.finish(sets=_sets(collector) if controlled else {})


def _scene(collector: Collector, key: str, entry: object) -> Choice:
    """An item of A or B."""
    name = PurePosixPath(rows.text(entry, "image_path"))
    _, preposition, _ = _parts(collector.subset, name)
    root = collector.source.parent
    inner = name.relative_to("data") if name.parts[0] == "data" else name
    image = collector.picture(root / inner, root / name)
    texts = rows.texts(entry, "caption_options", least=2)
    return Choice((image,), texts, truth=0, group=preposition, id=key)


def _parts(subset: str, name: PurePosixPath) -> tuple[str, str, str]:
    """First thing, preposition and second thing, from "mug_left_of_plate.jpeg" and the like."""
    parts = name.stem.split("_")
    known = [preposition for pair in PAIRS[subset] for preposition in pair]
    if len(parts) < 3 or parts[1] not in known:
        raise rows.RowError(
            f"its picture is {name.name!r}, a name like thing_PREPOSITION_thing.jpeg was expected "
            f"with one of {', '.join(known)}"
        )
    return parts[0], parts[1], parts[-1]


def _sets(collector: Collector) -> dict[str, tuple[tuple[int, ...], ...]]:
    """Positions of the items of each complete pair, and of each complete set of four."""
    kinds = PAIRS[collector.subset]
    places: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for position, item in enumerate(collector.items):
        name = PurePosixPath(item.images[0].path.name)
        first, preposition, second = _parts(collector.subset, name)
        if preposition in places[first, second]:
            collector.counts["repeated_scenes"] += 1
        places[first, second][preposition] = position
    pairs, sets = [], []
    for found in places.values():
        complete = [tuple(found[p] for p in pair) for pair in kinds if {*pair} <= {*found}]
        pairs += complete
        if len(complete) == len(kinds):
            sets.append(tuple(place for pair in complete for place in pair))
    collector.counts["incomplete_pairs"] = len(kinds) * len(places) - len(pairs)
    collector.counts["incomplete_sets"] = len(places) - len(sets)
    return {"pair_accuracy": tuple(pairs), "set_accuracy": tuple(sets)}


def _question(collector: Collector, key: str, entry: object) -> Choice:
    """An item of the other subsets."""
    name = IMAGE_NAMES[collector.subset.partition("_")[0]]
    if not isinstance(entry, list) or len(entry) != 3 or not rows.is_texts(entry[1:]):
        raise rows.RowError(f"is {entry!r}, [image id, true caption, false caption] was expected")
    try:
        image = collector.picture(collector.source.parent / name.format(int(entry[0])))
    except (TypeError, ValueError):
        raise rows.RowError(f"the image id is {entry[0]!r}, a number was expected") from None
    return Choice((image,), tuple(entry[1:]), truth=0, group=_preposition(entry[1]), id=key)


def _preposition(caption: str) -> str:
    """The last word of "a photo of a cup on the left", or the relation between two things."""
    last = caption.split()[-1].strip(".")
    if last in PHRASES.values():
        return last
    return next((word for phrase, word in PHRASES.items() if phrase in caption), last)
