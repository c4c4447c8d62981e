"""Swap negatives of captions whose exchanges are written out."""

import itertools
import re

import pytest

from cae_lib.data.negatives import swap_negatives

CAPTIONS = {
    "A man in a red shirt rides a black horse.": {
        "A shirt in a red man rides a black horse.",
        "A horse in a red shirt rides a black man.",
        "A man in a red horse rides a black shirt.",
        "A red shirt in a man rides a black horse.",
        "A black horse in a red shirt rides a man.",
        "A man in a black horse rides a red shirt.",
        "A man in a black shirt rides a red horse.",
    },
    # articles follow the sound, the capital stays at the start, spaces are single
    "An elephant  chases a\ncat": {"A cat chases an elephant"},
    "a cat sees an old elephant ": {"an elephant sees an old cat", "an old elephant sees a cat"},
    "an heir sees a unicorn": {"a unicorn sees an heir"},
    # number must agree, and degree
    "a dog chases two cats": set(),
    "a dog sees cats": set(),
    "two cats see dogs": {"dogs see two cats"},
    "a bigger dog chases a red cat": {
        "a bigger cat chases a red dog",
        "a red cat chases a bigger dog",
    },
    "a red dog is happy": set(),
    # "its" stays with its owner
    "a dog chases its ball": {"a ball chases its dog"},
    "two dogs chase three cats": {"two cats chase three dogs", "three cats chase two dogs"},
    # both ways say the same, unless an adjective tells them apart
    "a cat next to a dog": set(),
    "a cat and a dog": set(),
    "a black cat and a white dog": {"a black dog and a white cat", "a white cat and a black dog"},
    # compounds stay whole; "top of" and "group of" stay where they are
    "a tennis player holds a trophy": {"a trophy holds a tennis player"},
    "a bird on top of a car": {"a car on top of a bird"},
    "a dog stands at the side": set(),
    # adjectives of one noun say the same in either order
    "a small red car": set(),
    "a dog": set(),
    "many people near other buildings": set(),
}


@pytest.fixture(scope="module")
def found() -> dict[str, list[str]]:
    return dict(zip(CAPTIONS, swap_negatives(list(CAPTIONS), limit=20), strict=True))


@pytest.mark.parametrize("caption", CAPTIONS)
def test_the_exchanges_of_a_caption_are_fluent_and_other_than_it(caption: str, found) -> None:
    assert set(found[caption]) == CAPTIONS[caption]
    assert len(found[caption]) == len(CAPTIONS[caption])
    for text in found[caption]:
        assert text.lower() != " ".join(caption.lower().split())
        assert not re.search(r"\s\s|\s[.,]|\s$|^\s|\ba [aeio]|\ban [bcdfgj-np-t]", text)
        words = [sorted(re.findall(r"\w{3,}", t.lower())) for t in (text, caption)]
        assert words[0] == words[1] and text[0].isupper() == caption[0].isupper()


def test_exchanges_that_keep_the_meaning_by_hand() -> None:
    kept = {
        "A man and a woman sit on a bench.": {"A woman and a man sit on a bench."},
        "a small red car and a big dog": {"a red small car and a big dog"},
        "a black and white dog": {"a white and black dog"},
        "a man with a hat and a woman": set(),
        "a tall man and a woman": set(),
        "a man and two women": set(),
        "a red car near a blue car": set(),
        "a dog": set(),
    }
    assert [*map(set, swap_negatives(list(kept), preserve_meaning=True))] == [*kept.values()]


def test_the_choice_is_seeded_and_limited() -> None:
    caption = "A man in a red shirt rides a black horse."
    pairs = [
        f"a black {first} and a white {second}"
        for first, second in itertools.permutations(("cat", "dog", "cow", "cup"), 2)
    ]
    few = swap_negatives([caption, "a dog", caption, *pairs], seed=1, limit=2)
    assert len(few[0]) == 2 and few[0] == few[2] and set(few[0]) <= CAPTIONS[caption]
    assert few[0] == swap_negatives([caption], seed=1, limit=2)[0]
    adjective_first = [texts[0].startswith("a white") for texts in few[3:]]
    assert 0 < sum(adjective_first) < len(pairs)  # each caption has an order of its own
    others = {tuple(swap_negatives([caption], seed=s, limit=2)[0]) for s in range(2, 6)}
    assert len(others | {tuple(few[0])}) > 2


def test_the_text_that_entities_stand_for_is_swapped() -> None:
    plain = "a black & white cat sits on a red mat"
    assert swap_negatives([plain.replace("&", "&amp;")]) == swap_negatives([plain]) != [[]]
