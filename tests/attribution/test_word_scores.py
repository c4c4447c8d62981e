"""Word scores against sums by hand."""

from __future__ import annotations

import pytest
import torch

from cae_lib.attribution import get_method
from cae_lib.attribution.word_scores import WordScores, split_words, word_scores
from cae_lib.errors import ConfigError
from cae_lib.models import Clip

# "pterodactyl" has four tokens, the other words one each.
CAPTIONS = ["a pterodactyl holds a cup", "a dog"]


@pytest.fixture
def inputs(tiny_clip: Clip) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        tiny_clip.model.token_embedding.weight.mul_(20)
    generator = torch.Generator().manual_seed(0)
    images = torch.nn.functional.normalize(torch.randn(2, 128, generator=generator), dim=-1)
    return tiny_clip.tokenizer(CAPTIONS), images


def test_words(tiny_clip: Clip) -> None:
    text = "The Pterodactyl's cup, striped"
    assert split_words(text, tiny_clip.tokenizer) == [
        "the", "pterodactyl", "'s", "cup", ",", "striped",
    ]
    with pytest.raises(ConfigError, match="SimpleTokenizer"):
        split_words("a", lambda texts: texts)


@pytest.mark.parametrize("method", ["attention", "gradcam", "gradient"])
def test_a_word_is_the_sum_of_its_tokens(tiny_clip: Clip, inputs, method: str) -> None:
    tokens, images = inputs
    pieces = [tiny_clip.tokenizer.encode(word) for word in CAPTIONS[0].split()]
    n = len(pieces[1])
    assert n > 1
    raw = get_method(method)(tiny_clip.model, tokens, images).scores
    found = word_scores(tiny_clip, tokens, images, method)
    expected = [raw[0, 1], raw[0, 2 : 2 + n].sum(), *raw[0, 2 + n : 5 + n]]
    torch.testing.assert_close(found.scores[0], torch.stack(expected))
    torch.testing.assert_close(found.scores[1], torch.cat([raw[1, 1:3], torch.zeros(3)]))
    assert found.present.tolist() == [[True] * 5, [True, True, False, False, False]]


def test_a_masked_word_counts_once(tiny_clip: Clip, inputs) -> None:
    tokens, images = inputs
    raw = get_method("perturbation")(tiny_clip.model, tokens, images).scores
    found = word_scores(tiny_clip, tokens, images, "perturbation")
    torch.testing.assert_close(found.scores[0, 1], raw[0, 2])


def test_shares_leave_out_negative_scores() -> None:
    scores = WordScores(torch.tensor([[3.0, -1.0, 1.0], [0.0, 0.0, 0.0]]), torch.ones(2, 3))
    assert scores.shares().tolist() == [[0.75, 0.0, 0.25], [0.0, 0.0, 0.0]]


def test_parameters_reach_the_method(tiny_clip: Clip, inputs) -> None:
    tokens, images = inputs
    last = word_scores(tiny_clip, tokens, images, "gradcam", start_layer=-1)
    every = word_scores(tiny_clip, tokens, images, "gradcam")
    assert not torch.allclose(last.scores, every.scores)
