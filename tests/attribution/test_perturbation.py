"""The perturbation method against captum's ablation and a loop over words."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cae_lib.attribution import get_method
from cae_lib.attribution.grouping import word_index
from cae_lib.errors import ConfigError
from cae_lib.models import packed
from cae_lib.models.packed import Packing, pack_rows


def _words(batch) -> Tensor:
    return word_index(batch.tokens, 49408)


def _assert_ablation(batch, groups: Tensor, baseline: Tensor, **parameters: object) -> None:
    expected = batch.ablation(groups, baseline)[:, : batch.eot.max() + 1]
    method = get_method("perturbation", **parameters)
    scores = method(batch.model, batch.tokens, batch.image_features).scores
    torch.testing.assert_close(scores, expected, atol=1e-10, rtol=0)
    assert scores[:, 1].abs().min() > 1e-5


def test_words_by_the_mean_embedding(batch) -> None:
    mean = batch.model.token_embedding.weight.detach().mean(0)
    _assert_ablation(batch, _words(batch), mean)


def test_words_by_the_mean_embedding_in_float32(batch) -> None:
    batch = batch.first(3)
    mean = batch.model.token_embedding.weight.detach().mean(0)
    expected = batch.ablation(_words(batch), mean)[:, : batch.eot.max() + 1].float()
    single = batch.single()
    scores = get_method("perturbation")(
        single.model, single.tokens, single.image_features
    ).scores
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=0)


def test_words_by_zero(batch) -> None:
    batch, zero = batch.first(3), torch.zeros(96, dtype=torch.float64)
    _assert_ablation(batch, _words(batch), zero, replacement="zero")


def test_words_by_a_fixed_token(batch) -> None:
    batch = batch.first(3)
    star = batch.model.token_embedding.weight[265].detach()
    _assert_ablation(batch, _words(batch), star, replacement="token")
    dog = batch.model.token_embedding.weight[1929].detach()
    _assert_ablation(batch, _words(batch), dog[None], replacement="token", token_id=1929)


def test_single_tokens(batch) -> None:
    batch = batch.first(3)
    tokens = torch.arange(77) * (_words(batch) > 0)
    zero = torch.zeros(96, dtype=torch.float64)
    _assert_ablation(batch, tokens, zero, replacement="zero", unit="token")


def test_clamp_and_temperature(batch) -> None:
    arguments = (batch.model, batch.tokens, batch.image_features)
    plain = get_method("perturbation")(*arguments).scores
    assert plain.min() < 0 < plain.max()
    clamped = get_method("perturbation", clamp=True)(*arguments).scores
    torch.testing.assert_close(clamped, plain.clamp(min=0))
    scaled = get_method("perturbation", temperature=True)(*arguments).scores
    torch.testing.assert_close(scaled, plain * batch.model.logit_scale.exp().item())


def test_random_word_is_another_word_of_the_batch(batch) -> None:
    method = get_method("perturbation", replacement="random", seed=3)
    arguments = (batch.model, batch.tokens[:2], batch.image_features[:2])
    scores = method(*arguments).scores
    torch.testing.assert_close(method(*arguments).scores, scores)
    other = get_method("perturbation", replacement="random", seed=4)(*arguments).scores
    assert not torch.allclose(other, scores)
    known = batch.tokens[:2][_words(batch)[:2] > 0].unique().tolist()
    whole = batch.similarity(batch.model.encode_text(batch.tokens)).detach()
    for position in (1, 2):  # "a dog": one of the other words explains the score exactly
        drops = []
        for token in known:
            tokens = batch.tokens.clone()
            tokens[0, position] = token
            if token != batch.tokens[0, position]:
                masked = batch.similarity(batch.model.encode_text(tokens)).detach()
                drops.append((whole - masked)[0])
        distance = (torch.stack(drops) - scores[0, position]).abs()
        assert (distance < 1e-10).sum() == 1


def test_random_word_needs_another_word(batch, tiny_clip) -> None:
    method = get_method("perturbation", replacement="random")
    tokens = tiny_clip.tokenizer(["dog", "dog dog"])
    with pytest.raises(ConfigError, match="two different words"):
        method(batch.model, tokens, batch.image_features[:2])


def test_words_can_be_given(batch) -> None:
    groups = torch.zeros(4, 77, dtype=torch.long)
    groups[1, 2], groups[1, 5], groups[2, 4:7], groups[0, 60] = 2, 2, 1, 1
    expected = batch.ablation(
        groups.masked_fill(torch.arange(77) > batch.eot[:, None], 0),
        batch.model.token_embedding.weight.detach().mean(0),
    )
    method = get_method("perturbation")
    scores = method(batch.model, batch.tokens, batch.image_features, words=groups).scores
    torch.testing.assert_close(scores, expected, atol=1e-10, rtol=0)
    assert scores[0].abs().max() == 0 and scores[1, 2] == scores[1, 5] != 0


def test_no_words_at_all(batch, tiny_clip) -> None:
    attribution = get_method("perturbation")(
        batch.model, tiny_clip.tokenizer(["", ""]), batch.image_features[:2]
    )
    assert attribution.scores.shape == (2, 2) and attribution.scores.abs().max() == 0


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=["fp64", "fp32"]
)
@pytest.mark.parametrize("replacement", ["mean", "token"])
def test_shared_prefixes_change_neither_scores_nor_gradients(
    replacement: str, dtype: torch.dtype, tolerance: float, batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against plain batching, which computes every variant from its first token on."""
    batch = batch.first(3) if dtype == torch.float64 else batch.first(3).single()
    method = get_method("perturbation", replacement=replacement)
    computed: list[int] = []

    def plain(eot: Tensor, owner: Tensor) -> Packing:
        packing = pack_rows(eot)
        computed.append(len(packing.active))
        return packing

    found = []
    for sharing in (True, False):
        if not sharing:
            monkeypatch.setattr(packed, "pack_rows", plain)
        batch.model.zero_grad()
        arguments = (batch.model, batch.tokens, batch.image_features)
        scores = method(*arguments, create_graph=True).scores
        (scores * torch.arange(1, scores.shape[1] + 1)).sum().backward()
        found.append((scores.detach(), batch.model.positional_embedding.grad.clone()))
    assert len(computed) == 1 and found[0][1].abs().max() > 1e-3
    torch.testing.assert_close(found[0][0], found[1][0], atol=tolerance, rtol=0)
    scale = found[1][1].abs().max()
    torch.testing.assert_close(found[0][1] / scale, found[1][1] / scale, atol=tolerance, rtol=0)


def test_states_before_the_masked_word_are_shared(
    batch, tiny_clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = tiny_clip.tokenizer(["red dog runs"])  # 5 positions, 3 words
    computed: list[int] = []

    def counted(eot: Tensor, owner: Tensor) -> Packing:
        packing = pack_rows(eot, owner)
        computed.append(len(packing.active))
        return packing

    monkeypatch.setattr(packed, "pack_rows", counted)
    get_method("perturbation")(batch.model, tokens, batch.image_features[:1])
    assert computed == [5 + 4 + 3 + 2]  # the caption, then each variant from its word on
