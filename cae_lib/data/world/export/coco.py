"""COCO: captions, Karpathy's splits, NegCLIP's files, and gold scene graphs beside them."""

from __future__ import annotations

from collections.abc import Iterator

from cae_lib.data.world.config import WorldConfig
from cae_lib.data.world.export.corpora import (
    Described,
    caption_list,
    coco_captions,
    describe_split,
    karpathy,
)
from cae_lib.data.world.export.files import Export
from cae_lib.data.world.export.negclip import negclip_rows, negclip_tsv

RESTVAL = 4
"""Of so many training pictures one is "restval": it lies in val2014, as in COCO."""


def export_coco(config: WorldConfig) -> tuple[Export, list[Described]]:
    """Write COCO's folder: train2014, val2014 and every annotation file of the experiments.

    Karpathy's "restval" pictures are the last quarter of the training pictures; they and the
    pictures of val and test lie in val2014. Departures from the real files: five captions of every
    picture stand in NegCLIP's files, not one; `neg_caption` is an empty list where no exchange
    makes the caption false.

    Returns:
        The set, and the pictures of the test split with their captions.
    """
    splits = _splits(config)
    export = Export("coco")
    annotations = "coco/annotations"
    folders = {"train2014": splits["train"], "val2014": []}
    for split in ("restval", "val", "test"):
        folders["val2014"] += splits[split]
    for folder, corpus in folders.items():
        export.pictures += [item.picture for item in corpus]
        export.add_json(f"{annotations}/captions_{folder}.json", coco_captions(corpus))
        graphs = coco_captions(corpus, graphs=True)
        export.add_json(f"{annotations}/scene_graphs_{folder}.json", graphs)
    assigned = [(item, split) for split, corpus in splits.items() for item in corpus]
    export.add_json("coco/dataset_coco.json", karpathy("coco", assigned, folders=True))
    for split in ("val", "test"):
        export.add_json(f"coco/coco_karpathy_{split}.json", caption_list(splits[split], "coco"))
    export.counts = {name: _count(corpus) for name, corpus in splits.items()}
    for name, corpus in (("train", splits["train"] + splits["restval"]), ("valid", splits["val"])):
        rows = negclip_rows(corpus, config.scenes.seed)
        export.texts[f"coco/{name}_neg_clip.tsv"] = negclip_tsv(rows)
        empty = sum(not row.negatives for row in rows)
        export.counts[f"{name}_neg_clip"] = {"rows": len(rows), "without_negative": empty}
    return export, splits["test"]


def _splits(config: WorldConfig) -> dict[str, list[Described]]:
    """Pictures of train, restval, val and test, numbered through."""
    sizes = config.sizes
    rest = sizes.train // RESTVAL
    result: dict[str, list[Described]] = {}
    first = 1
    for split, folder, n in (
        ("train", "train2014", sizes.train),
        ("val", "val2014", sizes.val),
        ("test", "val2014", sizes.test),
    ):
        places = list(_places(folder, first, n))
        if split == "train":
            places[n - rest :] = _places("val2014", first + n - rest, rest)
        first += n
        result[split] = describe_split(config.scenes, split, config.coco, sizes.captions, places)
    train = result["train"]
    cut = len(train) - rest
    return {"train": train[:cut], "restval": train[cut:]} | {k: result[k] for k in ("val", "test")}


def _places(folder: str, first: int, n: int) -> Iterator[tuple[int, str, str]]:
    for number in range(first, first + n):
        yield number, f"coco/{folder}", f"COCO_{folder}_{number:012d}.jpg"


def _count(corpus: list[Described]) -> dict[str, int]:
    return {"pictures": len(corpus), "captions": sum(len(item.captions) for item in corpus)}
