"""What the recipes write in official layouts is read back by the loaders."""

import pytest

from cae_lib.data import captions
from cae_lib.data.benchmarks import FAMILIES, load_benchmark
from cae_lib.data.similarity import load_similarity
from cae_lib.world import layouts
from cae_lib.world.layouts import Captioned, Export, Question

TRUE, FALSE = "a dog on a bed", "a bed on a dog"
TEXTS = (FALSE, TRUE)
BOX = (0, 0, 8, 8)
ATOMS = {"n": 4, "n_objects": 2, "n_relations": 1, "n_attributes": 1, "n_connected_components": 1}
FLAGS = {
    "subj_neg": False,
    "verb_neg": True,
    "obj_neg": False,
    "pos_triplet": "dog,on,bed",
    "neg_triplet": "dog,under,bed",
}
VOTED = {
    "key": "relations_7",
    "dataset": "flickr8k",
    "dataset_idx": 7,
    "classes": "on",
    "classes_foil": "under",
}
# Benchmark and subset, an item, and of the choice that is read its texts and its group.
CASES = [
    (
        "aro/relation",
        Question(["7.jpg"], [TRUE], [FALSE], BOX, {"relation_name": "on"}),
        TEXTS,
        "on",
    ),
    (
        "aro/attribution",
        Question(["a_7.jpg"], [TRUE], [FALSE], BOX, {"attributes": ["red", "big"]}),
        TEXTS,
        "red_big",
    ),
    ("crepe/atom", Question(["7.jpg"], [TRUE], list("abcde"), BOX, ATOMS), (TRUE, *"abcde"), "4"),
    ("sugarcrepe/swap_obj", Question(["a_7.jpg"], [TRUE], [FALSE]), (TRUE, FALSE), "swap_obj"),
    (
        "sugarcrepe_pp/tot/swap_obj",
        Question(["a_7.jpg"], [TRUE, "x"], [FALSE]),
        (TRUE, "x", FALSE),
        "swap_obj",
    ),
    (
        "half_truths/ours/ordered",
        Question(["7.jpg"], [TRUE, "x"], [FALSE], fields={"triplet_type": "e"}),
        ("x", TRUE, FALSE),
        "e",
    ),
    (
        "svo_probes/all",
        Question(["images/7.jpg", "images/8.jpg"], [TRUE], fields=FLAGS),
        (TRUE,),
        "verb",
    ),
    ("valse/relations", Question(["a_7.jpg"], [TRUE], [FALSE], fields=VOTED), TEXTS, "relations"),
    (
        "vl_checklist/Relation/vg/spatial",
        Question(["VG_100K/7.jpg"], [TRUE], [FALSE]),
        TEXTS,
        "Relation/vg/spatial",
    ),
    (
        "winoground/group",
        Question(
            ["ex_0_img_0.png", "ex_0_img_1.png"],
            [TRUE, FALSE],
            fields={"tag": "Noun", "collapsed_tag": "Object"},
        ),
        (TRUE, FALSE),
        "Object",
    ),
]


@pytest.mark.parametrize(("key", "item", "texts", "group"), CASES, ids=[c[0] for c in CASES])
def test_an_item_of_a_benchmark_is_written_and_read(key, item, texts, group, put):
    name, subset = key.split("/", 1)
    export = Export(name)
    written = subset.removeprefix("tot/").removesuffix("/ordered")
    if name == "vl_checklist":  # whose pictures its recipe places
        export.pictures["vl-checklist/vg/VG_100K/7.jpg"] = "VG_100K/7.jpg"
        export.add_item(written, item)
    else:
        export.add_item(written, item, *item.images)
    root = put(dict.fromkeys(export.pictures) | export.serialize().texts)
    put({"manifest.json": {"counts": {name: export.counts}}})
    [part] = load_benchmark(name, root, subsets=[subset])
    [choice] = part.items
    assert (choice.texts, choice.group) == (texts, group)
    assert subset in export.counts and part.task == FAMILIES[name].task_of(subset)
    assert choice.truth == int(texts == TEXTS)
    places = [image.path.relative_to(root).as_posix() for image in choice.images]
    assert [export.pictures[place] for place in places] == list(item.images[: len(places)])
    assert all(image.crop == (BOX if item.box else None) for image in choice.images)


def test_captions_in_every_layout(put):
    pictures = [Captioned(i, f"val2014/{i}.jpg", [f"{i} a", f"{i} b"]) for i in (3, 5)]
    rows = [("3 a", "val2014/3.jpg", ["a 3"], [1]), ("5 a", "val2014/5.jpg", [], [0])]
    root = put(
        dict.fromkeys(picture.path for picture in pictures)
        | {
            "coco.json": layouts.coco_captions(pictures, 9, 9),
            "list.json": layouts.caption_list(pictures),
            "karpathy.json": layouts.karpathy("coco", {"train": pictures[:1], "val": pictures[1:]}),
            "negclip.tsv": layouts.negclip(rows),
        }
    )
    expected = [text for picture in pictures for text in picture.captions]
    for pairs in (
        captions.load_coco_captions(root / "coco.json", root / "val2014"),
        captions.load_caption_list(root / "list.json", root),
    ):
        assert pairs.captions == expected
        assert [path.name for path in pairs.image_paths] == ["3.jpg", "5.jpg"]
    assert captions.load_karpathy(root / "karpathy.json", root, "val").captions == ["5 a", "5 b"]
    found = captions.load_negclip_tsv(root / "negclip.tsv", root)
    assert (found.negatives, found.hard_images) == ([["a 3"], []], [[1], [0]])


@pytest.mark.parametrize(
    ("name", "part"), [("STS14", "images"), ("STS-B", "test"), ("SICK-R", "test")]
)
def test_scored_pairs(name, part, put):
    pairs = [("a", "b", 1.5), ("c", "d", 4.0)] + [("e", "f", None)] * (name == "STS14")
    found = load_similarity(name, put(layouts.similarity(name, part, pairs, "ours")))
    assert (found.first, found.second, found.gold.tolist()) == (("a", "c"), ("b", "d"), [1.5, 4.0])
