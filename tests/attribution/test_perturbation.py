"""The perturbation method where words are drawn, given or missing, and what its variants share."""

import dataclasses
from unittest.mock import Mock

import pytest
import torch
from oracles import Batch
from torch import Tensor

from cae_lib.attribution import get_method
from cae_lib.attribution.base import Captions
from cae_lib.errors import ConfigError, DataError
from cae_lib.models import packed, text_encoder
from cae_lib.models.packed import plan_packing
from cae_lib.words.alignment import word_numbers


def test_random_word_is_another_word_of_the_batch(batch, attribute) -> None:
    two = batch.first(2)
    scores = attribute(two, "perturbation", replacement="random").scores
    assert torch.equal(attribute(two, "perturbation", replacement="random").scores, scores)
    other = dataclasses.replace(two, model=text_encoder(two.model, "reference"))
    again = attribute(other, "perturbation", replacement="random").scores[:, : scores.shape[1]]
    torch.testing.assert_close(again, scores, atol=1e-12, rtol=0)  # the same draw on each path
    word_tokens = two.tokens[word_numbers(two.tokens, 49408) > 0].unique().tolist()
    whole = two.similarity(two.model.encode_text(two.tokens)).detach()
    for position in (1, 2):  # "a dog": one of the other words explains the score exactly
        drops = []
        for token in word_tokens:
            tokens = two.tokens.clone()
            tokens[0, position] = token
            if token != two.tokens[0, position]:
                masked = two.similarity(two.model.encode_text(tokens)).detach()
                drops.append((whole - masked)[0])
        assert ((torch.stack(drops) - scores[0, position]).abs() < 1e-10).sum() == 1
    alone = dataclasses.replace(two.first(1), tokens=two.tokens[:1, [0, 2, 2, 3]])
    with pytest.raises(ConfigError, match="random"):
        attribute(alone, "perturbation", replacement="random")


def test_of_two_words_the_random_one_is_always_the_other(batch, attribute, tiny_clip) -> None:
    tokens = tiny_clip.tokenizer(["dog " * 20, "cat"])
    places, rows = torch.arange(20), tokens[:1].repeat(21, 1)
    rows[places, places + 1] = tokens[1, 1]
    features = batch.model.encode_text(rows).detach()
    similarity = torch.cosine_similarity(features, batch.image_features[:1])
    expected = similarity[20] - similarity[:20]
    assert expected.abs().min() > 1e-6
    two = dataclasses.replace(batch.first(2), tokens=tokens)
    actual = attribute(two, "perturbation", replacement="random").scores[0, 1:21]
    torch.testing.assert_close(actual, expected, atol=1e-10, rtol=0)


def test_random_words_are_not_needed_where_no_word_is_requested(batch) -> None:
    captions = Captions(text_encoder(batch.model), batch.tokens, batch.image_features)
    nothing = dataclasses.replace(captions, requested=torch.zeros_like(batch.tokens).bool())
    method = get_method("perturbation", replacement="random")
    assert not method.attribute(nothing.validate()).scores.any()


@torch.no_grad()
def _scores(batch: Batch, words: Tensor, requested: Tensor | None = None) -> Tensor:
    """Score with other words than those of the tokens, which a call refuses."""
    captions = Captions(
        text_encoder(batch.model), batch.tokens, batch.image_features, False, words, requested
    )
    return get_method("perturbation").score(captions).scores


def test_words_can_be_given_or_missing(batch, attribute, tiny_clip) -> None:
    groups = torch.zeros(4, 77, dtype=torch.long)
    groups[1, 2], groups[1, 5], groups[2, 4:7], groups[0, 60] = 2, 2, 1, 1
    inside = groups.masked_fill(torch.arange(77) > batch.eot[:, None], 0)
    mean = batch.model.token_embedding.weight.detach().mean(0)
    with pytest.raises(DataError, match="caption 0 "):
        attribute(batch, "perturbation", {"words": groups})
    scores = _scores(batch, groups)
    torch.testing.assert_close(scores, batch.ablation(inside, mean), atol=1e-10, rtol=0)
    assert scores[0].abs().max() == 0
    assert scores[1, 2] == scores[1, 5] != 0
    requested = groups.new_zeros(4, 77, dtype=torch.bool)
    requested[2, 5] = True  # one token of three
    actual = _scores(batch, groups, requested)
    torch.testing.assert_close(actual[2], scores[2], atol=1e-10, rtol=0)
    assert actual[2, 4:7].all()
    assert not actual[[0, 1, 3]].any()
    empty = dataclasses.replace(batch.first(2), tokens=tiny_clip.tokenizer(["", ""]))
    scores = attribute(empty, "perturbation").scores
    assert scores.shape == (2, 2)
    assert scores.abs().max() == 0


def test_states_before_the_masked_word_are_shared(batch, attribute, tiny_clip, monkeypatch) -> None:
    pack = Mock(side_effect=plan_packing)
    monkeypatch.setattr(packed, "plan_packing", pack)
    monkeypatch.setattr(packed, "STATES_MULTIPLE", 1)
    tokens = tiny_clip.tokenizer(["red dog runs"])  # 5 positions, 3 words
    attribute(dataclasses.replace(batch.first(1), tokens=tokens), "perturbation")
    computed = [
        len(plan_packing(*call.args, **call.kwargs).padded_indices) for call in pack.call_args_list
    ]
    assert computed == [5 + 4 + 3 + 2]  # the caption, then each variant from its word on
