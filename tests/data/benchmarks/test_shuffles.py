from __future__ import annotations

from collections import Counter

import numpy as np

from cae_lib.data.benchmarks.shuffles import TaggedWords, clean_caption, shuffles, tag_words

WORDS = "the big red dog saw a small blue cat and seven tall trees".split()
TAGS = "DT JJ JJ NN VBD DT JJ JJ NN CC CD JJ NNS".split()
CAPTION = TaggedWords(tuple(WORDS), tuple(TAGS))


def draw(seed):
    return [text.split() for text in shuffles(CAPTION, np.random.default_rng(seed))]


def test_clean_caption_lowers_blanks_marks_collapses_and_cuts():
    assert clean_caption(' A "Dog": (big), runs!  Fast. ') == "a dog big , runs fast"
    assert clean_caption("# a;b~c*d\n") == "a b c d"
    assert clean_caption(" ".join("w" * 40)) == " ".join("w" * 30)


def test_nouns_swap_with_nouns_and_adjectives_with_adjectives():
    seen = set()
    for seed in range(20):
        text = draw(seed)[0]
        for tags in (("NN", "NNS"), ("JJ",)):
            places = [i for i, tag in enumerate(TAGS) if tag in tags]
            assert Counter(text[i] for i in places) == Counter(WORDS[i] for i in places)
        kept = [i for i, tag in enumerate(TAGS) if tag not in ("NN", "NNS", "JJ")]
        assert all(text[i] == WORDS[i] for i in kept)
        seen.add(tuple(text))
    assert len(seen) > 5


def test_second_shuffle_moves_only_the_other_words():
    seen = set()
    for seed in range(20):
        text = draw(seed)[1]
        content = [i for i, tag in enumerate(TAGS) if tag in ("NN", "NNS", "JJ")]
        assert all(text[i] == WORDS[i] for i in content)
        assert Counter(text) == Counter(WORDS)
        seen.add(tuple(text))
    assert len(seen) > 5


def test_third_shuffle_stays_within_runs_of_three():
    texts = [draw(seed)[2] for seed in range(20)]
    for text in texts:
        for start in range(0, len(WORDS), 3):
            assert Counter(text[start : start + 3]) == Counter(WORDS[start : start + 3])
    assert len({tuple(text) for text in texts}) > 5


def test_fourth_shuffle_moves_whole_runs_of_three():
    runs = {" ".join(WORDS[start : start + 3]) for start in range(0, len(WORDS), 3)}
    texts = [" ".join(draw(seed)[3]) for seed in range(20)]
    for text in texts:
        assert len(text.split()) == len(WORDS)
        assert all(run in text for run in runs)
    assert len(set(texts)) > 5


def test_short_captions_do_not_fail():
    for words in ((), ("dogs",)):
        tagged = TaggedWords(words, ("NNS",) * len(words))
        assert shuffles(tagged, np.random.default_rng(0)) == (" ".join(words),) * 4


def test_spacy_tags_nouns_and_adjectives():
    [tagged] = tag_words(["A small cat sat on the red mat."])
    tags = dict(zip(tagged.words, tagged.tags, strict=True))
    assert (tags["cat"], tags["mat"], tags["small"], tags["red"]) == ("NN", "NN", "JJ", "JJ")
