"""Captions ready to be scored word by word, against a loop over single captions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from cae_lib.attribution import get_method
from cae_lib.evaluation.embed import Encoder
from cae_lib.evaluation.word_sample import even_rows, word_sample
from cae_lib.words.roles import ROLE_NAMES

WITH_WORDS = [0, 1, 3, 4]


@pytest.fixture
def sample(tiny_clip, five):
    with torch.no_grad():
        tiny_clip.model.token_embedding.weight.mul_(20)
    return word_sample(Encoder(tiny_clip), five.pairs, five.alignment, limit=9)


def test_captions_keep_their_pictures_and_roles_and_one_without_a_word_is_left_out(
    tiny_clip, five, sample
):
    assert sample.captions.tolist() == WITH_WORDS
    assert sample.pictures.tolist() == [five.pictures[row] for row in WITH_WORDS]
    for place, row in enumerate(WITH_WORDS):
        words = five.pairs.captions[row].split()
        assert sample.word_texts(place, tiny_clip.tokenizer) == words
        assert sample.word_roles(place) == [ROLE_NAMES[five.role_of.get(word, 0)] for word in words]
        assert sample.n_words[place] == len(words)
        picture = Image.open(five.pairs.image_paths[five.pictures[row]])
        with torch.no_grad():
            image = tiny_clip.model.encode_image(tiny_clip.preprocess(picture)[None])
        torch.testing.assert_close(sample.image_features[place], F.normalize(image)[0])


@pytest.mark.parametrize("at_once", [1, 3, 20])
def test_scores_are_those_of_each_caption_alone(tiny_clip, five, sample, at_once):
    found = sample.scores(tiny_clip.model, "gradient", batch_size=at_once, reduction="grad_x")
    scorer = get_method("gradient", reduction="grad_x")
    for place, row in enumerate(WITH_WORDS):
        tokens = tiny_clip.tokenizer([five.pairs.captions[row]])
        image = sample.image_features[place : place + 1]
        expected = scorer(tiny_clip.model, tokens, image).scores[0, 1:-1]
        np.testing.assert_allclose(found[place, : len(expected)], expected, rtol=1e-3, atol=1e-6)
        assert np.isnan(found[place, len(expected) :]).all()


def test_some_captions_are_taken_evenly(sample):
    part = sample.rows(even_rows(len(sample.captions), 2))
    assert part.captions.tolist() == [0, 4] and part.pictures.tolist() == [2, 1]
    for field in ("tokens", "words", "roles", "image_features"):
        assert torch.equal(getattr(part, field), getattr(sample, field)[[0, 3]])
