"""Attribution by role on hand-made scores, and pair by pair."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from cae_lib.attribution import get_method
from cae_lib.evaluation.attribution import by_role, role_scores
from cae_lib.evaluation.embed import Encoder
from cae_lib.words.roles import ATTRIBUTE, OBJECT, RELATION

NUMBERS = {"object": OBJECT, "attribute": ATTRIBUTE, "relation": RELATION}
SCORES = torch.tensor([[0.9, 0.4, 0.2, 0.1, 0.0], [0.9, 0.3, 0.5, 0.0, 0.0]])
ROLES = torch.tensor([[0, 1, 1, 3, 0], [0, 2, 1, 0, 0]], dtype=torch.int8)


def test_tokens_and_captions_by_role():
    result = by_role(SCORES, ROLES)
    np.testing.assert_allclose(result.tokens["object"], [0.4, 0.2, 0.5])
    np.testing.assert_allclose(result.tokens["attribute"], [0.3])
    np.testing.assert_allclose(result.captions["object"], [0.3, 0.5])
    np.testing.assert_allclose(result.captions["relation"], [0.1, np.nan])


def test_record_counts_and_averages_tokens_not_captions():
    record = by_role(SCORES, ROLES).to_record()
    assert record["n_captions"] == 2
    assert record["object"]["n_tokens"] == 3
    assert abs(record["object"]["mean"] - 1.1 / 3) < 1e-6
    assert record["relation"]["captions"] == [0.1, None]
    assert record["object"]["percentiles"][50] == 0.4
    assert len(record["object"]["percentiles"]) == 101


def test_a_role_without_tokens_has_no_mean():
    record = by_role(SCORES[:1], ROLES[:1]).to_record()
    assert record["attribute"] == {
        "n_tokens": 0, "mean": None, "percentiles": [], "captions": [None],
    }  # fmt: skip


@pytest.mark.parametrize("limit, rows", [(None, range(5)), (3, [0, 2, 4])])
def test_every_caption_is_scored_with_its_own_picture(tiny_clip, five, limit, rows):
    """A loop over single pairs that reads pictures and roles by itself."""
    with torch.no_grad():
        tiny_clip.model.token_embedding.weight.mul_(20)
    encoder, model = Encoder(tiny_clip), tiny_clip.model.train()
    found = role_scores(
        encoder, five.pairs, five.alignment, "gradient", limit, 2, reduction="grad_x"
    )
    assert model.training and found.n_captions == len(rows)
    model.eval()
    scorer, tokens = get_method("gradient", reduction="grad_x"), {role: [] for role in NUMBERS}
    for place, row in enumerate(rows):
        picture = Image.open(five.pairs.image_paths[five.pictures[row]])
        with torch.no_grad():
            image = F.normalize(model.encode_image(tiny_clip.preprocess(picture)[None]))
        words = five.pairs.captions[row].split()
        ids = tiny_clip.tokenizer([five.pairs.captions[row]])
        scores = scorer(model, ids, image).scores[0, 1:].tolist()
        for role, number in NUMBERS.items():
            own = [scores[i] for i, word in enumerate(words) if five.role_of.get(word) == number]
            tokens[role] += own
            mean = np.mean(own) if own else np.nan
            assert found.captions[role][place] == pytest.approx(mean, rel=1e-3, nan_ok=True)
    for role, own in tokens.items():
        np.testing.assert_allclose(found.tokens[role], own, rtol=1e-3, atol=1e-6)
