"""The corpora of captions: COCO, Flickr30k and the pretraining corpus, with gold scene graphs.

NegCLIP's files lie with COCO's. Yuksekgonul et al. 2023 found the parts to exchange with a parser;
here they come from the gold roles, and only those exchanges are kept that are false of the picture.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from cae_lib.world.config import WorldConfig
from cae_lib.world.draw import IMAGE_SIZE
from cae_lib.world.export import Export
from cae_lib.world.foils import certainly_false, exchanges
from cae_lib.world.grammar import Caption, CaptionStyle, captions
from cae_lib.world.scenes import Scene, SceneConfig, generator, sample_scene, text_generator
from cae_lib.world.statements import read

RESTVAL = 4
"""Of so many training pictures one is "restval": it lies in val2014, as in COCO."""

MAX_NEGATIVES = 5
N_SIMILAR = 3
FLICKR = "flickr30k/flickr30k-images"


@dataclass(frozen=True)
class Described:
    """A picture of a corpus.

    Attributes:
        number: Its id.
        folder: Folder of the file, in the world's folder.
        filename: Name of the file.
        scene: What it shows.
        captions: Its captions with their gold roles.
    """

    number: int
    folder: str
    filename: str
    scene: Scene
    captions: tuple[Caption, ...]

    @property
    def path(self) -> str:
        """Place of the file in the world's folder."""
        return f"{self.folder}/{self.filename}"

    @property
    def texts(self) -> list[str]:
        """The captions alone."""
        return [caption.text for caption in self.captions]


Corpus = Sequence[Described]


def export_coco(config: WorldConfig) -> tuple[Export, Corpus]:
    """COCO's folder: train2014, val2014 and every annotation file of the experiments.

    Karpathy's "restval" pictures are the last quarter of the training pictures; they and the
    pictures of val and test lie in val2014. Departures from the real files: five captions of every
    picture stand in NegCLIP's files, not one; `neg_caption` is an empty list where no exchange
    makes the caption false.

    Returns:
        The set, and the pictures of the test split with their captions.
    """
    splits = _coco_splits(config)
    train, rest, val, test = splits.values()
    export = Export("coco")
    for folder, corpus in {"train2014": train, "val2014": [*rest, *val, *test]}.items():
        _show(export, corpus)
        export.json(f"coco/annotations/captions_{folder}.json", coco_captions(corpus))
        graphs = coco_captions(corpus, graphs=True)
        export.json(f"coco/annotations/scene_graphs_{folder}.json", graphs)
    export.json("coco/dataset_coco.json", _karpathy("coco", splits))
    export.json("coco/coco_karpathy_val.json", _caption_list(val))
    export.json("coco/coco_karpathy_test.json", _caption_list(test))
    export.counts = {name: _count(corpus) for name, corpus in splits.items()}
    for name, corpus in (("train", [*train, *rest]), ("valid", val)):
        rows = negclip_rows(corpus, config.scenes.seed)
        export.texts[f"coco/{name}_neg_clip.tsv"] = rows.to_csv(sep="\t", lineterminator="\n")
        empty = int((rows["neg_caption"].str.len() == 0).sum())
        export.counts[f"{name}_neg_clip"] = {"rows": len(rows), "without_negative": empty}
    return export, test


def export_flickr30k(config: WorldConfig) -> Export:
    """Flickr30k: Karpathy's test split, in a style of drawing that no training picture has."""
    places = ((n, FLICKR, f"{n}.jpg") for n in range(1, config.sizes.flickr_test + 1))
    n_captions = config.sizes.captions
    corpus = _describe(config.scenes, "flickr30k", config.coco, n_captions, places, "poster")
    export = Export("flickr30k", counts={"test": _count(corpus)})
    _show(export, corpus)
    export.json("flickr30k/flickr30k_test.json", _caption_list(corpus))
    export.json("flickr30k/dataset_flickr30k.json", _karpathy("flickr30k", {"test": corpus}))
    export.json("flickr30k/scene_graphs_test.json", coco_captions(corpus, graphs=True))
    return export


def export_pretrain(config: WorldConfig) -> Export:
    """The pretraining corpus, relative to its own folder: pictures with sparse captions."""
    places = ((n, "images", f"{n:012d}.jpg") for n in range(1, config.sizes.pretrain + 1))
    n_captions = config.sizes.pretrain_captions
    corpus = _describe(config.scenes, "pretrain", config.web, n_captions, places)
    export = Export("pretrain", counts=_count(corpus))
    _show(export, corpus)
    export.json("annotations/captions_pretrain.json", coco_captions(corpus))
    return export


def coco_captions(corpus: Corpus, graphs: bool = False) -> dict[str, Any]:
    """COCO's layout of captions; with `graphs` instead the gold beside it, under the same ids.

    The gold of a picture is its things, its main relation (between things 0 and 1) and its
    placements; that of a caption its roles as `[start, end, role]` and the facts it states.
    """
    images, annotations = [], []
    for item in corpus:
        images.append({"id": item.number, "file_name": item.filename})
        images[-1] |= _graph(item.scene) if graphs else {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
        for caption in item.captions:
            entry = {"id": len(annotations) + 1, "image_id": item.number}
            annotations.append(entry | (_gold(caption) if graphs else {"caption": caption.text}))
    return {"images": images, "annotations": annotations}


def negclip_rows(corpus: Corpus, seed: int) -> pd.DataFrame:
    """NegCLIP's table, one row for each caption of a corpus of equally many captions a picture.

    Columns: `title`, the caption; `filepath`; `neg_caption`, its false captions; `neg_image`,
    numbers of rows whose pictures are similar.
    """
    rows = []
    for position, (item, groups) in enumerate(zip(corpus, _alike(corpus), strict=True)):
        rng = generator(seed, "similar", item.number)
        similar = _similar(groups, position, rng)
        size = len(item.captions)
        for caption in item.captions:
            swaps = exchanges(read(caption, item.scene.content))
            false = certainly_false(swaps, item.scene, caption.text, MAX_NEGATIVES)
            numbers = [other * size + int(rng.integers(size)) for other in similar]
            rows.append((caption.text, item.path, [foil.text for foil in false], numbers))
    return pd.DataFrame(rows, columns=["title", "filepath", "neg_caption", "neg_image"])


def _alike(corpus: Corpus) -> list[list[Sequence[int]]]:
    """For each picture groups ever less alike: with its main nouns, with one of them, any."""
    nouns = [[thing.noun for thing in item.scene.content.things[:2]] for item in corpus]
    groups: dict[frozenset[str], list[int]] = defaultdict(list)
    for position, (a, b) in enumerate(nouns):
        for key in ({a, b}, {a}, {b}):
            groups[frozenset(key)].append(position)
    everything = range(len(corpus))
    return [[*(groups[frozenset(key)] for key in ({a, b}, {a}, {b})), everything] for a, b in nouns]


def _similar(groups: Sequence[Sequence[int]], position: int, rng: np.random.Generator) -> list[int]:
    """Positions of three similar pictures (fewer in a corpus of fewer than four)."""
    found: list[int] = []
    for group in groups:
        fresh = [other for other in group if other != position and other not in found]
        wanted = min(N_SIMILAR - len(found), len(fresh))
        found += [int(other) for other in rng.choice(fresh, wanted, replace=False)]
        if len(found) == N_SIMILAR:
            break
    return found


def _coco_splits(config: WorldConfig) -> dict[str, Corpus]:
    """Pictures of train, restval, val and test, numbered through."""
    sizes = config.sizes
    cut = sizes.train - sizes.train // RESTVAL
    result: dict[str, Corpus] = {}
    first = 1
    for split, n in (("train", sizes.train), ("val", sizes.val), ("test", sizes.test)):
        places = []
        for number in range(first, first + n):
            folder = "train2014" if split == "train" and number <= cut else "val2014"
            places.append((number, f"coco/{folder}", f"COCO_{folder}_{number:012d}.jpg"))
        result[split] = _describe(config.scenes, split, config.coco, sizes.captions, places)
        first += n
    train = result.pop("train")
    return {"train": train[:cut], "restval": train[cut:], **result}


def _describe(
    config: SceneConfig,
    split: str,
    style: CaptionStyle,
    n_captions: int,
    places: Iterable[tuple[int, str, str]],
    drawing: str = "plain",
) -> Corpus:
    """The scenes of a split with captions, one for each `(id, folder, file name)` of `places`."""
    described = []
    for index, place in enumerate(places):
        scene = sample_scene(config, split, index, drawing)
        texts = captions(scene, style, text_generator(config, split, index), n_captions)
        described.append(Described(*place, scene, tuple(texts)))
    return described


def _show(export: Export, corpus: Corpus) -> None:
    for item in corpus:
        export.show(item.path, item.scene)


def _count(corpus: Corpus) -> dict[str, int]:
    return {"pictures": len(corpus), "captions": sum(len(item.captions) for item in corpus)}


def _karpathy(name: str, splits: dict[str, Corpus]) -> dict[str, Any]:
    """Karpathy's layout for pictures and their splits; COCO's has the pictures' folders, too."""
    images: list[dict[str, Any]] = []
    number = 0
    for item, split in ((item, split) for split, corpus in splits.items() for item in corpus):
        position = len(images)
        sentences = [
            {"raw": text, "tokens": text.split(), "imgid": position, "sentid": sentence}
            for sentence, text in enumerate(item.texts, start=number)
        ]
        numbers = list(range(number, number + len(sentences)))
        number += len(sentences)
        entry = {"filename": item.filename, "imgid": position, "split": split}
        entry |= {"sentids": numbers, "sentences": sentences}
        if name == "coco":
            entry |= {"filepath": item.folder.rpartition("/")[2], "cocoid": item.number}
        images.append(entry)
    return {"dataset": name, "images": images}


def _caption_list(corpus: Corpus) -> list[dict[str, Any]]:
    """The list that BLIP and ARO read, pictures relative to the corpus's folder."""
    return [{"image": item.path.partition("/")[2], "caption": item.texts} for item in corpus]


def _graph(scene: Scene) -> dict[str, Any]:
    places = [
        {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(place).items()}
        for place in scene.placements
    ]
    things = [asdict(thing) for thing in scene.content.things]
    return {"things": things, "relation": scene.content.relation, "placements": places}


def _gold(caption: Caption) -> dict[str, Any]:
    gold = {name: getattr(caption, name) for name in ("objects", "attributes", "relations")}
    return {"spans": [[span.start, span.end, span.role] for span in caption.spans], **gold}
