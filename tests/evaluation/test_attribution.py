"""Scores of words and their table."""

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from cae_bench.encoder import Encoder
from cae_lab.attribution import attribution_table
from cae_lib.attribution import get_method
from cae_lib.data.captions import ImageCaptionPairs
from cae_lib.words.alignment import align
from cae_lib.words.roles import ATTRIBUTE, OBJECT, RELATION, ROLE_NAMES, Span

CAPTIONS = ["a red cat", "the very small dog is on a wide bed", "", "a wet car near it", "two cups"]
PICTURES = [2, 0, 1, 0, 1]
ROLES = {OBJECT: "cat dog bed car cups", ATTRIBUTE: "red small wide wet", RELATION: "on near"}
ROLE_OF = {word: role for role, words in ROLES.items() for word in words.split()}


@pytest.fixture
def five(tmp_path, clip):
    """Five captions, one token a word and one of them empty, of three pictures in no order."""
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        noise = np.random.default_rng(number).integers(0, 256, (112, 112, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
    words = [re.finditer(r"\w+", text) for text in CAPTIONS]
    spans = [
        [Span(*word.span(), ROLE_OF[word[0]]) for word in result if word[0] in ROLE_OF]
        for result in words
    ]
    pairs = ImageCaptionPairs(paths, CAPTIONS, torch.tensor(PICTURES), "toy", 5, 5)
    return pairs, align(CAPTIONS, spans, clip.tokenizer)


@pytest.mark.parametrize(("limit", "rows"), [(None, range(5)), (3, [0, 2, 4])])
def test_every_caption_is_scored_with_its_own_picture(clip, five, limit, rows):
    """A loop over single pairs that reads pictures and roles by itself."""
    encoder, model = Encoder(clip), clip.model.train()
    of_few_words = attribution_table(encoder, *five, ["counterfactual"])
    assert len(of_few_words) and not (of_few_words.role == "other").any(), "none without a score"
    result = attribution_table(
        encoder, *five, methods=["gradient"], limit=limit, batch_size=2, reduction="grad_x"
    )
    assert model.training and set(result.method) == {"gradient"}
    model.eval()
    scorer, expected = get_method("gradient", reduction="grad_x"), []
    for row in rows:
        picture = Image.open(five[0].image_paths[PICTURES[row]])
        with torch.no_grad():
            image = F.normalize(model.encode_image(clip.preprocess(picture)[None]))
        scores = scorer(model, clip.tokenizer([CAPTIONS[row]]), image).scores[0]
        for place, word in enumerate(CAPTIONS[row].split(), start=1):
            role = ROLE_NAMES[ROLE_OF.get(word, 0)]
            expected.append((row, PICTURES[row], place, word, role, float(scores[place])))
    *texts, scores = zip(*expected, strict=True)
    for name, column in zip(("caption", "picture", "position", "word", "role"), texts, strict=True):
        assert tuple(result[name]) == column
    np.testing.assert_allclose(result.score, scores, rtol=1e-3, atol=1e-6)
