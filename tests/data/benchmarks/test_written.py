"""What is laid out of plain captions and names of pictures is read back, by the same table."""

import pytest

from cae_lib.data import captions, layouts, sources
from cae_lib.data.benchmarks import LAYOUTS, load_benchmark
from cae_lib.data.benchmarks.entry import Layout
from cae_lib.data.completeness import check
from cae_lib.data.layouts import Captioned, Export, Item
from cae_lib.data.similarity import load_similarity
from cae_lib.errors import DataError

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
VOTED = {"dataset": "flickr8k", "dataset_idx": 7, "classes": "on", "classes_foil": "under"}
# Benchmark and subset, an item, and of the choice that is read its texts and its group.
CASES = [
    ("aro/relation", Item(["7.jpg"], [TRUE], [FALSE], BOX, {"relation_name": "on"}), TEXTS, "on"),
    (
        "aro/attribution",
        Item(["a_7.jpg"], [TRUE], [FALSE], BOX, {"attributes": ["red", "big"]}),
        TEXTS,
        "red_big",
    ),
    ("crepe/atom", Item(["7.jpg"], [TRUE], list("abcde"), BOX, ATOMS), (TRUE, *"abcde"), "4"),
    ("sugarcrepe/swap_obj", Item(["a_7.jpg"], [TRUE], [FALSE]), (TRUE, FALSE), "swap_obj"),
    (
        "sugarcrepe_pp/tot/swap_obj",
        Item(["a_7.jpg"], [TRUE, "x"], [FALSE]),
        (TRUE, "x", FALSE),
        "swap_obj",
    ),
    (
        "half_truths/ours/ordered",
        Item(["7.jpg"], [TRUE, "x"], [FALSE], more={"triplet_type": "e"}),
        ("x", TRUE, FALSE),
        "e",
    ),
    ("svo_probes/all", Item(["images/7.jpg", "images/8.jpg"], [TRUE], more=FLAGS), (TRUE,), "verb"),
    ("valse/relations", Item(["a_7.jpg"], [TRUE], [FALSE], more=VOTED), TEXTS, "relations"),
    (
        "vl_checklist/Relation/vg/spatial",
        Item(["VG_100K/7.jpg"], [TRUE], [FALSE]),
        TEXTS,
        "Relation/vg/spatial",
    ),
    (
        "winoground/group",
        Item(
            ["ex_0_img_0.png", "ex_0_img_1.png"],
            [TRUE, FALSE],
            more={"tag": "Noun", "collapsed_tag": "Object"},
        ),
        (TRUE, FALSE),
        "Object",
    ),
    (
        "new/one/ordered",
        Item(["a/7.jpg", "b/8.jpg"], [TRUE], [FALSE], more={"kind": "x"}),
        TEXTS,
        "x one",
    ),
]
NEW = Layout(
    "new-set",
    {"one/ordered": 7, "two": None},
    "in the files",
    "rows/{file}.csv",
    "csv",
    "photo=picture other=picture_1 good=caption bad=false kind",
    "false caption",
    pictures=("photos/{name}",),
    group="{kind} {file}",
)


@pytest.mark.parametrize(("key", "item", "texts", "group"), CASES, ids=[c[0] for c in CASES])
def test_a_benchmark_of_the_table_is_written_and_read(key, item, texts, group, put, monkeypatch):
    """One entry is all that a new one takes."""
    monkeypatch.setitem(LAYOUTS, "new", NEW)
    name, subset = key.split("/", 1)
    export = Export(name)
    export.ask(subset.removeprefix("tot/").removesuffix("/ordered"), item, *item.pictures)
    root = put(dict.fromkeys(export.pictures) | export.lay_out().texts)
    put({"manifest.json": {"counts": {name: export.counts}}})
    [part] = load_benchmark(name, root, subsets=[subset])
    [choice] = part.items
    assert (choice.texts, choice.group) == (texts, group)
    assert subset in export.counts and part.task == LAYOUTS[name].task_of(subset)
    assert choice.truth == int(texts == TEXTS)
    places = [image.path.relative_to(root).as_posix() for image in choice.images]
    assert [export.pictures[place] for place in places] == list(item.pictures[: len(places)])
    assert all(image.crop == (BOX if item.box else None) for image in choice.images)


def test_a_benchmark_of_the_table_is_counted(home, put, monkeypatch):
    """Also one that the list of sources does not know."""
    monkeypatch.setitem(LAYOUTS, "new", NEW)
    sources.load_sources.cache_clear()
    put(
        {
            "data/raw/new-set/rows/one.csv": [
                ["photo", "other", "good", "bad", "kind"],
                ["a/7.jpg", "b/8.jpg", "a", "b", "c"],
            ],
            "data/raw/new-set/photos/8.jpg": None,
        }
    )
    assert check(sources.source("new")).lines() == [
        "new: incomplete; 1 of 2 files, 1 of 7 rows, 1 of 2 pictures",
        "  files missing: new-set/rows/two.csv",
        "  pictures missing: new-set/photos/7.jpg",
    ]
    sources.load_sources.cache_clear()


def test_an_item_that_lacks_a_column_is_named():
    export = Export("valse")
    export.ask("relations", Item(["1.jpg"], [TRUE], [FALSE]))
    with pytest.raises(DataError, match="valse/relations, item 0: it has no 'dataset'"):
        export.lay_out()


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
