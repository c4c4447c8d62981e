"""The loaders read every dataset as written; each negative is false by another reading."""

import json
from collections import Counter

import numpy as np
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
            wording = " ".join(between)
            named = (name for name, kind in RELATIONS.items() if wording in kind.wordings)
            if things and (name := next(named, None)):
                relation = (things[-1][0], name, word)
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


def test_half_truths_say_of_the_anchor_one_thing_that_is_false(loaded, config):
    items = loaded["half_truths/world/ordered"].items
    kinds = "object", "attribute", "relation"
    n_of_kind = config.sizes.half_truths // 3
    assert Counter(item.group for item in items) == dict.fromkeys(kinds, n_of_kind)
    for item in items:
        full, anchor, false = item.texts
        assert full.startswith(f"{anchor} ") and false.startswith(f"{anchor} ")
        ((_, (noun, words)), relation), ((_, (foil, others)), instead) = facts(full), facts(false)
        changed = noun != foil, words != others, (relation or "  ")[1] != (instead or "  ")[1]
        assert changed == tuple(item.group == kind for kind in kinds), item


def test_winoground_captions_hold_for_their_own_picture_only(loaded, scene_of):
    items = loaded["winoground/group"].items
    for item in items:
        scenes = [scene_of(image) for image in item.images]
        for text, scene, other in zip(item.texts, scenes, scenes[::-1], strict=True):
            assert not is_false(text, scene) and is_false(text, other)
        bags = [Counter(text.replace(" an ", " a ").split()[1:]) for text in item.texts]
        assert bags[0] == bags[1]
    assert {item.group for item in items} == {"Object", "Relation", "Both"}


def test_svo_negatives_make_the_sentence_false(loaded, scene_of):
    [part] = [part for part in loaded.values() if part.name == "svo_probes"]
    for item in part.items:
        positive, negative = (scene_of(image) for image in item.images)
        assert not is_false(item.texts[0], positive) and is_false(item.texts[0], negative)
        pairs = zip(positive.content.things[:2], negative.content.things[:2], strict=True)
        subject, obj = (a.noun != b.noun for a, b in pairs)
        relation = positive.content.relation != negative.content.relation
        assert (subject, relation, obj) == tuple(item.group == p for p in ("subj", "verb", "obj"))


@pytest.mark.parametrize("name", ["aro/relation", "crepe/atom"])
def test_box_tells_which_scene_is_meant(name, loaded, scene_of):
    for item in loaded[name].items:
        [image] = item.images
        cut = np.asarray(Image.open(image.path).crop(image.crop)).astype(float)
        scene = np.asarray(render(scene_of(image))).astype(float)
        assert np.abs(cut - scene).mean() < 4  # what JPEG loses


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
    assert np.mean([bool(false) for false in tsv.negatives]) > 0.8
    assert np.mean(shares) > 0.6


def test_datasets_share_no_scene_with_training_and_flickr_has_a_style_of_its_own(made):
    scenes = {
        name: [scene for image in dataset.images.values() for scene in image.scenes]
        for name, dataset in made.items()
    }
    for name, of_dataset in scenes.items():
        style = "poster" if name == "flickr30k" else "plain"
        assert {scene.style for scene in of_dataset} <= {style}
    coco = {scene.seed for scene in scenes.pop("coco")}
    assert not coco & {scene.seed for of_dataset in scenes.values() for scene in of_dataset}
