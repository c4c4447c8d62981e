"""Words from byte-pair tokens, against encoding each word alone; their scores against sums."""

import numpy as np
import pytest
import torch
from open_clip import SimpleTokenizer

from cae_lib.attribution import get_method
from cae_lib.attribution.word_scores import (
    merge_token_scores,
    positive_shares,
    split_words,
    word_scores,
)
from cae_lib.errors import ConfigError
from cae_lib.words.alignment import word_numbers

NAN = float("nan")


def test_each_word_has_a_number() -> None:
    words, tokenizer = ["a", "pterodactyl", "chases", "two", "giraffes"], SimpleTokenizer()
    pieces = [len(tokenizer.encode(word)) for word in words]
    assert max(pieces) > 1
    expected = [0, *(number for number, n in enumerate(pieces, 1) for _ in range(n))]
    # cat | ' | s for "cat's" is one clitic "'s"; "12" is two digits; "!!" one word
    captions = [" ".join(words), "the cat's 12 hats!!", "dog " * 100, ""]
    tokens = tokenizer(captions)
    plain, odd, long, empty = word_numbers(tokens, 49408)
    assert plain[: len(expected)].tolist() == expected
    assert not plain[len(expected) :].any()
    assert odd[:10].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 0, 0]
    assert long.tolist() == [0, *range(1, 76), 0]
    assert not empty.any()
    tokens[tokens == 0] = 60000  # ids beyond the vocabulary are refused elsewhere
    assert torch.equal(word_numbers(tokens, 49408)[0], plain)
    with pytest.raises(ConfigError, match="pass words"):
        word_numbers(torch.tensor([[1, 5, 2]]), 32000)


def test_words_as_text(tiny_clip) -> None:
    actual = split_words("The Pterodactyl's cup, striped", tiny_clip.tokenizer)
    assert actual == ["the", "pterodactyl", "'s", "cup", ",", "striped"]
    with pytest.raises(ConfigError, match="SimpleTokenizer"):
        split_words("a", lambda texts: texts)


def test_means_and_sums_of_a_words_tokens_and_their_shares() -> None:
    words = torch.tensor([[0, 1, 1, 2, 0], [0, 1, 0, 0, 0]])
    scores = torch.tensor([[9.0, 1.0, 3.0, 5.0, 9.0], [9.0, -1.0, 9.0, 9.0, 9.0]])
    np.testing.assert_array_equal(merge_token_scores(scores, words), [[2, 5], [-1, NAN]])
    np.testing.assert_array_equal(merge_token_scores(scores, words, "sum"), [[4, 5], [-1, NAN]])
    shares = positive_shares(torch.tensor([[3.0, -1.0, 1.0], [0.0, 0.0, 0.0]]))
    assert shares.tolist() == [[0.75, 0.0, 0.25], [0.0, 0.0, 0.0]]  # negative ones are left out


@pytest.mark.parametrize(
    ("method", "parameters"),
    [("gradient", {}), ("perturbation", {}), ("perturbation", {"unit": "token"})],
)
def test_scores_of_words(tiny_clip, method: str, parameters: dict) -> None:
    """The sum over a word's tokens; by perturbation of whole words, what each of them has."""
    tokens = tiny_clip.tokenizer(["a pterodactyl holds a cup", "a dog"])
    n = len(tiny_clip.tokenizer.encode("pterodactyl"))  # more than one
    images = torch.randn(2, 128, generator=torch.Generator().manual_seed(0))
    raw = get_method(method, **parameters)(tiny_clip.model, tokens, images).scores
    actual = word_scores(tiny_clip, tokens, images, method, **parameters)
    of_whole_words = method == "perturbation" and not parameters
    long_word = raw[0, 2] if of_whole_words else raw[0, 2 : 2 + n].sum()
    expected = torch.stack([raw[0, 1], long_word, *raw[0, 2 + n : 5 + n]])
    torch.testing.assert_close(actual[0], expected)
    torch.testing.assert_close(actual[1], torch.cat([raw[1, 1:3], torch.zeros(3)]))
