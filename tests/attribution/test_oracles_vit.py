"""All four methods against independent oracles at the sizes of ViT-B/32 and ViT-L/14.

The text towers are open_clip's, with random weights; the image tower is cut down, for no method
reads it. Every method, and the features, must agree to 1e-10 in float64 and to 1e-5 in float32.
"""

from __future__ import annotations

from types import SimpleNamespace

import open_clip
import pytest
import torch
from oracles import Batch, make_batch
from torch import Tensor

from cae_lib.attribution import get_method

IMAGE_TOWER = {"image_size": 32, "patch_size": 16, "width": 64, "layers": 1, "head_width": 32}
LAYERS = 3
CAPTIONS = ("a red giraffe chases pterodactyls", "two dogs")
WORDS = ((1, 2, 3, 4, 5, 5, 5, 5, 5), (1, 2))  # "pterodactyls" has five tokens

TOWERS = {
    "ViT-B-32": {},
    "ViT-B-32-quickgelu": {},
    "ViT-B-32 as CustomTextCLIP": {"force_custom_text": True},
    "ViT-L-14": {},
    "ViT-B-32-quickgelu of full depth": {"layers": 12},
}
SIZES = {"ViT-B-32": (512, 8), "ViT-L-14": (768, 12)}


def _build(tower: str, layers: int = LAYERS, **options: bool) -> torch.nn.Module:
    name = tower.split(" ")[0]
    text = open_clip.get_model_config(name)["text_cfg"] | {"layers": layers}
    torch.manual_seed(0)
    return open_clip.create_model(
        name, vision_cfg=IMAGE_TOWER, text_cfg=text, pretrained_text=False, **options
    )


@pytest.fixture(scope="module", params=TOWERS)
def case(request: pytest.FixtureRequest) -> SimpleNamespace:
    """A batch, and what its features and scores should be, computed once in float64."""
    model = _build(request.param, **TOWERS[request.param])
    batch = make_batch(model, CAPTIONS)
    deep = "depth" in request.param
    batch = batch.first(1) if deep else batch
    words = torch.zeros_like(batch.tokens)
    for row, numbers in zip(words, WORDS, strict=False):
        row[1 : len(numbers) + 1] = torch.tensor(numbers)
    mean = batch.text.token_embedding.weight.detach().mean(0)
    saliency = batch.saliency()
    expected = {
        "features": batch.model.encode_text(batch.tokens).detach(),
        "attention": batch.attention_rows().mean(dim=(0, 2)).detach(),
        "gradcam": batch.relevance(),
        "perturbation": batch.ablation(words, mean),
        "gradient": saliency.square().sum(-1).sqrt(),
        "gradient l1": saliency.abs().sum(-1),
        "gradient grad_x": batch.gradient_times_embedding(),
    }
    return SimpleNamespace(batch=batch, expected=expected, name=request.param, deep=deep)


def _scores(batch: Batch) -> dict[str, Tensor]:
    """Features and scores by the code under test, under the names of the oracles."""
    arguments = (batch.model, batch.tokens, batch.image_features)
    found = {}
    for key in ("attention", "gradcam", "perturbation", "gradient", "gradient l1",
                "gradient grad_x"):
        name, _, reduction = key.partition(" ")
        method = get_method(name, **{"reduction": reduction} if reduction else {})
        attribution = method(*arguments)
        found[key] = attribution.scores
        found.setdefault("features", attribution.text_features)
        torch.testing.assert_close(attribution.text_features, found["features"])
    return found


def test_the_towers_have_the_sizes_meant(case: SimpleNamespace) -> None:
    text = case.batch.text
    width, heads = SIZES["ViT-L-14" if "L-14" in case.name else "ViT-B-32"]
    assert text.token_embedding.weight.shape == (49408, width)
    assert {b.attn.num_heads for b in text.transformer.resblocks} == {heads}
    assert len(text.transformer.resblocks) == (12 if case.deep else LAYERS)
    assert isinstance(case.batch.model, open_clip.CustomTextCLIP) == ("Custom" in case.name)
    quick = isinstance(text.transformer.resblocks[0].mlp.gelu, open_clip.transformer.QuickGELU)
    assert quick == ("quickgelu" in case.name)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=["fp64", "fp32"]
)
def test_scores_are_those_of_the_oracles(
    case: SimpleNamespace, dtype: torch.dtype, tolerance: float
) -> None:
    batch = case.batch if dtype == torch.float64 else case.batch.single()
    for key, found in _scores(batch).items():
        expected = case.expected[key]
        length = found.shape[1]
        if key != "features":
            assert expected[:, length:].abs().max() == 0, key
            assert expected[:, 1].abs().min() > 1e-4, key
            expected = expected[:, :length]
        assert found.dtype == dtype, key
        torch.testing.assert_close(
            found, expected.to(dtype), atol=tolerance, rtol=0, msg=lambda m, k=key: f"{k}: {m}"
        )
