"""Swap negatives of captions whose exchanges are written out, and how they are stored."""

import itertools
from pathlib import Path

import pytest
import torch

from cae_lab import training_set
from cae_lab.profiles import load_profile
from cae_lib.data import negatives
from cae_lib.data.captions import ImageCaptionPairs
from cae_lib.data.negatives import swap_negatives

SHIRT = "A man in a red shirt rides a black horse."
CAPTIONS = {
    SHIRT: {
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
    "many people near other buildings": set(),
    # a parser reads the text that an entity stands for
    "a black &amp; white cat sits on a red mat": {
        "a red & white cat sits on a black mat",
        "a black & white mat sits on a red cat",
        "a red mat sits on a black & white cat",
    },
}
SAME_MEANING = {
    "A man and a woman sit on a bench.": {"A woman and a man sit on a bench."},
    "a small red car and a big dog": {"a red small car and a big dog"},
    "a black and white dog": {"a white and black dog"},
    "a man with a hat and a woman": set(),
    "a tall man and a woman": set(),
    "a man and two women": set(),
    "a red car near a blue car": set(),
    "a dog": set(),
}


@pytest.mark.parametrize("caption", CAPTIONS)
def test_exchanges_of_a_caption_by_hand(caption: str) -> None:
    (texts,) = swap_negatives([caption], limit=20)
    assert set(texts) == CAPTIONS[caption] and len(texts) == len(CAPTIONS[caption])


def test_exchanges_that_keep_the_meaning_by_hand() -> None:
    texts = swap_negatives(list(SAME_MEANING), preserve_meaning=True)
    assert [*map(set, texts)] == [*SAME_MEANING.values()]


def test_choice_of_negatives_is_seeded_and_limited() -> None:
    pairs = [
        f"a black {first} and a white {second}"
        for first, second in itertools.permutations(("cat", "dog", "cow", "cup"), 2)
    ]
    few = swap_negatives([SHIRT, "a dog", SHIRT, *pairs], seed=1, limit=2)
    assert len(few[0]) == 2 and few[0] == few[2] and set(few[0]) <= CAPTIONS[SHIRT]
    assert few[0] == swap_negatives([SHIRT], seed=1, limit=2)[0]
    adjective_first = [texts[0].startswith("a white") for texts in few[3:]]
    assert 0 < sum(adjective_first) < len(pairs)  # each caption has an order of its own
    others = {tuple(swap_negatives([SHIRT], seed=s, limit=2)[0]) for s in range(2, 6)}
    assert len(others | {tuple(few[0])}) > 2


@pytest.mark.parametrize("name", ["spacy", "kept"])
def test_stored_negatives_belong_to_the_version_of_the_parser(home: Path, monkeypatch, name: str):
    calls: list[bool] = []
    rows = ImageCaptionPairs([], ["a dog"] * 2, torch.tensor([0, 1]), "", 2, 2, None, [[1], [0]])

    def swap(captions: list[str], preserve_meaning: bool) -> list[list[str]]:
        calls.append(preserve_meaning)
        return [[f"swap {len(calls)}"] for _ in captions]

    monkeypatch.setattr(negatives, "swap_negatives", swap)
    monkeypatch.setattr(training_set, "load_negclip_tsv", lambda *file, **options: rows)
    for _ in range(2):
        pairs = training_set.training_pairs(load_profile("smoke"), name)
        assert pairs.negatives == [["swap 1"]] * 2
    assert calls == [name == "kept"]
    assert pairs.hard_images == (None if name == "kept" else [[1], [0]])
    monkeypatch.setattr(negatives.importlib.metadata, "version", lambda name: "0.0.1")
    pairs = training_set.training_pairs(load_profile("smoke"), name)
    assert pairs.negatives == [["swap 2"]] * 2
