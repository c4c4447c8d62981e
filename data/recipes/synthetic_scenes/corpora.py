"""Write COCO with NegCLIP's files, Flickr30k, the pretraining corpus, and text similarity."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from cae_bench.similarity import SICKR, SPLIT_FILES, STSB
from data.recipes import layouts
from data.recipes.datasets import Dataset
from data.recipes.layouts import Captioned
from data.recipes.synthetic_scenes.config import WorldConfig
from data.recipes.synthetic_scenes.draw import IMAGE_SIZE, Drawing
from data.recipes.synthetic_scenes.edits import certainly_false, swaps
from data.recipes.synthetic_scenes.grammar import (
    CaptionStyle,
    Statement,
    canonical,
    describe,
    true_spans,
)
from data.recipes.synthetic_scenes.scenes import (
    Rng,
    Scene,
    generator,
    rearranged,
    sample_scene,
    text_generator,
)
from data.recipes.synthetic_scenes.vocabulary import COLORS, RELATIONS, admits

# One of so many training images is "restval": it lies in val2014, as in COCO.
RESTVAL = 4
MAX_NEGATIVES, N_SIMILAR = 5, 3
# Years of STS, with the part that has captions.
YEARS = {"STS12": "MSRvid", "STS14": "images", "STS15": "images"}
# One of so many pairs of STS15 has no score, as most pairs of the real set.
UNSCORED = 5
# Splits for training have so many times fewer pairs than test splits.
TRAINING_SHARE = 4
SICK_HEADER = ("pair_ID", "sentence_A", "sentence_B", "relatedness_score", "entailment_judgment")


@dataclass(frozen=True)
class Described(Captioned):
    """An image of a corpus, with the scene that it shows and its captions in parts."""

    scene: Scene
    statements: Sequence[Statement]


Corpus = Sequence[Described]


def coco_images(config: WorldConfig, split: str) -> Corpus:
    """Return the images of "train" (with "restval"), "val" or "test"."""
    sizes = config.sizes
    # Ids are numbered through all splits, since COCO's files share them.
    first = 1 + {"train": 0, "val": sizes.train, "test": sizes.train + sizes.val}[split]
    paths = {}
    for number in range(first, first + getattr(sizes, split)):
        folder = "train2014" if number <= sizes.train - sizes.train // RESTVAL else "val2014"
        paths[number] = f"{folder}/COCO_{folder}_{number:012d}.jpg"
    return _describe(config, split, config.coco, sizes.captions, paths)


def export_coco(config: WorldConfig) -> Dataset:
    """Export COCO's folder: train2014, val2014 and every annotation file that the experiments read.

    NegCLIP's files have all captions of each image, instead of one, and some without a negative.
    """
    both, val, test = (coco_images(config, split) for split in ("train", "val", "test"))
    cut = len(both) - len(both) // RESTVAL
    splits = {"train": both[:cut], "restval": both[cut:], "val": val, "test": test}
    dataset = _drawn("coco", "coco/", splits)
    dataset.texts["coco/dataset_coco.json"] = karpathy("coco", splits)
    for split in ("val", "test"):
        dataset.texts[f"coco/coco_karpathy_{split}.json"] = layouts.caption_list(splits[split])
    for name, corpus in {"train2014": both[:cut], "val2014": [*both[cut:], *val, *test]}.items():
        dataset.texts[f"coco/annotations/captions_{name}.json"] = captions(corpus)
        dataset.texts[f"coco/annotations/scene_graphs_{name}.json"] = scene_graphs(corpus)
    for name, corpus in {"train_neg_clip": both, "valid_neg_clip": val}.items():
        rows = negclip_rows(corpus, config.scenes.seed)
        dataset.texts[f"coco/{name}.tsv"] = layouts.negclip(rows)
        without = sum(not false for _, _, false, _ in rows)
        dataset.counts[name] = {"rows": len(rows), "without_negative": without}
    return dataset


def export_flickr30k(config: WorldConfig) -> Dataset:
    """Export Karpathy's test split of Flickr30k, in a drawing style that no training image has."""
    sizes = config.sizes
    paths = {n: f"flickr30k-images/{n}.jpg" for n in range(1, sizes.flickr_test + 1)}
    corpus = _describe(config, "flickr30k", config.coco, sizes.captions, paths, "poster")
    dataset = _drawn("flickr30k", "flickr30k/", {"test": corpus})
    dataset.texts["flickr30k/flickr30k_test.json"] = layouts.caption_list(corpus)
    dataset.texts["flickr30k/dataset_flickr30k.json"] = karpathy("flickr30k", {"test": corpus})
    dataset.texts["flickr30k/scene_graphs_test.json"] = scene_graphs(corpus)
    return dataset


def export_order(config: WorldConfig) -> Dataset:
    """Count the captions whose words ARO's datasets of word order shuffle; they have no files."""
    n = {"coco": config.sizes.test, "flickr30k": config.sizes.flickr_test}
    return Dataset("order", counts={name: k * config.sizes.captions for name, k in n.items()})


def export_pretrain(config: WorldConfig) -> Dataset:
    """Export the pretraining corpus, images with sparse captions, relative to its own folder."""
    sizes = config.sizes
    paths = {n: f"images/{n:012d}.jpg" for n in range(1, sizes.pretrain + 1)}
    corpus = _describe(config, "pretrain", config.web, sizes.pretrain_captions, paths)
    dataset = _drawn("pretrain", "", {"all": corpus})
    dataset.counts = dataset.counts["all"]
    dataset.texts["annotations/captions_pretrain.json"] = captions(corpus)
    return dataset


def _describe(
    config: WorldConfig,
    split: str,
    style: CaptionStyle,
    n_captions: int,
    paths: dict[int, str],
    drawing: str = "plain",
) -> Corpus:
    """Sample the scenes of a split, one for each number and path of `paths`, with captions."""
    corpus = []
    for index, (number, path) in enumerate(paths.items()):
        scene = sample_scene(config.scenes, split, index, drawing)
        rng = text_generator(config.scenes, split, index)
        statements = [describe(scene, style, rng) for _ in range(n_captions)]
        texts = [statement.text for statement in statements]
        corpus.append(Described(number, path, texts, scene, statements))
    return corpus


def _drawn(name: str, folder: str, splits: Mapping[str, Corpus]) -> Dataset:
    """Return a dataset with the images and counts of splits, and without texts."""
    dataset = Dataset(name)
    for split, corpus in splits.items():
        n_captions = sum(len(item.captions) for item in corpus)
        dataset.counts[split] = {"pictures": len(corpus), "captions": n_captions}
        dataset.images |= {folder + item.path: Drawing([item.scene]) for item in corpus}
    return dataset


def captions(corpus: Corpus) -> str:
    """Return COCO's annotation file of captions."""
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    return layouts.coco(
        (
            {"id": item.number, "file_name": item.name} | size,
            [{"caption": text} for text in item.captions],
        )
        for item in corpus
    )


def scene_graphs(corpus: Corpus) -> str:
    """Return the scenes of images and the facts of captions, under the ids of COCO's files."""
    graphs = []
    for item in corpus:
        things = [asdict(thing) for thing in item.scene.content.things]
        placements = [
            {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(placement).items()}
            for placement in item.scene.placements
        ]
        image = {
            "id": item.number,
            "file_name": item.name,
            "things": things,
            "relation": item.scene.content.relation,
            "placements": placements,
        }
        nouns = [thing["noun"] for thing in things]
        graphs.append((image, [_graph(statement, nouns) for statement in item.statements]))
    return layouts.coco(graphs)


def _graph(caption: Statement, nouns: list[str]) -> dict[str, Any]:
    mentions = [(nouns.index(mention.noun), mention) for mention in caption.mentions]
    return {
        "spans": [[span.start, span.end, span.role] for span in true_spans(caption)],
        "objects": [number for number, _ in mentions],
        "attributes": [(number, word) for number, one in mentions for word in one.attributes],
        "relations": [(0, caption.relation, 1)] if caption.relation else [],
    }


def karpathy(dataset: str, splits: Mapping[str, Corpus]) -> str:
    """Return Karpathy's file of images and their splits; for "coco" it names their folders, too."""
    images: list[dict[str, Any]] = []
    ids = itertools.count()
    for split, item in ((name, item) for name, corpus in splits.items() for item in corpus):
        number = {"imgid": len(images)}
        sentences = [
            {"raw": text, "tokens": text.split(), **number, "sentid": next(ids)}
            for text in item.captions
        ]
        image = {"filename": item.name, **number, "split": split}
        image |= {"sentids": [each["sentid"] for each in sentences], "sentences": sentences}
        if dataset == "coco":
            image |= {"filepath": item.path.rpartition("/")[0], "cocoid": item.number}
        images.append(image)
    return layouts.to_json({"dataset": dataset, "images": images})


def negclip_rows(corpus: Corpus, seed: int) -> list[tuple[str, str, list[str], list[int]]]:
    """Return NegCLIP's rows, one for each caption."""
    # Similar images share both main nouns; where these are too few, one noun or none.
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
            # Nearly always before the group of all images, which is slow to search.
            if len(similar) == N_SIMILAR:
                break
            fresh = [other for other in group if other != position and other not in similar]
            n = min(N_SIMILAR - len(similar), len(fresh))
            if n:
                similar += map(int, rng.choice(fresh, n, replace=False))
        # Swaps follow from the ground truth, and are certain to be false of the image.
        for caption in item.statements:
            false = certainly_false(swaps(caption), item.scene, caption.text, MAX_NEGATIVES)
            n = len(item.statements)
            # Rows are grouped by image, n for each: any caption of a similar image.
            numbers = [n * i + int(rng.integers(n)) for i in similar]
            rows.append(
                (caption.text, f"coco/{item.path}", [other.text for other in false], numbers)
            )
    return rows


def export_similarity(config: WorldConfig) -> Dataset:
    """Export three years of STS, STS-B and SICK, whose scores are made from `f_score`."""
    n, dataset = config.sizes.similarity, Dataset("similarity")
    dataset.left_out = {
        **dict.fromkeys(("STS13", "STS16"), "the real set has no captions"),
        "STS12, STS14, STS15, other parts": "the real parts have no captions",
    }
    for year, part in YEARS.items():
        sparse = year == "STS15"
        # Large enough for n pairs with a score.
        size = n * UNSCORED // (UNSCORED - 1) + 1 if sparse else n
        pairs = _pairs(config, year, size)
        scores = [f"{5 * f:.3f}" for _, _, f in pairs]
        if sparse:
            scores[::UNSCORED] = [""] * len(scores[::UNSCORED])
        path = f"STS/{year}-en-test/STS"
        dataset.texts[f"{path}.input.{part}.txt"] = layouts.to_tabs(pair[:2] for pair in pairs)
        dataset.texts[f"{path}.gs.{part}.txt"] = layouts.to_tabs([score] for score in scores)
        dataset.counts[year] = sum(map(bool, scores))
    for split in ("train", "dev", "test"):
        size = n if split == "test" else n // TRAINING_SHARE
        pairs = enumerate(_pairs(config, f"STS-B/{split}", size))
        # As in the real files, some rows have further columns, which loaders have to ignore.
        rows = [(a, b, 5 * f, *["drawn"] * (i % 4 == 3)) for i, (a, b, f) in pairs]
        dataset.texts |= layouts.stsb(split, rows, "small world")
        dataset.texts[SPLIT_FILES[SICKR][split]] = sick(_pairs(config, f"SICK/{split}", size))
        dataset.counts |= {f"{STSB}/{split}": size, f"{SICKR}/{split}": size}
    return dataset


def sick(pairs: Iterable[tuple[str, str, float]]) -> str:
    """Return SICK's file of pairs of captions with their F-scores, from 1 to 5."""
    rows = [
        (str(number), first, second, f"{1 + 4 * f:.3f}", "NEUTRAL")
        for number, (first, second, f) in enumerate(pairs, start=1)
    ]
    return layouts.to_tabs([SICK_HEADER, *rows])


def facts(caption: Statement) -> frozenset[tuple[str, ...]]:
    """Return the nouns, adjectives and relation of a caption as tuples of words."""
    stated: set[tuple[str, ...]] = {(mention.noun,) for mention in caption.mentions}
    stated |= {(mention.noun, word) for mention in caption.mentions for word in mention.attributes}
    if caption.relation is not None:
        first, second = (mention.noun for mention in caption.mentions[:2])
        # "a right of b" is the fact "b left of a".
        name, is_swapped = canonical(caption.relation)
        stated.add((second, name, first) if is_swapped else (first, name, second))
    return frozenset(stated)


def f_score(first: frozenset[tuple[str, ...]], second: frozenset[tuple[str, ...]]) -> float:
    """Return the harmonic mean of precision and recall between the facts of two captions."""
    return 2 * len(first & second) / (len(first) + len(second))


def _pairs(config: WorldConfig, split: str, n: int) -> list[tuple[str, str, float]]:
    """Return `n` pairs of captions with their F-scores."""
    pairs = []
    for index in range(n):
        rng = text_generator(config.scenes, f"similarity/{split}", index)
        scene = sample_scene(config.scenes, f"similarity/{split}", index)
        # From two captions of one image, over small changes, to captions of unrelated images.
        other = changed(scene, index % 5, rng)
        if other is None:
            other = sample_scene(config.scenes, f"similarity/{split}/other", index)
        first, second = (describe(one, config.sentences, rng) for one in (scene, other))
        # The order in a pair does not tell which scene is the changed one.
        if rng.random() >= 0.5:
            first, second = second, first
        pairs.append((first.text, second.text, f_score(facts(first), facts(second))))
    return pairs


def changed(scene: Scene, kind: int, rng: Rng) -> Scene | None:
    """Return the scene as it is (kind 0) or with one change, or None (another kind).

    1 swaps the arguments or, where this is not possible, their colours; 2 changes a colour, 3 the
    relation.
    """
    content = scene.content
    if kind == 1:
        return rearranged(scene, content.swapped(*([] if content.swappable() else ["color"])))
    if kind == 2:
        which = int(rng.integers(2))
        colors = [color for color in COLORS if color != content.things[which].color]
        return rearranged(scene, content.with_thing(which, color=str(rng.choice(colors))))
    if kind == 3:
        a, b = (thing.noun for thing in content.things[:2])
        names = [name for name in RELATIONS if name != content.relation and admits(a, name, b)]
        return rearranged(scene, replace(content, relation=str(rng.choice(names))))
    return scene if kind == 0 else None
