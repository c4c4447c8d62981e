"""The loaders read every dataset as written; each negative is false by another reading."""

import json
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cae_bench.benchmarks import PAPER_BENCHMARKS, load_benchmark
from cae_lib.data import captions
from data.recipes.synthetic_scenes.draw import render
from data.recipes.synthetic_scenes.vocabulary import KIND_OF, NOUNS, RELATIONS, admits

SCENE_FAMILIES = (*PAPER_BENCHMARKS, "sugarcrepe_pp", "half_truths")
ALSO = {
    "on": {"above"},
    "riding": {"above", "on"},
    "above": {"on"},
    "under": {"below"},
    "below": {"under"},
    "touching": {"holding"},
}


@pytest.fixture(scope="session")
def loaded(smoke_world):
    parts = [part for name in SCENE_FAMILIES for part in load_benchmark(name, smoke_world)]
    return {part.key: part for part in parts}


@pytest.fixture(scope="session")
def scene_of(smoke_world, scenes_of):
    """Gives the scene that an item's image, cut to its box, shows."""

    def find(image):
        scenes = scenes_of[image.path.resolve().relative_to(smoke_world.resolve()).as_posix()]
        return scenes[int(len(scenes) > 1 and max(image.crop[:2]) > 0)]

    return find


def facts(text):
    """Things with adjectives, and `(noun, relation, noun)`, read off a text word by word."""
    things, pending, between, relation = [], [], [], None
    for word in text.split():
        if word in KIND_OF:
            pending.append(word)
        elif word in NOUNS:
            said = " ".join(between)
            named = next((name for name, kind in RELATIONS.items() if said in kind.wordings), None)
            if things and named:
                relation = (things[-1][0], named, word)
            things.append((word, tuple(pending)))
            pending, between = [], []
        elif word not in ("a", "an", "is", "the") or between == ["to"]:
            between.append(word)
    return things, relation


def is_false(text, scene):
    """Whether a text is certainly false, by the tables here."""
    things, relation = facts(text)
    there = {thing.noun: thing for thing in scene.content.things}
    for noun, adjectives in things:
        if noun not in there or not set(adjectives) <= set(there[noun].attributes):
            return True
    if relation is None:
        return False
    (subject, name, obj), main, pair = relation, scene.content.relation, list(there)[:2]
    if [subject, obj] == pair:
        return name != main and name not in ALSO.get(main, ())
    if [obj, subject] == pair:
        return name != RELATIONS[main].inverse
    places = dict(zip(there, scene.placements, strict=True))
    return not seen(places[subject], name, places[obj])


def seen(a, name, b):
    """Whether two things that are not the main pair stand so that a relation might be seen."""
    right, down, reach = a.x - b.x, a.y - b.y, 0.5 * a.scale + 0.5 * b.scale
    gap = max(abs(right), abs(down)) - reach
    return {
        "left of": right < -0.02,
        "right of": right > 0.02,
        "above": down < -0.02,
        "below": down > 0.02,
        "on": down < -0.02 and abs(right) < reach,
        "under": down > 0.02 and abs(right) < reach,
        "riding": down < -0.02 and abs(right) < reach,
        "chasing": a.motion != 0,
        "holding": gap < 0.03,
        "touching": gap < 0.03,
    }.get(name, True)


def test_all_items_are_used_and_as_many_as_the_manifest_says(loaded, smoke_world):
    counts = json.loads((smoke_world / "manifest.json").read_text(encoding="utf-8"))["counts"]
    for part in loaded.values():
        assert 0 < part.n_used == part.n_expected == counts[part.name][part.subset]
        assert part.property_counts.get("identical", 0) == 0 or part.name == "order"
    assert set(loaded) == {f"{name}/{subset}" for name in SCENE_FAMILIES for subset in counts[name]}


@pytest.mark.parametrize("name", ["aro", "sugarcrepe", "vl_checklist", "valse", "crepe"])
def test_texts_are_true_and_negatives_false_of_the_image(name, loaded, scene_of):
    parts = [part for part in loaded.values() if part.name == name]
    n_negatives = 0
    for item in (i for p in parts if p.subset not in ("existence", "negate") for i in p.items):
        scene = scene_of(item.images[0])
        for index, text in enumerate(item.texts):
            assert is_false(text, scene) == (index != item.truth), (item.group, text, scene)
            relation = facts(text)[1]
            assert relation is None or admits(*relation), "it can be shown"
        n_negatives += len(item.texts) - 1
    assert n_negatives > 20


@pytest.mark.parametrize("name", ["sugarcrepe_pp", "half_truths"])
def test_of_three_texts_the_last_one_alone_is_false(name, loaded, scene_of):
    items = [item for part in loaded.values() if part.name == name for item in part.items]
    assert len(items) > 20
    for item in items:
        [image], [*true, false] = item.images, item.texts
        assert is_false(false, scene_of(image)), item
        assert not any(is_false(text, scene_of(image)) for text in true), item


def test_sugarcrepe_pp_adds_a_caption_to_sugarcrepe(loaded):
    for subset in ("replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj"):
        itt, tot = (loaded[f"sugarcrepe_pp/{task}/{subset}"].items for task in ("itt", "tot"))
        for item, same, known in zip(itt, tot, loaded[f"sugarcrepe/{subset}"].items, strict=True):
            first, second, false = item.texts
            assert same.texts == item.texts and item.images == known.images
            assert known.texts[known.truth] == first != second and false in known.texts
            (things, _), (others, _) = facts(first), facts(second)
            assert sorted(things) == sorted(others)


def test_half_truths_say_of_the_anchor_one_thing_that_is_false(loaded, config):
    half, ordered = (loaded[f"half_truths/world{end}"].items for end in ("", "/ordered"))
    kinds = "object", "attribute", "relation"
    each = config.sizes.half_truths // 3
    assert Counter(item.group for item in half) == dict.fromkeys(kinds, each)
    assert len({item.images[0].path for item in half}) == len(half)
    for item, triple in zip(half, ordered, strict=True):
        full, anchor, false = triple.texts
        assert item.texts == (anchor, false) and item.images == triple.images
        assert full.startswith(f"{anchor} ") and false.startswith(f"{anchor} ")
        ((_, (noun, words)), relation), ((_, (foil, others)), instead) = facts(full), facts(false)
        changed = noun != foil, words != others, (relation or "  ")[1] != (instead or "  ")[1]
        assert changed == tuple(item.group == kind for kind in kinds), triple


def test_existence_denies_what_is_there(loaded, scene_of):
    for item in loaded["valse/existence"].items:
        nouns = {thing.noun for thing in scene_of(item.images[0]).content.things}
        foil, caption = item.texts
        assert (caption.split()[-1] in nouns) == (" no " not in caption) == (" no " in foil)


def test_winoground_captions_hold_for_their_own_picture_only(loaded, scene_of):
    items = loaded["winoground/group"].items
    for item in items:
        scenes = [scene_of(image) for image in item.images]
        for text, own, other in zip(item.texts, scenes, scenes[::-1], strict=True):
            assert not is_false(text, own) and is_false(text, other)
        bags = [Counter(text.replace(" an ", " a ").split()[1:]) for text in item.texts]
        assert bags[0] == bags[1]
        ((noun, words), _), ((other, others), _) = (facts(text)[0] for text in item.texts)
        moved = noun != other, words != others, len(words)
        assert moved == {"Object": (1, 0, 0), "Relation": (0, 1, 1), "Both": (1, 0, 1)}[item.group]
    assert {item.group for item in items} == {"Object", "Relation", "Both"}


def test_svo_negatives_make_the_sentence_false(loaded, scene_of, smoke_world):
    [part] = [part for part in loaded.values() if part.name == "svo_probes"]
    rows = pd.read_csv(smoke_world / "svo-probes/svo_probes.csv").to_dict("records")
    for item, row in zip(part.items, rows, strict=True):
        positive, negative = (scene_of(image) for image in item.images)
        for name, content in (("pos", positive.content), ("neg", negative.content)):
            first, second = (thing.noun for thing in content.things[:2])
            assert row[f"{name}_triplet"] == f"{first},{content.relation},{second}"
        assert not is_false(item.texts[0], positive) and is_false(item.texts[0], negative)
        pairs = zip(positive.content.things[:2], negative.content.things[:2], strict=True)
        subject, obj = (a.noun != b.noun for a, b in pairs)
        relation = positive.content.relation != negative.content.relation
        assert (subject, relation, obj) == tuple(item.group == p for p in ("subj", "verb", "obj"))


@pytest.mark.parametrize(
    ("subset", "expected"),
    [
        ("add_att", (0, 0, 1)),
        ("replace_att", (0, 0, 1)),
        ("swap_att", (0, 0, 0)),
        ("swap_obj", (1, 0, 0)),
        ("replace_rel", (0, 1, 0)),
        ("add_obj", None),
    ],
)
def test_negatives_differ_by_what_their_file_says(subset, expected, loaded):
    for item in loaded[f"sugarcrepe/{subset}"].items:
        (true, relation), (false, foil_relation) = (facts(text) for text in item.texts)
        nouns, foil_nouns = [t[0] for t in true], [t[0] for t in false]
        words, foil_words = (sorted(w for t in x for w in t[1]) for x in (true, false))
        changed = nouns != foil_nouns, relation[1] != foil_relation[1], words != foil_words
        assert foil_nouns[:-1] == nouns if expected is None else changed == expected, item


@pytest.mark.parametrize("name", ["aro/relation", "aro/attribution", "crepe/atom"])
def test_the_box_tells_which_scene_is_meant(name, loaded, scene_of):
    sizes = {Image.open(item.images[0].path).size for item in loaded[name].items}
    assert sizes == {(112, 224), (224, 112)}, "side by side and one above the other"
    for item in loaded[name].items:
        [image] = item.images
        picture = Image.open(image.path)
        cut = np.asarray(picture.crop(image.crop)).astype(float)
        own = np.asarray(render(scene_of(image))).astype(float)
        assert np.abs(cut - own).mean() < 4  # what JPEG loses


def test_coco_folds_agree_with_each_other(smoke_world, config):
    coco, sizes = smoke_world / "coco", config.sizes
    splits = [
        captions.load_karpathy(coco / "dataset_coco.json", coco, split)
        for split in ("train", "val", "test")
    ]
    train = splits[0]
    assert train.n_used == train.n_expected == sizes.train * sizes.captions
    places = Counter(path.parent.name for path in train.image_paths)
    assert places == {"train2014": sizes.train * 3 // 4, "val2014": sizes.train // 4}
    path = coco / "annotations/captions_train2014.json"
    official = captions.load_coco_captions(path, coco / "train2014")
    assert official.captions == train.captions[: len(official.captions)]
    tsv = captions.load_negclip_tsv(coco / "train_neg_clip.tsv", smoke_world)
    assert tsv.captions == train.captions and tsv.image_paths == train.image_paths
    names = {path for split in splits for path in split.image_paths}
    assert len(names) == sizes.train + sizes.val + sizes.test


def test_negclip_rows_have_false_swaps_and_similar_images(smoke_world, scenes_of):
    tsv = captions.load_negclip_tsv(smoke_world / "coco/train_neg_clip.tsv", smoke_world)
    scenes = [scenes_of[path.relative_to(smoke_world).as_posix()][0] for path in tsv.image_paths]
    nouns = [{thing.noun for thing in scene.content.things[:2]} for scene in scenes]
    shares = []
    for row, image in enumerate(int(number) for number in tsv.image_index):
        caption = tsv.captions[row]
        assert not is_false(caption, scenes[image])
        for text in tsv.negatives[row]:
            assert is_false(text, scenes[image]), (caption, text)
            assert {*text.split()} - {"a", "an"} == {*caption.split()} - {"a", "an"}
        similar = {int(tsv.image_index[other]) for other in tsv.hard_images[row]}
        assert len(similar) == 3 and image not in similar
        shares += [bool(nouns[image] & nouns[other]) for other in similar]
    numbers = {other % 5 for rows in tsv.hard_images for other in rows}
    assert numbers == {*range(5)}, "any of the five captions of a similar image"
    assert np.mean([bool(false) for false in tsv.negatives]) > 0.8
    assert np.mean(shares) > 0.6


def test_scene_graphs_match_the_captions(smoke_world, scenes_of):
    folder = smoke_world / "coco/annotations"
    official, gold = (
        json.loads((folder / f"{name}_val2014.json").read_text("utf-8"))
        for name in ("captions", "scene_graphs")
    )
    nouns = {}
    for image, graph in zip(official["images"], gold["images"], strict=True):
        [scene] = scenes_of[f"coco/val2014/{image['file_name']}"]
        nouns[image["id"]] = [thing.noun for thing in scene.content.things]
        assert image["id"] == graph["id"] and graph["relation"] == scene.content.relation
        assert [thing["noun"] for thing in graph["things"]] == nouns[image["id"]]
        assert graph["placements"][0]["x"] == pytest.approx(scene.placements[0].x, abs=1e-4)
    for text, facts in zip(official["annotations"], gold["annotations"], strict=True):
        assert (text["id"], text["image_id"]) == (facts["id"], facts["image_id"])
        words = [(text["caption"][start:end], role) for start, end, role in facts["spans"]]
        named = [nouns[text["image_id"]][number] for number in facts["objects"]]
        assert [word for word, role in words if role == 1] == named
        assert all(relation[::2] == [0, 1] for relation in facts["relations"])
        assert [w for w, role in words if role == 2] == [w for _, w in facts["attributes"]]


def test_the_datasets_share_no_scene_with_training_and_flickr_has_a_style_of_its_own(made):
    scenes = {
        name: [scene for image in dataset.images.values() for scene in image.scenes]
        for name, dataset in made.items()
    }
    for name, found in scenes.items():
        assert {scene.style for scene in found} <= {"poster" if name == "flickr30k" else "plain"}
    coco = {scene.seed for scene in scenes.pop("coco")}
    assert not coco & {scene.seed for found in scenes.values() for scene in found}


def test_crepe_has_every_complexity(loaded, config, smoke_world):
    for path in (smoke_world / "crepe/data/prod_hard_negatives/atom").iterdir():
        rows = pd.read_csv(path)
        assert rows["n"].equals(rows["n_objects"] + rows["n_attributes"] + rows["n_relations"])
    sizes = Counter(item.group for item in loaded["crepe/atom"].items)
    assert sizes == {str(n): config.sizes.crepe // 9 for n in range(4, 13)}
    for item in (*loaded["crepe/atom"].items, *loaded["crepe/swap"].items):
        things, relation = facts(item.texts[0])
        assert sum(1 + len(words) for _, words in things) + bool(relation) == int(item.group)
        assert len(set(item.texts)) == 6
