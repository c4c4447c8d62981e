"""Captions ready to be scored word by word, and their table, against loops over single captions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from cae_lib.attribution import METHODS, get_method
from cae_lib.evaluation.attribution import attribution_table, word_sample
from cae_lib.evaluation.embed import Encoder
from cae_lib.evaluation.sets import even_rows
from cae_lib.words.alignment import align
from cae_lib.words.roles import OBJECT, ROLE_NAMES, Span

WITH_WORDS = [0, 1, 3, 4]


@pytest.fixture
def clip(tiny_clip):
    """A model whose scores are far from 0."""
    with torch.no_grad():
        tiny_clip.model.token_embedding.weight.mul_(20)
    return tiny_clip


@pytest.fixture
def sample(clip, five):
    return word_sample(Encoder(clip), five.pairs, five.alignment, limit=9)


@pytest.mark.parametrize("limit, rows", [(None, range(5)), (3, [0, 2, 4])])
def test_every_caption_is_scored_with_its_own_picture(clip, five, limit, rows):
    """A loop over single pairs that reads pictures and roles by itself."""
    encoder, model = Encoder(clip), clip.model.train()
    how = {"methods": ["gradient"], "limit": limit, "batch_size": 2, "reduction": "grad_x"}
    found = attribution_table(encoder, five.pairs, five.alignment, **how)
    assert model.training and set(found.method) == {"gradient"}
    model.eval()
    scorer, expected = get_method("gradient", reduction="grad_x"), []
    for row in rows:
        picture = Image.open(five.pairs.image_paths[five.pictures[row]])
        with torch.no_grad():
            image = F.normalize(model.encode_image(clip.preprocess(picture)[None]))
        scores = scorer(model, clip.tokenizer([five.pairs.captions[row]]), image).scores[0]
        for place, word in enumerate(five.pairs.captions[row].split(), start=1):
            role = ROLE_NAMES[five.role_of.get(word, 0)]
            expected.append((row, five.pictures[row], place, word, role, float(scores[place])))
    *texts, scores = zip(*expected, strict=True)
    for name, column in zip(("caption", "picture", "position", "word", "role"), texts, strict=True):
        assert tuple(found[name]) == column
    np.testing.assert_allclose(found.score, scores, rtol=1e-3, atol=1e-6)


def test_a_word_of_several_tokens_has_a_row_for_each(tiny_clip, five):
    captions = ["a unicyclist", *five.pairs.captions[1:]]  # of 4 tokens
    alignment = align(captions, [[Span(2, 12, OBJECT)], *[[]] * 4], tiny_clip.tokenizer)
    found = attribution_table(Encoder(tiny_clip), five.pairs, alignment)
    assert list(found.method.unique()) == list(METHODS)
    for _, own in found[found.caption == 0].groupby("method"):
        assert list(own.position) == [1, 2, 3, 4, 5]
        assert list(own.word) == ["a", *["unicyclist"] * 4]
        assert list(own.role) == ["other", *["object"] * 4]


def test_a_method_that_replaces_words_scores_words_of_a_role(tiny_clip, five):
    found = attribution_table(Encoder(tiny_clip), five.pairs, five.alignment, ["counterfactual"])
    assert found.score[found.role == "other"].isna().all()
    assert found.score[found.role != "other"].notna().all()


def test_captions_keep_their_pictures_and_roles_and_one_without_a_word_is_left_out(
    clip, five, sample
):
    assert sample.captions.tolist() == WITH_WORDS
    assert sample.pictures.tolist() == [five.pictures[row] for row in WITH_WORDS]
    for place, row in enumerate(WITH_WORDS):
        words = five.pairs.captions[row].split()
        assert sample.word_texts(place, clip.tokenizer) == words
        assert sample.word_roles(place) == [ROLE_NAMES[five.role_of.get(word, 0)] for word in words]
        assert sample.n_words[place] == len(words)


def test_some_captions_are_taken_evenly(sample):
    part = sample.rows(even_rows(len(sample.captions), 2))
    assert part.captions.tolist() == [0, 4] and part.pictures.tolist() == [2, 1]
    for field in ("tokens", "words", "roles", "image_features"):
        assert torch.equal(getattr(part, field), getattr(sample, field)[[0, 3]])
