"""Image relevance against the rule of Chefer et al. written out for whole T x T matrices."""

import open_clip
import pytest
import torch
import torch.nn.functional as F
from oracles import explicit_attention
from torch import Tensor, nn

from cae_lib.attribution.heatmap import image_relevances, relevance_shares, upsample
from cae_lib.errors import ConfigError, DataError
from cae_lib.models import Clip

B, GRID = 3, 7


@pytest.fixture
def model(tiny_clip: Clip) -> nn.Module:
    """Return a double-precision clip-mini whose attention is far from uniform."""
    with torch.no_grad():
        for block in tiny_clip.model.visual.transformer.resblocks:
            block.attn.in_proj_weight.mul_(3)
    return tiny_clip.model.double()


@pytest.fixture
def pairs() -> tuple[Tensor, Tensor]:
    """Return images and the features of their captions."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(B, 3, 112, 112, generator=generator, dtype=torch.float64)
    return images, torch.randn(B, 128, generator=generator, dtype=torch.float64)


def written_out(model: nn.Module, images: Tensor, texts: Tensor, start: int) -> Tensor:
    with explicit_attention(model.visual) as maps:
        features = model.encode_image(images)
    similarity = F.cosine_similarity(features, texts) * model.logit_scale.exp()
    relevance = torch.eye(GRID**2 + 1, dtype=torch.float64).repeat(B, 1, 1)
    for layer, attention in enumerate(maps):
        if layer >= start:
            (gradient,) = torch.autograd.grad(similarity.sum(), attention, retain_graph=True)
            relevance = relevance + (gradient * attention).clamp(min=0).mean(1) @ relevance
    return relevance[:, 0, 1:].reshape(B, GRID, GRID).detach()


def test_maps_are_those_of_the_rule_written_out(model, pairs) -> None:
    """The maps of several first layers come from one pass; the default is the last layer."""
    actual = image_relevances(model, *pairs, (0, 2, -1))
    for maps, start in zip(actual.maps, (0, 2, 3), strict=True):
        expected = written_out(model, *pairs, start)
        assert expected.amax((1, 2)).min() > 1e-4
        torch.testing.assert_close(maps, expected, atol=1e-12, rtol=1e-8)
    torch.testing.assert_close(image_relevances(model, *pairs).maps, actual.maps[2:])
    features = F.normalize(model.encode_image(pairs[0]), dim=-1)
    torch.testing.assert_close(actual.image_features, features.detach())
    model.requires_grad_(False)
    with torch.no_grad():
        frozen = image_relevances(model, *pairs).maps
    torch.testing.assert_close(frozen, actual.maps[2:])
    assert not frozen[0].requires_grad


def test_inputs_that_do_not_fit_are_refused(model, pairs) -> None:
    images, texts = pairs
    with pytest.raises(ConfigError, match="start_layer=4"):
        image_relevances(model, images, texts, (4,))
    with pytest.raises(DataError, match="2 captions"):
        image_relevances(model, images, texts[:2])
    config = open_clip.get_model_config("clip-mini")
    config["vision_cfg"]["pool_type"] = "avg"
    with pytest.raises(ConfigError, match="no attention maps"):
        image_relevances(open_clip.CLIP(**config).double(), images, texts)


def test_maps_keep_rows_and_columns_apart_and_their_sizes_and_shares() -> None:
    config = open_clip.get_model_config("clip-mini")
    config["vision_cfg"]["image_size"] = (64, 112)
    model = open_clip.CLIP(**config).eval()
    (actual,), _ = image_relevances(model, torch.randn(1, 3, 64, 112), torch.randn(1, 128))
    assert actual.shape == (1, 4, 7)
    # bilinear between the centres of patches
    assert upsample(torch.tensor([[[0.0, 4.0]]]), 1, 4)[0, 0].tolist() == [0.0, 1.0, 3.0, 4.0]
    maps = torch.tensor([[[1.0, 3.0], [0.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]]])
    expected = [[[0.125, 0.375], [0.0, 0.5]], [[0.25, 0.25], [0.25, 0.25]]]
    assert relevance_shares(maps).tolist() == expected
    maps[0, 0, 0] = torch.nan
    assert relevance_shares(maps)[0].isnan().all()
