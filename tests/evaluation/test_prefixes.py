from __future__ import annotations

import pytest
import torch

from cae_lib.evaluation.prefixes import encode_texts, neighbours, pack_prefixes
from cae_lib.models.text_tower import text_tower

TEXTS = [
    "a red cat is near a small dog",
    "a red cat",
    "a red cat is near a small car",
    "the dog",
    "a red cat is behind a small dog",
    "a red cat is near a small dog that sleeps under the old green table",
    "a",
    "a red cat",
    "",
]


def _sorted(clip):
    tokens = clip.tokenizer(TEXTS)
    return tokens[neighbours(tokens, text_tower(clip.model).eot(tokens))]


@pytest.mark.parametrize("in_order", [True, False])
def test_features_are_those_of_open_clip(tiny_clip, in_order):
    model = tiny_clip.model.double()
    tokens = _sorted(tiny_clip) if in_order else tiny_clip.tokenizer(TEXTS)
    with torch.no_grad():
        found, expected = encode_texts(model, tokens), model.encode_text(tokens)
    torch.testing.assert_close(found, expected, atol=1e-11, rtol=1e-9)


def test_gradients_are_those_of_open_clip(tiny_clip):
    model, tokens = tiny_clip.model.double(), _sorted(tiny_clip)
    direction = torch.randn(len(TEXTS), 128, dtype=torch.float64)
    results = []
    for encode in (encode_texts, lambda model, tokens: model.encode_text(tokens)):
        model.zero_grad()
        (encode(model, tokens) * direction).sum().backward()
        results.append([p.grad for p in model.transformer.parameters()])
    torch.testing.assert_close(results[0], results[1], atol=1e-11, rtol=1e-9)


def test_a_beginning_in_common_is_computed_once(tiny_clip):
    tokens = tiny_clip.tokenizer(["a red cat", "a red cat sits", "a red dog", "the dog"])
    packing = pack_prefixes(tokens, text_tower(tiny_clip.model).eot(tokens))
    # start a red cat end | sits end | dog end | the dog end
    assert packing.positions.tolist() == [0, 1, 2, 3, 4, 4, 5, 3, 4, 1, 2, 3]
    assert packing.rows.tolist() == [0, 0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 3]
    assert packing.ends.tolist() == [4, 6, 8, 11]
    assert packing.source.view(4, 6).tolist() == [
        [0, 1, 2, 3, 4, 4],
        [0, 1, 2, 3, 5, 6],
        [0, 1, 2, 7, 8, 8],
        [0, 9, 10, 11, 11, 11],
    ]


def test_neighbours_have_about_one_length_and_begin_alike(tiny_clip):
    texts = ["x b c d", "a b", "a b c e", "x b c", "a b c d", "a"]
    tokens = tiny_clip.tokenizer(texts)
    order = neighbours(tokens, text_tower(tiny_clip.model).eot(tokens))
    # Lengths in pairs (2-3, 4-5); in each pair by tokens, where the end has the highest number.
    assert [texts[i] for i in order[:2]] == ["a b", "a"]
    assert {texts[i] for i in order[2:4]} == {"a b c d", "a b c e"}
    assert {texts[i] for i in order[4:]} == {"x b c", "x b c d"}
