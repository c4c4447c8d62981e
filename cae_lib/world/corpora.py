"""Write the datasets of captions.

They are COCO with NegCLIP's files, Flickr30k, the pretraining corpus, and text similarity.

What is swapped in NegCLIP's hard negatives follows from the ground-truth roles, and the result is
false of the image.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from cae_lib.data.similarity import SICKR, STSB
from cae_lib.world import layouts
from cae_lib.world.config import WorldConfig
from cae_lib.world.draw import IMAGE_SIZE, Picture
from cae_lib.world.edits import certainly_false, exchanges
from cae_lib.world.grammar import CaptionStyle, Statement, canonical, describe, gold_spans
from cae_lib.world.layouts import Export, coco_captions
from cae_lib.world.scenes import Rng, Scene, again, generator, sample_scene, text_generator
from cae_lib.world.vocabulary import COLORS, RELATIONS, admits

RESTVAL = 4  # of so many training pictures one is "restval": it lies in val2014, as in COCO
MAX_NEGATIVES, N_SIMILAR = 5, 3
SIZE = IMAGE_SIZE, IMAGE_SIZE
YEARS = {"STS12": "MSRvid", "STS14": "images", "STS15": "images"}  # and the part with captions
UNSCORED = 5  # in STS15 one pair of so many has no score, as most pairs of the real set
TRAINING_SHARE = 4
SIMILARITY_LEFT_OUT = {
    **dict.fromkeys(("STS13", "STS16"), "the real set has no captions"),
    "STS12, STS14, STS15, other parts": "the real parts have no captions",
}


@dataclass(frozen=True)
class Described(layouts.Captioned):
    """An image of a corpus, with the scene that it shows and its captions in parts."""

    scene: Scene
    gold: Sequence[Statement]


Corpus = Sequence[Described]


def coco_pictures(config: WorldConfig, split: str) -> Corpus:
    """Return the images of "train" (with "restval"), "val" or "test", numbered consecutively."""
    sizes = config.sizes
    first = 1 + {"train": 0, "val": sizes.train, "test": sizes.train + sizes.val}[split]
    paths = {}
    for number in range(first, first + getattr(sizes, split)):
        folder = "train2014" if number <= sizes.train - sizes.train // RESTVAL else "val2014"
        paths[number] = f"{folder}/COCO_{folder}_{number:012d}.jpg"
    return _describe(config, split, config.coco, sizes.captions, paths)


def export_coco(config: WorldConfig) -> Export:
    """Export COCO's folder: train2014, val2014 and every annotation file that the experiments read.

    NegCLIP's files have five captions of every image instead of one, and some without a hard
    negative.
    """
    both, val, test = (coco_pictures(config, split) for split in ("train", "val", "test"))
    cut = len(both) - len(both) // RESTVAL
    splits = {"train": both[:cut], "restval": both[cut:], "val": val, "test": test}
    export = _export("coco", "coco/", splits)
    export.texts["coco/dataset_coco.json"] = layouts.karpathy("coco", splits)
    for split in ("val", "test"):
        export.texts[f"coco/coco_karpathy_{split}.json"] = layouts.caption_list(splits[split])
    for name, corpus in {"train2014": both[:cut], "val2014": [*both[cut:], *val, *test]}.items():
        export.texts[f"coco/annotations/captions_{name}.json"] = coco_captions(corpus, *SIZE)
        export.texts[f"coco/annotations/scene_graphs_{name}.json"] = scene_graphs(corpus)
    for name, corpus in {"train_neg_clip": both, "valid_neg_clip": val}.items():
        rows = negclip_rows(corpus, config.scenes.seed)
        export.texts[f"coco/{name}.tsv"] = layouts.negclip(rows)
        without = sum(not false for _, _, false, _ in rows)
        export.counts[name] = {"rows": len(rows), "without_negative": without}
    return export


def export_flickr30k(config: WorldConfig) -> Export:
    """Export Karpathy's test split of Flickr30k, in a drawing style that no training image has."""
    sizes = config.sizes
    paths = {n: f"flickr30k-images/{n}.jpg" for n in range(1, sizes.flickr_test + 1)}
    corpus = _describe(config, "flickr30k", config.coco, sizes.captions, paths, "poster")
    export = _export("flickr30k", "flickr30k/", {"test": corpus})
    dataset = layouts.karpathy("flickr30k", {"test": corpus})
    export.texts["flickr30k/flickr30k_test.json"] = layouts.caption_list(corpus)
    export.texts["flickr30k/dataset_flickr30k.json"] = dataset
    export.texts["flickr30k/scene_graphs_test.json"] = scene_graphs(corpus)
    return export


def export_pretrain(config: WorldConfig) -> Export:
    """Export the pretraining corpus, images with sparse captions, relative to its own folder."""
    sizes = config.sizes
    paths = {n: f"images/{n:012d}.jpg" for n in range(1, sizes.pretrain + 1)}
    corpus = _describe(config, "pretrain", config.web, sizes.pretrain_captions, paths)
    export = _export("pretrain", "", {"all": corpus})
    export.counts = export.counts["all"]
    export.texts["annotations/captions_pretrain.json"] = coco_captions(corpus, *SIZE)
    return export


def _export(name: str, folder: str, splits: Mapping[str, Corpus]) -> Export:
    """Export a corpus without its texts."""
    export = Export(name)
    for split, corpus in splits.items():
        n_captions = sum(len(item.captions) for item in corpus)
        export.counts[split] = {"pictures": len(corpus), "captions": n_captions}
        export.pictures |= {folder + item.path: Picture([item.scene]) for item in corpus}
    return export


def scene_graphs(corpus: Corpus) -> str:
    """Return the ground truth of COCO's captions: the scenes of images and the facts of captions.

    Both are listed under the ids that they have in COCO's files.
    """
    pictures = []
    for item in corpus:
        things = [asdict(thing) for thing in item.scene.content.things]
        places = [asdict(place) for place in item.scene.placements]
        for place in places:
            place |= {name: round(v, 4) for name, v in place.items() if isinstance(v, float)}
        image = {"id": item.number, "file_name": item.name, "things": things}
        image |= {"relation": item.scene.content.relation, "placements": places}
        nouns = [thing["noun"] for thing in things]
        pictures.append((image, [_gold(caption, nouns) for caption in item.gold]))
    return layouts.coco(pictures)


def _gold(caption: Statement, nouns: list[str]) -> dict[str, Any]:
    said = [(nouns.index(mention.noun), mention) for mention in caption.mentions]
    return {
        "spans": [[span.start, span.end, span.role] for span in gold_spans(caption)],
        "objects": [number for number, _ in said],
        "attributes": [(number, word) for number, mention in said for word in mention.attributes],
        "relations": [(0, caption.relation, 1)] if caption.relation else [],
    }


def negclip_rows(corpus: Corpus, seed: int) -> list[tuple[str, str, list[str], list[int]]]:
    """Return NegCLIP's rows, one for each caption.

    Similar images share both main nouns; where there are too few of these, they share one noun or
    none.
    """
    groups: dict[frozenset[str], list[int]] = defaultdict(list)
    keys = []
    for position, item in enumerate(corpus):
        a, b = (thing.noun for thing in item.scene.content.things[:2])
        keys.append([frozenset(nouns) for nouns in ((a, b), (a,), (b,), ())])
        for key in keys[-1]:
            groups[key].append(position)
    rows = []
    for position, item in enumerate(corpus):
        rng = generator(seed, "similar", item.number)
        similar: list[int] = []
        for group in (groups[key] for key in keys[position]):
            if len(similar) == N_SIMILAR:  # as for nearly all, before the group of all pictures
                break
            fresh = [other for other in group if other != position and other not in similar]
            wanted = min(N_SIMILAR - len(similar), len(fresh))
            if wanted:
                similar += map(int, rng.choice(fresh, wanted, replace=False))
        for caption in item.gold:
            false = certainly_false(exchanges(caption), item.scene, caption.text, MAX_NEGATIVES)
            numbers = [len(item.gold) * i + int(rng.integers(len(item.gold))) for i in similar]
            rows.append((caption.text, f"coco/{item.path}", [foil.text for foil in false], numbers))
    return rows


def _describe(
    config: WorldConfig,
    split: str,
    style: CaptionStyle,
    n_captions: int,
    paths: dict[int, str],
    drawing: str = "plain",
) -> Corpus:
    """Sample the scenes of a split with captions, one scene for each number and path of `paths`."""
    described = []
    for index, (number, path) in enumerate(paths.items()):
        scene = sample_scene(config.scenes, split, index, drawing)
        rng = text_generator(config.scenes, split, index)
        gold = [describe(scene, style, rng) for _ in range(n_captions)]
        described.append(Described(number, path, [text.text for text in gold], scene, gold))
    return described


def export_similarity(config: WorldConfig) -> Export:
    """Export three years of STS, STS-B and SICK, relative to the folder of these datasets.

    The score of a pair depends on the facts that its captions share; no people scored them.
    """
    n = config.sizes.similarity
    export = Export("similarity", left_out=SIMILARITY_LEFT_OUT)
    for year, part in YEARS.items():
        sparse = year == "STS15"
        size = n * UNSCORED // (UNSCORED - 1) + 1 if sparse else n
        rows = [(a, b, 5 * f) for a, b, f in _pairs(config, year, size)]
        if sparse:
            rows[::UNSCORED] = [(a, b, None) for a, b, _ in rows[::UNSCORED]]
        export.texts |= layouts.similarity(year, part, rows)
        export.counts[year] = sum(gold is not None for *_, gold in rows)
    for split in ("train", "dev", "test"):
        size = n if split == "test" else n // TRAINING_SHARE
        pairs = enumerate(_pairs(config, f"STS-B/{split}", size))
        rows = [(a, b, 5 * f, *["drawn"] * (i % 4 == 3)) for i, (a, b, f) in pairs]
        export.texts |= layouts.similarity(STSB, split, rows, "small world")
        rows = [(a, b, 1 + 4 * f) for a, b, f in _pairs(config, f"SICK/{split}", size)]
        export.texts |= layouts.similarity(SICKR, split, rows)
        export.counts |= {f"{STSB}/{split}": size, f"{SICKR}/{split}": size}
    return export


def facts(caption: Statement) -> frozenset[tuple[str, ...]]:
    """Return the nouns, adjectives and relation of a caption.

    "a right of b" counts as the fact "b left of a".
    """
    said: set[tuple[str, ...]] = {(mention.noun,) for mention in caption.mentions}
    said |= {(mention.noun, word) for mention in caption.mentions for word in mention.attributes}
    if caption.relation is not None:
        first, second = (mention.noun for mention in caption.mentions[:2])
        name, turned = canonical(caption.relation)
        said.add((second, name, first) if turned else (first, name, second))
    return frozenset(said)


def f_score(first: frozenset[tuple[str, ...]], second: frozenset[tuple[str, ...]]) -> float:
    """Return the harmonic mean of precision and recall between the facts of two captions."""
    return 2 * len(first & second) / (len(first) + len(second))


def _pairs(config: WorldConfig, split: str, n: int) -> list[tuple[str, str, float]]:
    """Return `n` pairs of captions with their F-scores.

    The pairs cycle from two captions of one image to captions of unrelated images.
    """
    pairs = []
    for index in range(n):
        rng = text_generator(config.scenes, f"similarity/{split}", index)
        scene = sample_scene(config.scenes, f"similarity/{split}", index)
        other = _changed(scene, index % 5, rng)
        if other is None:
            other = sample_scene(config.scenes, f"similarity/{split}/other", index)
        first, second = (describe(shown, config.sentences, rng) for shown in (scene, other))
        if rng.random() >= 0.5:
            first, second = second, first
        pairs.append((first.text, second.text, f_score(facts(first), facts(second))))
    return pairs


def _changed(scene: Scene, kind: int, rng: Rng) -> Scene | None:
    """Return the scene unchanged or with one change, depending on `kind`.

    Args:
        scene: The scene.
        kind: 0 changes nothing; 1 swaps the arguments, or the colours if the arguments cannot be
            swapped; 2 changes a colour; 3 changes the relation; others give None.
        rng: Source of random numbers.
    """
    content = scene.content
    if kind == 1:
        return again(scene, content.exchanged(*([] if content.swappable() else ["color"])))
    if kind == 2:
        which = int(rng.integers(2))
        colors = [color for color in COLORS if color != content.things[which].color]
        return again(scene, content.with_thing(which, color=str(rng.choice(colors))))
    if kind == 3:
        a, b = (thing.noun for thing in content.things[:2])
        names = [name for name in RELATIONS if name != content.relation and admits(a, name, b)]
        return again(scene, replace(content, relation=str(rng.choice(names))))
    return scene if kind == 0 else None
