"""Shuffles of captions: which words come where, and how captions are cleaned."""

from collections import Counter

import numpy as np
import pytest
from samples import ORDER

from cae_bench.benchmarks import load_benchmark
from cae_bench.benchmarks.order import TaggedWords, clean_caption, shuffled_captions, tag_words

COCO, FLICKR = "coco/coco_karpathy_test.json", "flickr30k/flickr30k_test.json"


def tag_as_nouns(captions):
    """Words at spaces, all of them nouns."""
    return [TaggedWords(tuple(c.split()), ("NN",) * len(c.split())) for c in captions]


@pytest.fixture
def load(put):
    put({"coco/val2014/1.jpg": None, COCO: [ORDER], "flickr30k/flickr30k-images/5.jpg": None})
    put({FLICKR: [{"image": "5.jpg", "caption": ["a b c d"]}]})

    def read(*rows, tagger=tag_as_nouns, **options):
        root = put({COCO: rows} if rows else {})
        return load_benchmark("order", root, tagger=tagger, **options)

    return read


def test_true_caption_is_first_then_four_shuffles_of_its_words(load):
    coco, flickr = load()
    item = coco.items[0]
    assert item.texts[0] == "a big dog chases a small cat"
    assert len(item.texts) == 5 and item.truth == 0 and coco.n_used == 2
    for text in item.texts[1:]:
        assert Counter(text.split()) == Counter(item.texts[0].split())
    assert flickr.items[0].images[0].path.parent.name == "flickr30k-images"


def test_shuffles_are_seeded_and_missing_pictures_do_not_change_the_others(load, put):
    first = {"image": "val2014/absent.jpg", "caption": ["one two three four five six seven"]}

    def texts(**options):
        return [item.texts for item in load(first, ORDER, **options)[0].items]

    partial = texts()
    assert len(partial) == 2 and partial == texts(seed=1) != texts(seed=2)
    put({"coco/val2014/absent.jpg": None})
    assert texts()[1:] == partial


def test_shuffles_that_equal_the_caption_are_counted(load):
    coco = load(ORDER | {"caption": ["dog dog dog", "one two three four five six"]})[0]
    assert coco.items[0].texts == ("dog dog dog",) * 5
    # All words are nouns here, so the shuffle of the other words leaves both captions as they are.
    assert coco.items[1].texts[2] == coco.items[1].texts[0]
    assert coco.property_counts == {"identical": 2}


def test_clean_caption_lowers_blanks_marks_collapses_and_cuts():
    assert clean_caption(' A "Dog": (big), runs!  Fast. ') == "a dog big , runs fast"
    assert clean_caption("# a;b~c*d\n") == "a b c d"
    assert clean_caption(" ".join("w" * 40)) == " ".join("w" * 30)


def test_words_come_to_every_place_of_their_kind_and_to_no_other():
    """Words of every Penn tag of a noun or an adjective; all other words are of one kind."""
    nouns, adjectives = {"NN", "NNS", "NNP", "NNPS"}, {"JJ", "JJR", "JJS"}
    others = {"DT", "VBD", "IN"}
    tags = ("NN", "JJ", "DT", "NNS", "JJR", "VBD", "NNP", "JJS", "IN", "NNPS")
    content, rest = ([set() for _ in tags] for _ in range(2))
    for seed in range(100):
        shuffled = shuffled_captions(TaggedWords(tags, tags), np.random.default_rng(seed))
        for seen, text in zip((content, rest), shuffled[:2], strict=True):
            for words, word in zip(seen, text.split(), strict=True):
                words.add(word)
    for tag, in_content, in_rest in zip(tags, content, rest, strict=True):
        assert in_content == (nouns if tag in nouns else adjectives if tag in adjectives else {tag})
        assert in_rest == (others if tag in others else {tag})


def test_trigrams_are_shuffled_within_and_as_wholes():
    words = "the big red dog saw a small blue cat and seven tall trees".split()
    seen_within, seen_across = set(), set()
    for seed in range(20):
        tagged = TaggedWords(words, ["NN"] * len(words))
        *_, within, across = shuffled_captions(tagged, np.random.default_rng(seed))
        seen_within.add(within)
        seen_across.add(across)
        for start in range(0, len(words), 3):
            run = words[start : start + 3]
            assert Counter(within.split()[start : start + 3]) == Counter(run)
            assert " ".join(run) in across
    assert len(seen_within) > 5 and len(seen_across) > 5
    for few in ((), ("dogs",)):  # too short for any shuffle
        tagged = TaggedWords(few, ("NNS",) * len(few))
        assert shuffled_captions(tagged, np.random.default_rng(0)) == (" ".join(few),) * 4


def test_spacy_tags_nouns_and_adjectives():
    [tagged] = tag_words(["A small cat sat on the red mat."])
    tags = dict(zip(tagged.words, tagged.tags, strict=True))
    assert (tags["cat"], tags["mat"], tags["small"], tags["red"]) == ("NN", "NN", "JJ", "JJ")
