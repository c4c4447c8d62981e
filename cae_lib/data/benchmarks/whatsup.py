"""What'sUp: prepositions told by names of files or captions, and items to be right together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from cae_lib.data import rows
from cae_lib.data.benchmarks.base import Choice
from cae_lib.data.benchmarks.read import Collector

PAIRS = {
    "controlled_images": (("left", "right"), ("on", "under")),
    "controlled_clevr": (("left", "right"), ("in-front", "behind")),
}
# Words of a caption that tell its preposition, looked for in this order.
PHRASES = {
    "left of": "left",
    "right of": "right",
    "front of": "front",
    "behind": "behind",
    "above": "above",
    "below": "below",
    "top": "top",
    "bottom": "bottom",
}


def read(collector: Collector) -> Mapping[str, Any]:
    """One picture and (true caption, false ones) an item.

    `controlled_images` (A) and `controlled_clevr` (B) have four captions, the others two. In A and
    B the same two things stand in four ways, so besides the accuracy over items there are that of
    pairs (left with right, on with under or in front with behind) and that of sets of four, in
    which all items have to be right; pairs and sets that are not complete are counted. Groups are
    the prepositions; the headline is the mean over items, and the paper averages over subsets.
    Paths in A and B start with `data/`, the official name of the folder, whatever its name is here.
    """
    controlled = collector.subset in PAIRS

    def choice(key: str, entry: object) -> Choice:
        return (_scene if controlled else _question)(collector, key, entry)

    collector.add_rows(collector.entries(), choice)
    return {"sets": _sets(collector)} if controlled else {}


def _scene(collector: Collector, key: str, entry: object) -> Choice:
    """An item of A or B."""
    name = PurePosixPath(rows.text(entry, "image_path"))
    _, preposition, _ = _parts(collector.subset, name)
    image = collector.picture(str(name).removeprefix("data/"))
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
    if not isinstance(entry, list) or len(entry) != 3 or not rows.is_texts(entry[1:]):
        raise rows.RowError(f"is {entry!r}, [image id, true caption, false caption] was expected")
    try:
        image = collector.picture(str(int(entry[0])))
    except (TypeError, ValueError):
        raise rows.RowError(f"the image id is {entry[0]!r}, a number was expected") from None
    return Choice((image,), tuple(entry[1:]), truth=0, group=_preposition(entry[1]), id=key)


def _preposition(caption: str) -> str:
    """The last word of "a photo of a cup on the left", or the relation between two things."""
    last = caption.split()[-1].strip(".")
    if last in PHRASES.values():
        return last
    return next((word for phrase, word in PHRASES.items() if phrase in caption), last)
