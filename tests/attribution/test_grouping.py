"""Words from byte-pair tokens, against encoding each word alone."""

from __future__ import annotations

import pytest
import torch
from open_clip import SimpleTokenizer

from cae_lib.attribution.grouping import word_index
from cae_lib.errors import ConfigError


def _word_index(captions: list[str]) -> torch.Tensor:
    tokens = SimpleTokenizer()(captions)
    return word_index(tokens, 49408)


def test_each_word_has_a_number() -> None:
    words = "a pterodactyl chases two giraffes underneath skyscrapers".split()
    pieces = [len(SimpleTokenizer().encode(word)) for word in words]
    assert max(pieces) > 1
    expected = [number for number, n in enumerate(pieces, 1) for _ in range(n)]
    index = _word_index([" ".join(words)])[0]
    assert index[0] == 0
    assert index[1 : len(expected) + 1].tolist() == expected
    assert index[len(expected) + 1 :].abs().max() == 0


def test_punctuation_and_digits_are_words_of_their_own() -> None:
    # cat | ' | s for "cat's" is one clitic "'s"; "12" is two digits; "!!" one word
    assert _word_index(["the cat's 12 hats!!"])[0, :10].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 0, 0]


def test_truncated_and_empty_captions() -> None:
    index = _word_index(["dog " * 100, ""])
    assert index[0].tolist() == [0, *range(1, 76), 0]
    assert index[1].abs().max() == 0


def test_other_vocabulary_is_refused() -> None:
    tokens = torch.tensor([[1, 5, 2]])
    with pytest.raises(ConfigError, match="32000 tokens.*pass words"):
        word_index(tokens, 32000)
