"""Load image-caption pairs from the files of Karpathy's splits, COCO and NegCLIP."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from cae_lib.data.incomplete import image_problem, log_left_out, validate_row_count
from cae_lib.data.rows import Row, csv_rows, json_rows, read_json
from cae_lib.errors import ConfigError, DataError, MissingDataError

if TYPE_CHECKING:
    from torch import Tensor

# What to do about captions whose image cannot be used: "raise" an error if a file is missing;
# "drop" those whose file is missing or cannot be decoded, and print how many; or "ignore" images.
MissingPolicy = Literal["raise", "drop", "ignore"]

# Folder that image paths are relative to, or candidates, of which the first that has any of the
# images is used.
Root = str | Path | Sequence[Path]

# Caption, image, hard negative captions, numbers of the rows with a similar image.
NEGCLIP_COLUMNS = ("title", "filepath", "neg_caption", "neg_image")


@dataclass(frozen=True)
class ImageCaptionPairs:
    """Image-caption pairs; one row is one caption together with its image.

    Attributes:
        image_paths: Each image once.
        captions: The caption of each of the n rows.
        image_index: Position of each row's image in `image_paths`, int64 `(n,)`.
        n_used: Number n of rows, without those that were left out.
        n_expected: Number of rows that the dataset should have.
        negatives: Hard negative captions of each row; None if the dataset has none.
        hard_images: For each row, the numbers of the rows with a similar image, counted from 0.
    """

    image_paths: list[Path]
    captions: list[str]
    image_index: Tensor
    name: str
    n_used: int
    n_expected: int
    negatives: list[list[str]] | None = None
    hard_images: list[list[int]] | None = None


def load_karpathy(
    file: str | Path,
    root: Root,
    split: str,
    missing_images: MissingPolicy = "raise",
    n_expected: int | None = None,
) -> ImageCaptionPairs:
    """Read the split "train", "val" or "test" of `dataset_{coco,flickr30k,flickr8k}.json`.

    Its layout is `images[].{filename, filepath (COCO only), split, sentences[].raw}`. Without
    `n_expected`, as many captions are expected as the file lists.
    """
    path = Path(file)
    # "restval" is the rest of COCO's validation images, which Karpathy's split adds to training.
    splits = {"train", "restval"} if split == "train" else {split}
    pairs, splits_of_file = [], set()
    for image in _listed(path, "images"):
        splits_of_file.add(image.text("split"))
        if image.text("split") in splits:
            # Without the field or with an empty one, there is no folder; null is an error.
            folder = image.text("filepath") if image.content.get("filepath", "") != "" else ""
            name = Path(folder, image.text("filename"))
            sentences = [Row(path, image.location, one) for one in image.values("sentences")]
            if not sentences:
                raise image.error("has no sentences")
            pairs += [(name, sentence.text("raw")) for sentence in sentences]
    if not pairs:
        raise DataError(
            f"{path}: no picture of split {split!r}; the file has {sorted(splits_of_file)}."
        )
    return _pairs(pairs, root, f"{path.stem}-{split}", missing_images, path, n_expected)[0]


def load_caption_list(
    file: str | Path,
    root: Root,
    missing_images: MissingPolicy = "raise",
    n_expected: int | None = None,
) -> ImageCaptionPairs:
    """Read a JSON list of `{image, caption}` such as `coco_karpathy_test.json`.

    `caption` is one string or a list of strings.
    """
    path = Path(file)
    pairs = []
    for row in json_rows(path, list):
        is_one = isinstance(row.value("caption"), str)
        captions = [row.text("caption")] if is_one else row.texts("caption")
        pairs += [(Path(row.text("image")), caption) for caption in captions]
    return _pairs(pairs, root, path.stem, missing_images, path, n_expected)[0]


def load_coco_captions(
    file: str | Path, image_dir: str | Path, missing_images: MissingPolicy = "raise"
) -> ImageCaptionPairs:
    """Read one of COCO's `captions_{train,val}{2014,2017}.json`, in the order of the annotations.

    Images without a caption are left out.
    """
    path = Path(file)
    names, pairs = {}, []
    for image in _listed(path, "images"):
        number = image.integer("id")
        if number in names:
            raise image.error(f"id {number} stands twice in `images`")
        names[number] = image.text("file_name")
    for annotation in _listed(path, "annotations"):
        number = annotation.integer("image_id")
        if number not in names:
            raise annotation.error(f"image_id {number} is not in `images`")
        pairs.append((Path(names[number]), annotation.text("caption")))
    return _pairs(pairs, image_dir, path.stem, missing_images, path)[0]


def load_negclip_tsv(
    tsv: str | Path,
    root: str | Path,
    missing_images: MissingPolicy = "raise",
    n_expected: int | None = None,
) -> ImageCaptionPairs:
    """Read `train_neg_clip.tsv` or `valid_neg_clip.tsv` of NegCLIP (Yuksekgonul et al. 2023).

    The columns neg_caption and neg_image are written as Python lists. If rows are left out, the
    others are numbered anew in `hard_images`.
    """
    path = Path(tsv)
    captioned, negatives, hard = [], [], []
    # neg_image counts rows from 0, not the lines of the file: quoted captions may hold newlines.
    rows = [
        replace(row, location=f"row {number}")
        for number, row in enumerate(csv_rows(path, NEGCLIP_COLUMNS, "\t"))
    ]
    for row in rows:
        captioned.append((Path(row.text("filepath")), row.text("title")))
        negatives.append(row.literal_list("neg_caption"))
        hard.append(row.literal_list("neg_image", int))
        if any(not 0 <= number < len(rows) for number in hard[-1]):
            raise row.error(
                f"neg_image is {hard[-1]}; expected row numbers of this file, 0 to {len(rows) - 1}"
            )
    pairs, keep = _pairs(captioned, root, path.stem, missing_images, path, n_expected)
    # Rows whose image is missing are removed, also as similar images, and the rest moves up.
    new_row = {old: new for new, old in enumerate(keep)}
    return replace(
        pairs,
        negatives=[negatives[i] for i in keep],
        hard_images=[[new_row[j] for j in hard[i] if j in new_row] for i in keep],
    )


class RetrievalSetInfo(NamedTuple):
    """Files, relative to the folder of the dataset, and published sizes of a retrieval test split.

    Attributes:
        caption_list: File with a list of `{image, caption}`, as BLIP and ARO read it.
        image_folders: Folders that image paths may be relative to, the official one first; "" is
            the folder of the dataset itself.
        max_captions: Largest number of captions of an image.
    """

    caption_list: str
    image_folders: tuple[str, ...]
    n_captions: int
    n_images: int
    max_captions: int


# Karpathy's test splits. Ten images of COCO have six captions; some evaluators use 25,000.
RETRIEVAL_SETS: Mapping[str, RetrievalSetInfo] = {
    "coco": RetrievalSetInfo("coco_karpathy_test.json", ("", "images"), 25_010, 5000, 6),
    "flickr30k": RetrievalSetInfo(
        "flickr30k_test.json", ("flickr30k-images", "", "images"), 5000, 1000, 5
    ),
}


def load_retrieval_set(
    name: str,
    root: str | Path,
    *,
    missing_images: MissingPolicy = "raise",
    is_published: bool = False,
) -> ImageCaptionPairs:
    """Read Karpathy's test split of COCO or Flickr30K from the subfolder `name` of `root`.

    With `is_published`, the published number of captions is expected, and more images, or more
    captions of an image, are refused.
    """
    if name not in RETRIEVAL_SETS:
        raise ConfigError(f"no retrieval set {name!r}. Known: {', '.join(RETRIEVAL_SETS)}.")
    split, folder = RETRIEVAL_SETS[name], Path(root, name)
    folders = [folder / subfolder for subfolder in split.image_folders]
    expected = split.n_captions if is_published else None
    # The two files hold the same captions in the same order.
    file, other = folder / split.caption_list, folder / f"dataset_{name}.json"
    if file.is_file():
        source, pairs = file, load_caption_list(file, folders, missing_images, expected)
    elif other.is_file():
        source, pairs = other, load_karpathy(other, folders, "test", missing_images, expected)
    else:
        raise MissingDataError(
            f"{file}: no such file, nor is {other.name} beside it. Fetch one of them."
        )
    if is_published:
        _validate_caption_counts(pairs, split, source)
    return pairs


def _validate_caption_counts(
    pairs: ImageCaptionPairs, split: RetrievalSetInfo, source: Path
) -> None:
    """Check that there are not more images, or captions of an image, than are published."""
    # A file with the right number of captions may still list an image twice or hold other images.
    counts = Counter(pairs.image_index.tolist())
    image, most = max(counts.items(), key=itemgetter(1), default=(0, 0))
    if most > split.max_captions:
        problem = (
            f"{pairs.image_paths[image]} has {most} captions, at most {split.max_captions} are "
            "published"
        )
    elif len(counts) > split.n_images:
        problem = f"{len(counts):,} images, {split.n_images:,} are published"
    else:
        return
    raise DataError(
        f"{source}: {problem} ({pairs.n_used:,} captions used of {split.n_captions:,} published). "
        "Fetch the official file again."
    )


def _listed(path: Path, name: str) -> list[Row]:
    """Return the entries of the list `name` in the top-level object of a JSON file."""
    top = Row(path, "top level", read_json(path, dict))
    entries = top.values(name)
    if not entries:
        raise top.error(f"the list '{name}' is empty")
    return [Row(path, f"{name[:-1]} {i}", entry) for i, entry in enumerate(entries)]


def _image_folder(root: Root, images: Sequence[Path]) -> Path:
    """Return the folder that image paths are relative to: the first candidate with an image."""
    if isinstance(root, str | Path):
        return Path(root)
    # Where no image exists, errors name a path of the official folder, without its name twice if
    # the image paths begin with it.
    first = root[0].parent if images and images[0].parts[:1] == (root[0].name,) else root[0]
    return next(
        (folder for folder in root if any(os.path.isfile(folder / name) for name in images)), first
    )


def _pairs(
    pairs: Sequence[tuple[Path, str]],
    root: Root,
    name: str,
    missing_images: MissingPolicy,
    source: Path,
    expected: int | None = None,
) -> tuple[ImageCaptionPairs, list[int]]:
    """Build pairs from rows (image, caption), and return them with the numbers of the kept rows."""
    # Imported here, so that a page that only reads results starts without it.
    import torch

    expected = len(pairs) if expected is None else expected
    # Too many rows are another file, which `missing_images="drop"` does not excuse.
    if len(pairs) > expected:
        validate_row_count(source, len(pairs), expected, ())
    folder = _image_folder(root, [image for image, _ in pairs])
    files = [folder / image for image, _ in pairs]
    errors = (
        {}
        if missing_images == "ignore"
        else {
            # Each image once. All are decoded only where a broken one is to be left out.
            path: image_problem(path, decode=missing_images == "drop")
            for path in dict.fromkeys(files)
        }
    )
    keep = [row for row, path in enumerate(files) if not errors.get(path)]
    left_out = [(f"row {row}", errors[path]) for row, path in enumerate(files) if errors.get(path)]
    if missing_images == "drop":
        log_left_out(name, source, len(keep), expected, left_out)
    else:
        validate_row_count(source, len(pairs), expected, left_out)
    # Images are numbered in the order in which the kept rows name them.
    numbers: dict[Path, int] = {}
    index = torch.tensor(
        [numbers.setdefault(files[row], len(numbers)) for row in keep], dtype=torch.long
    )
    captions = [pairs[row][1] for row in keep]
    return ImageCaptionPairs(list(numbers), captions, index, name, len(keep), expected), keep
