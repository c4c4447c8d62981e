"""The swap-margin loss for captions of one's own: from text to swaps to the loss."""

import warnings
from itertools import combinations

import pytest
import torch
import torch.nn.functional as F
from open_clip import SimpleTokenizer

import cae_lib as cae
from cae_lib.attribution.binding import swapped_captions
from cae_lib.errors import ConfigError
from cae_lib.training.batch import is_kept_pair, select_swaps

TOKENIZER = SimpleTokenizer()


def swaps_of(caption: str, swapped: tuple[str, ...] = ()) -> set[str]:
    """Return the captions that training makes of a caption."""
    words = cae.token_roles([caption], TOKENIZER, "dependency")
    words = select_swaps(words, swapped, TOKENIZER.decode)
    _, _, variants = swapped_captions(
        words.tokens, words.words, words.roles, None, words.swaps, swap_kind="phrase"
    )
    return {TOKENIZER.decode(ids[1 : ids.index(max(ids))]).strip() for ids in variants.tolist()}


def test_a_training_uses_the_swaps_of_one_kind() -> None:
    caption = "a red cup to the left of a green book"
    left = {"a green book to the left of a red cup"}
    colours = {"a green cup to the left of a red book"}
    assert swaps_of(caption) == left | colours
    for swapped, expected in (
        (("relations",), left),
        (("attributes",), colours),
        (("left", "above"), left),
        (("above",), set()),
    ):
        assert swaps_of(caption, swapped=swapped) == expected


def test_half_of_the_pairs_of_words_are_swapped_in_training() -> None:
    nouns = "cup book clock dog cat horse".split()
    pairs = [*combinations(nouns, 2)]
    kept = [pair for pair in pairs if is_kept_pair(*pair)]
    assert kept == [pair for pair in pairs if is_kept_pair(*pair[::-1])]
    assert 0.25 < len(kept) / len(pairs) < 0.75
    for first, second in pairs:
        swaps = swaps_of(f"a {first} behind a {second}", swapped=("pairs",))
        expected = {f"a {second} behind a {first}"} if (first, second) in kept else set()
        assert swaps == expected


def test_taggers_that_cannot_do_what_is_asked_are_refused() -> None:
    words = cae.token_roles(["a dog behind a cat"], TOKENIZER)
    with pytest.raises(ConfigError, match="tagger that finds swaps"):
        select_swaps(words, ("relations",), TOKENIZER.decode)
    with pytest.raises(ConfigError, match="dependency"):
        cae.token_roles(["a dog"], TOKENIZER, "no such tagger")


def test_a_batch_warns_if_most_captions_have_no_swap(model) -> None:
    captions = ["a dog chases a cat", "a sunset", "a dog and a cat"]
    words = cae.token_roles(captions, TOKENIZER, "dependency")
    images = F.normalize(
        torch.randn(3, 128, generator=torch.Generator().manual_seed(0)).double(), dim=-1
    )
    loss = cae.CAELoss(model, method="binding", margin=0.5)
    with pytest.warns(UserWarning, match="swap"):
        loss(images, words.tokens, words.roles, words.words, swaps=words.swaps)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        half = words.take(torch.arange(2))  # of COCO's captions, 30 % have none
        loss(images[:2], half.tokens, half.roles, half.words, swaps=half.swaps)
        other = cae.CAELoss(model, method="counterfactual")  # does not act on swaps
        other(images, words.tokens, words.roles, words.words, swaps=words.swaps)
