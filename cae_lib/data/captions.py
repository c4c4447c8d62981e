"""Karpathy's splits and COCO's caption files, as downloaded; NegCLIP's files are in `negclip`."""

from __future__ import annotations

from pathlib import Path

from cae_lib.data.negclip import load_negclip_tsv
from cae_lib.data.pairs import Missing, Pairs, checked_pairs, existing, field, read_json, text_of
from cae_lib.errors import DataError

__all__ = [
    "Missing",
    "Pairs",
    "load_caption_list",
    "load_coco_captions",
    "load_karpathy",
    "load_negclip_tsv",
]


def load_karpathy(
    file: str | Path, root: str | Path, split: str, missing: Missing = "raise"
) -> Pairs:
    """Read one split of Karpathy's `dataset_{coco,flickr30k,flickr8k}.json`.

    Args:
        file: JSON with `images[].{filename, filepath (COCO only), split, sentences[].raw}`.
        root: folder that `filepath/filename`, or `filename` alone, is relative to.
        split: "train" (takes in COCO's "restval"), "val" or "test".
        missing: see `load_negclip_tsv`.

    Raises:
        DataError: the file has another layout, no picture of the split, or pictures are missing.
    """
    path = existing(file)
    images = field(path, "top level", read_json(path), "images")
    wanted = {"train", "restval"} if split == "train" else {split}
    rows = []
    for i, image in enumerate(images):
        if field(path, f"image {i}", image, "split") in wanted:
            name = field(path, f"image {i}", image, "filename")
            picture = Path(root, image.get("filepath", ""), name)
            sentences = field(path, f"image {i}", image, "sentences")
            rows += [
                (picture, text_of(path, i, sentence.get("raw"), "raw")) for sentence in sentences
            ]
    if not rows:
        known = sorted({image["split"] for image in images})
        raise DataError(f"{path}: no picture of split {split!r}; the file has {known}.")
    return checked_pairs(rows, f"{path.stem}-{split}", missing, path)


def load_caption_list(file: str | Path, root: str | Path, missing: Missing = "raise") -> Pairs:
    """Read a `coco_karpathy_test.json`-like list of `{image, caption}` entries.

    `caption` is one string or a list of them; `image` is relative to `root`. See
    `load_negclip_tsv` for `missing`.

    Raises:
        DataError: the file has another layout, or pictures are missing.
    """
    path = existing(file)
    rows = []
    for i, entry in enumerate(read_json(path)):
        captions = field(path, f"entry {i}", entry, "caption")
        captions = [captions] if isinstance(captions, str) else captions
        picture = Path(root) / field(path, f"entry {i}", entry, "image")
        rows += [(picture, text_of(path, i, caption, "caption")) for caption in captions]
    return checked_pairs(rows, path.stem, missing, path)


def load_coco_captions(
    file: str | Path, image_dir: str | Path, missing: Missing = "raise"
) -> Pairs:
    """Read COCO's `captions_{train,val}{2014,2017}.json`, in the order of its annotations.

    Pictures without an annotation are no pairs. See `load_negclip_tsv` for `missing`.

    Raises:
        DataError: an annotation names an unknown picture, or pictures are missing.
    """
    path = existing(file)
    content = read_json(path)
    images = field(path, "top level", content, "images")
    names = {
        field(path, f"image {i}", image, "id"): field(path, f"image {i}", image, "file_name")
        for i, image in enumerate(images)
    }
    rows = []
    for i, annotation in enumerate(field(path, "top level", content, "annotations")):
        number = field(path, f"annotation {i}", annotation, "image_id")
        if number not in names:
            raise DataError(f"{path}, annotation {i}: image_id {number} is not in `images`.")
        caption = text_of(path, i, annotation.get("caption"), "caption")
        rows.append((Path(image_dir) / names[number], caption))
    return checked_pairs(rows, path.stem, missing, path)
