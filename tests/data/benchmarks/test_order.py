from __future__ import annotations

from collections import Counter

import pytest

from cae_lib.data.benchmarks import load_benchmark, order
from cae_lib.data.benchmarks.shuffles import TaggedWords
from cae_lib.errors import DataError

CAPTIONS = ["A big dog chases a small cat near the old house. ", "Two dogs run."]
ROW = {"image": "val2014/COCO_val2014_000000000001.jpg", "caption": CAPTIONS}


def spaces(captions):
    """Words at spaces, all of them nouns."""
    return [TaggedWords(tuple(c.split()), ("NN",) * len(c.split())) for c in captions]


@pytest.fixture
def world(tmp_path, write_json, draw):
    draw(tmp_path / "coco", ROW["image"])
    draw(tmp_path / "flickr30k/flickr30k-images", "5.jpg")
    write_json(tmp_path / "coco/coco_karpathy_test.json", [ROW])
    row = {"image": "5.jpg", "caption": ["a b c d"]}
    write_json(tmp_path / "flickr30k/flickr30k_test.json", [row])
    return tmp_path


def test_true_caption_first_then_four_shuffles_of_its_words(world):
    coco, flickr = load_benchmark("order", world, tagger=spaces)
    assert (coco.subset, coco.n_used, coco.n_expected) == ("coco", 2, 2)
    item = coco.items[0]
    assert item.texts[0] == "a big dog chases a small cat near the old house"
    assert len(item.texts) == 5 and item.truth == 0
    for text in item.texts[1:]:
        assert Counter(text.split()) == Counter(item.texts[0].split())
    assert flickr.items[0].images[0].path.parent.name == "flickr30k-images"


def test_same_seed_same_shuffles_and_missing_pictures_do_not_change_the_others(world, write_json):
    first = {"image": "val2014/absent.jpg", "caption": ["one two three four five six seven"]}
    write_json(world / "coco/coco_karpathy_test.json", [first, ROW])

    def texts(**options):
        [coco] = order.load(
            world, corpora=["coco"], tagger=spaces, allow_missing=True, **options
        )
        return [item.texts for item in coco.items]

    assert len(texts()) == 2
    assert texts() == texts(seed=1) != texts(seed=2)
    partial = texts()
    (world / "coco/val2014/absent.jpg").write_bytes((world / "coco" / ROW["image"]).read_bytes())
    assert texts()[1:] == partial


def test_items_whose_shuffle_equals_the_caption_are_counted(world, write_json):
    same = {"image": ROW["image"], "caption": ["dog dog dog", "one two three four five six"]}
    write_json(world / "coco/coco_karpathy_test.json", [same])
    [coco] = order.load(world, corpora=["coco"], tagger=spaces)
    assert coco.items[0].texts == ("dog dog dog",) * 5
    # All words are nouns here, so the shuffle of the other words leaves both captions as they are.
    assert coco.items[1].texts[2] == coco.items[1].texts[0]
    assert coco.counts["identical"] == coco.n_used == 2
    assert coco.counts["respaced"] == 0


def test_captions_that_change_by_joining_alone_are_counted(world, write_json):
    row = {"image": ROW["image"], "caption": ["the dog's bowl", "a red bowl"]}
    write_json(world / "coco/coco_karpathy_test.json", [row])
    words = [
        TaggedWords(("the", "dog", "'s", "bowl"), ("DT", "NN", "POS", "NN")),
        TaggedWords(("a", "red", "bowl"), ("DT", "JJ", "NN")),
    ]
    [coco] = order.load(world, corpora=["coco"], tagger=lambda _: words)
    assert coco.counts["respaced"] == 1


def test_expected_counts_are_of_captions(world):
    with pytest.raises(DataError, match="2 items, 25010 expected"):
        order.load(world, official=True, tagger=spaces)


def test_malformed_row_and_nothing_there(world, write_json, tmp_path):
    write_json(world / "coco/coco_karpathy_test.json", [ROW, {"image": "x.jpg", "caption": "one"}])
    with pytest.raises(DataError, match=r"coco_karpathy_test\.json, row 1: field 'caption'"):
        order.load(world, corpora=["coco"], tagger=spaces)
    with pytest.raises(DataError, match="is there"):
        order.load(tmp_path / "coco" / "val2014", tagger=spaces)
