"""Image relevance against the rule of Chefer et al. written out for whole T x T matrices."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import open_clip
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cae_lib.attribution.heatmap import image_relevance, image_relevances, shares, upsampled
from cae_lib.errors import ConfigError, DataError
from cae_lib.models import Clip

B, T, GRID = 3, 50, 7


@pytest.fixture
def model(tiny_clip: Clip) -> nn.Module:
    """A double-precision clip-mini whose attention is far from uniform."""
    with torch.no_grad():
        for block in tiny_clip.model.visual.transformer.resblocks:
            block.attn.in_proj_weight.mul_(3)
    return tiny_clip.model.double()


@pytest.fixture
def pairs() -> tuple[Tensor, Tensor]:
    """Pictures and the features of their captions."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(B, 3, 112, 112, generator=generator, dtype=torch.float64)
    return images, torch.randn(B, 128, generator=generator, dtype=torch.float64)


@contextlib.contextmanager
def explicit(model: nn.Module) -> Iterator[list[Tensor]]:
    """open_clip's own forward pass with a softmax attention whose maps are kept."""
    maps: list[Tensor] = []

    def attend(module: nn.MultiheadAttention, x: Tensor) -> Tensor:
        q, k, v = (
            F.linear(x, w, b).unflatten(-1, (module.num_heads, -1))
            for w, b in zip(
                module.in_proj_weight.chunk(3), module.in_proj_bias.chunk(3), strict=True
            )
        )
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5
        maps.append(scores.softmax(-1))
        return module.out_proj(torch.einsum("bhqk,bkhd->bqhd", maps[-1], v).flatten(2))

    blocks = model.visual.transformer.resblocks
    for block in blocks:
        block.attention = lambda q_x, k_x=None, v_x=None, attn_mask=None, b=block: attend(
            b.attn, q_x
        )
    try:
        yield maps
    finally:
        for block in blocks:
            del block.attention


def written_out(
    model: nn.Module, images: Tensor, texts: Tensor, start: int, temperature: bool = True
) -> Tensor:
    with explicit(model) as maps:
        features = model.encode_image(images)
    similarity = F.cosine_similarity(features, texts)
    if temperature:
        similarity = similarity * model.logit_scale.exp()
    relevance = torch.eye(T, dtype=torch.float64).repeat(B, 1, 1)
    for layer, attention in enumerate(maps):
        if layer >= start:
            (gradient,) = torch.autograd.grad(similarity.sum(), attention, retain_graph=True)
            relevance = relevance + (gradient * attention).clamp(min=0).mean(1) @ relevance
    return relevance[:, 0, 1:].reshape(B, GRID, GRID).detach()


@pytest.mark.parametrize("start_layer", [0, 2, 3])
@pytest.mark.parametrize("temperature", [True, False])
def test_rule_written_out(model, pairs, start_layer: int, temperature: bool) -> None:
    found = image_relevance(model, *pairs, start_layer=start_layer, temperature=temperature)
    expected = written_out(model, *pairs, start_layer, temperature)
    assert expected.amax((1, 2)).min() > 1e-4
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-8)


def test_the_default_is_the_last_layer_with_temperature(model, pairs) -> None:
    torch.testing.assert_close(image_relevance(model, *pairs), written_out(model, *pairs, 3))


def test_several_start_layers_from_one_pass(model, pairs) -> None:
    found = image_relevances(model, *pairs, (0, -1))
    first, last = found.maps
    expected = F.normalize(model.encode_image(pairs[0]), dim=-1)
    torch.testing.assert_close(found.image_features, expected.detach())
    torch.testing.assert_close(first, image_relevance(model, *pairs, start_layer=0))
    torch.testing.assert_close(last, image_relevance(model, *pairs, start_layer=3))


def test_pairs_do_not_mix(model, pairs) -> None:
    images, texts = pairs
    alone = image_relevance(model, images[1:2], texts[1:2])
    torch.testing.assert_close(image_relevance(model, *pairs)[1:2], alone)


def test_a_frozen_model_in_inference(model, pairs) -> None:
    expected = image_relevance(model, *pairs)
    model.requires_grad_(False)
    with torch.no_grad():
        found = image_relevance(model, *pairs)
    torch.testing.assert_close(found, expected)
    assert not found.requires_grad


def test_captions_are_taken_at_any_length(model, pairs) -> None:
    images, texts = pairs
    torch.testing.assert_close(image_relevance(model, images, 7 * texts),
                               image_relevance(model, images, texts))


def test_bad_input(model, pairs) -> None:
    images, texts = pairs
    with pytest.raises(ConfigError, match="start_layer=4 does not fit a tower of 4 layers"):
        image_relevance(model, images, texts, start_layer=4)
    with pytest.raises(DataError, match="3 pictures with 2 captions"):
        image_relevance(model, images, texts[:2])
    config = open_clip.get_model_config("clip-mini")
    config["vision_cfg"]["pool_type"] = "avg"
    with pytest.raises(ConfigError, match="no attention maps"):
        image_relevance(open_clip.CLIP(**config).double(), images, texts)


def test_the_grid_keeps_rows_and_columns_apart() -> None:
    config = open_clip.get_model_config("clip-mini")
    config["vision_cfg"]["image_size"] = (64, 112)
    model = open_clip.CLIP(**config).eval()
    found = image_relevance(model, torch.randn(1, 3, 64, 112), torch.randn(1, 128))
    assert found.shape == (1, 4, 7)


def test_upsampling_is_bilinear_between_patch_centres() -> None:
    maps = torch.tensor([[[0.0, 4.0]]])
    assert upsampled(maps, 1, 4)[0, 0].tolist() == [0.0, 1.0, 3.0, 4.0]


def test_shares_sum_to_one() -> None:
    maps = torch.stack([torch.tensor([[1.0, 3.0], [0.0, 4.0]]), torch.zeros(2, 2)])
    found = shares(maps)
    assert found.tolist() == [[[0.125, 0.375], [0.0, 0.5]], [[0.25, 0.25], [0.25, 0.25]]]
