"""The table of attribution, pair by pair."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from cae_lib.attribution import METHODS, get_method
from cae_lib.evaluation.attribution import attribution_table
from cae_lib.evaluation.embed import Encoder
from cae_lib.words.alignment import align
from cae_lib.words.roles import OBJECT, ROLE_NAMES, Span


@pytest.mark.parametrize("limit, rows", [(None, range(5)), (3, [0, 2, 4])])
def test_every_caption_is_scored_with_its_own_picture(tiny_clip, five, limit, rows):
    """A loop over single pairs that reads pictures and roles by itself."""
    with torch.no_grad():
        tiny_clip.model.token_embedding.weight.mul_(20)
    encoder, model = Encoder(tiny_clip), tiny_clip.model.train()
    how = {"methods": ["gradient"], "limit": limit, "batch_size": 2, "reduction": "grad_x"}
    found = attribution_table(encoder, five.pairs, five.alignment, **how)
    assert model.training and set(found.method) == {"gradient"}
    model.eval()
    scorer, expected = get_method("gradient", reduction="grad_x"), []
    for row in rows:
        picture = Image.open(five.pairs.image_paths[five.pictures[row]])
        with torch.no_grad():
            image = F.normalize(model.encode_image(tiny_clip.preprocess(picture)[None]))
        scores = scorer(model, tiny_clip.tokenizer([five.pairs.captions[row]]), image).scores[0]
        for place, word in enumerate(five.pairs.captions[row].split(), start=1):
            role = ROLE_NAMES[five.role_of.get(word, 0)]
            expected.append((row, five.pictures[row], place, word, role, float(scores[place])))
    *texts, scores = zip(*expected, strict=True)
    for name, column in zip(("caption", "picture", "position", "word", "role"), texts, strict=True):
        assert tuple(found[name]) == column
    np.testing.assert_allclose(found.score, scores, rtol=1e-3, atol=1e-6)


def test_a_word_of_several_tokens_has_a_row_for_each(tiny_clip, five):
    captions = ["a unicyclist", *five.pairs.captions[1:]]  # of 4 tokens
    spans = [[Span(2, 12, OBJECT)], *[[]] * 4]
    alignment = align(captions, spans, tiny_clip.tokenizer)
    found = attribution_table(Encoder(tiny_clip), five.pairs, alignment)
    assert list(found.method.unique()) == list(METHODS)
    for _, own in found[found.caption == 0].groupby("method"):
        assert list(own.position) == [1, 2, 3, 4, 5]
        assert list(own.word) == ["a", *["unicyclist"] * 4]
        assert list(own.role) == ["other", *["object"] * 4]
