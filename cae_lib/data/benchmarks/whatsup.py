"""What'sUp: where one thing stands, in photographs taken for the purpose, COCO and Visual Genome.

Kamath et al. 2023.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from cae_lib.data.benchmarks import files
from cae_lib.data.benchmarks.base import Benchmark, Choice, ImageRef
from cae_lib.data.benchmarks.collect import Collector, Policy, first_existing
from cae_lib.errors import ConfigError

NAME = "whatsup"
OFFICIAL = {
    "controlled_images": 412,
    "controlled_clevr": 408,
    "coco_qa_one_obj": 2247,
    "coco_qa_two_obj": 440,
    "vg_qa_one_obj": 1160,
    "vg_qa_two_obj": 291,
}
PAIRS = {
    "controlled_images": (("left", "right"), ("on", "under")),
    "controlled_clevr": (("left", "right"), ("in-front", "behind")),
}
IMAGE_NAMES = {"coco": "val2017/{:012d}.jpg", "vg": "vg_images/{:d}.jpg"}
IMAGES_FROM = (
    "those of the official archives controlled_images, controlled_clevr, val2017 and vg_images"
)
# Words of a caption that tell its preposition, looked for in this order.
PHRASES = {
    "left of": "left", "right of": "right", "front of": "front", "behind": "behind",
    "above": "above", "below": "below", "top": "top", "bottom": "bottom",
}


def load(
    root: str | Path,
    *,
    subsets: Sequence[str] | None = None,
    expected: Mapping[str, int] | None = None,
    official: bool = False,
    allow_missing: bool = False,
) -> list[Benchmark]:
    """Read the six subsets, one benchmark each: one picture and (true caption, false ones).

    `controlled_images` (A) and `controlled_clevr` (B) have four captions, the others two. In A and
    B the same two things stand in four ways, so besides the accuracy over items there are that of
    pairs (left with right, on with under or in front with behind) and that of sets of four, in
    which all items have to be right; pairs and sets that are not complete are counted. Groups are
    the prepositions; the headline is the mean over items, and the paper averages over subsets.

    Args:
        root: Folder with the annotation files and the folders of pictures. Paths in A and B start
            with `data/`, the official name of this folder, whatever its name is here.
        subsets: Names of files to read; all six by default.
        expected: Number of items by subset.
        official: Expect the published numbers of items.
        allow_missing: Leave out and count what cannot be used instead of raising an error.

    Raises:
        ConfigError: If a subset is unknown.
        DataError: If a file or picture is missing, or a row is malformed.
    """
    policy = Policy.of(expected, official, OFFICIAL, allow_missing)
    names = tuple(subsets) if subsets is not None else tuple(OFFICIAL)
    unknown = [name for name in names if name not in OFFICIAL]
    if unknown:
        raise ConfigError(f"no such What'sUp subset: {unknown}. Known: {', '.join(OFFICIAL)}.")
    read = {name: _controlled if name in PAIRS else _question for name in names}
    return [read[name](Path(root), name, policy) for name in names]


def _controlled(root: Path, subset: str, policy: Policy) -> Benchmark:
    path = root / f"{subset}_dataset.json"
    collector = Collector(NAME, subset, path, policy, IMAGES_FROM)

    def read(key: str, entry: object) -> Choice:
        name = PurePosixPath(files.text(entry, "image_path"))
        _, preposition, _ = _parts(subset, name)
        texts = files.value(entry, "caption_options")
        _check_texts(texts)
        inner = name.relative_to("data") if name.parts[0] == "data" else name
        image = ImageRef(first_existing([root / inner, root / name]))
        collector.counts["identical"] += texts[0] in texts[1:]
        return Choice((image,), tuple(texts), truth=0, group=preposition, id=key)

    collector.rows(files.read_json(path, list), read)
    pairs, sets = _sets(collector, subset)
    return collector.finish(sets={"pair_accuracy": pairs, "set_accuracy": sets})


def _parts(subset: str, name: PurePosixPath) -> tuple[str, str, str]:
    """First thing, preposition and second thing, from "mug_left_of_plate.jpeg" and the like."""
    parts = name.stem.split("_")
    known = [preposition for pair in PAIRS[subset] for preposition in pair]
    if len(parts) < 3 or parts[1] not in known:
        raise files.RowError(
            f"its picture is {name.name!r}, a name like thing_PREPOSITION_thing.jpeg was expected "
            f"with one of {', '.join(known)}"
        )
    return parts[0], parts[1], parts[-1]


def _sets(collector: Collector, subset: str) -> tuple[tuple, tuple]:
    """Positions of the items of each complete pair, and of each complete set of four."""
    places: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for position, item in enumerate(collector.items):
        first, preposition, second = _parts(subset, PurePosixPath(item.images[0].path.name))
        if preposition in places[first, second]:
            collector.counts["repeated_scenes"] += 1
        places[first, second][preposition] = position
    pairs, sets = [], []
    for found in places.values():
        complete = [tuple(found[p] for p in pair) for pair in PAIRS[subset] if {*pair} <= {*found}]
        pairs += complete
        if len(complete) == len(PAIRS[subset]):
            sets.append(tuple(place for pair in complete for place in pair))
    collector.counts["incomplete_pairs"] = len(PAIRS[subset]) * len(places) - len(pairs)
    collector.counts["incomplete_sets"] = len(places) - len(sets)
    return tuple(pairs), tuple(sets)


def _question(root: Path, subset: str, policy: Policy) -> Benchmark:
    path = root / f"{subset}.json"
    collector = Collector(NAME, subset, path, policy, IMAGES_FROM)
    name = IMAGE_NAMES[subset.partition("_")[0]]

    def read(key: str, entry: object) -> Choice:
        if not isinstance(entry, list) or len(entry) != 3:
            raise files.RowError("expected [image id, true caption, false caption]")
        try:
            image = ImageRef(root / name.format(int(entry[0])))
        except (TypeError, ValueError):
            raise files.RowError(f"the image id is {entry[0]!r}, a number was expected") from None
        texts = entry[1:]
        _check_texts(texts)
        collector.counts["identical"] += texts[0] == texts[1]
        return Choice((image,), tuple(texts), truth=0, group=_preposition(texts[0]), id=key)

    collector.rows(files.read_json(path, list), read)
    return collector.finish()


def _preposition(caption: str) -> str:
    """The last word of "a photo of a cup on the left", or the relation between two things."""
    last = caption.split()[-1].strip(".")
    if last in PHRASES.values():
        return last
    return next((word for phrase, word in PHRASES.items() if phrase in caption), last)


def _check_texts(texts: object) -> None:
    if (
        not isinstance(texts, list)
        or len(texts) < 2
        or not all(isinstance(text, str) and text.strip() for text in texts)
    ):
        raise files.RowError(f"its captions are {texts!r}, a list of at least two was expected")
