"""The methods against captum, a loop over words, and the published formulas on open_clip.

They must agree to 1e-10 in float64 and to 1e-5 in float32; also at the sizes of ViT-B/32 and
ViT-L/14, where the text towers are open_clip's, with random weights, and the image tower is cut
down, for no method reads it.
"""

from __future__ import annotations

from types import SimpleNamespace

import open_clip
import pytest
import torch
from oracles import Batch, explicit_attention, make_batch
from torch import Tensor

from cae_lib.attribution.grouping import word_index

IMAGE_TOWER = {"image_size": 32, "patch_size": 16, "width": 64, "layers": 1, "head_width": 32}
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
PRECISIONS = ((torch.float64, 1e-10), (torch.float32, 1e-5))


def attention(batch: Batch, *layers: int) -> Tensor:
    rows = batch.attention_rows().detach()
    return rows[list(layers) or slice(None)].mean(dim=(0, 2))


def norm(batch: Batch, temperature: bool = False) -> Tensor:
    return batch.saliency(temperature).square().sum(-1).sqrt()


def ablation(batch: Batch, token: int | None = None, unit: str = "word") -> Tensor:
    """captum's, with the mean embedding, that of a token, or zeros (-1) in place of a word."""
    words, table = word_index(batch.tokens, 49408), batch.model.token_embedding.weight.detach()
    groups = words if unit == "word" else torch.arange(77) * (words > 0)
    baseline = table.mean(0) if token is None else table[[token]] * (token >= 0)
    return batch.ablation(groups, baseline)


ORACLES = [
    ("attention", {}, attention),
    ("attention", {"layers": (0,)}, lambda b: attention(b, 0)),
    ("attention", {"layers": (1, -1)}, lambda b: attention(b, 1, -1)),
    ("gradcam", {}, lambda b: b.relevance()),
    ("gradcam", {"start_layer": 2}, lambda b: b.relevance(2)),
    ("gradcam", {"start_layer": -1}, lambda b: b.relevance(3)),
    ("gradcam", {"temperature": False}, lambda b: b.relevance(0, False)),
    ("gradient", {}, norm),
    ("gradient", {"temperature": True}, lambda b: norm(b, True)),
    ("gradient", {"reduction": "l1"}, lambda b: b.saliency().abs().sum(-1)),
    ("gradient", {"reduction": "grad_x"}, lambda b: b.gradient_times_embedding()),
    ("gradient", {"reduction": "abs_grad_x"}, lambda b: b.gradient_times_embedding().abs()),
    ("perturbation", {}, ablation),
    ("perturbation", {"clamp": True}, lambda b: ablation(b).clamp(min=0)),
    ("perturbation", {"temperature": True},
     lambda b: ablation(b) * b.model.logit_scale.exp().item()),
    ("perturbation", {"replacement": "zero"}, lambda b: ablation(b, -1)),
    ("perturbation", {"replacement": "token"}, lambda b: ablation(b, 265)),  # "*"
    ("perturbation", {"replacement": "zero", "unit": "token"}, lambda b: ablation(b, -1, "token")),
]


@pytest.mark.parametrize(
    ("name", "parameters", "oracle"), ORACLES, ids=[f"{row[0]} {row[1]}" for row in ORACLES]
)
def test_scores_are_those_of_the_oracle(name, parameters, oracle, batch, attribute) -> None:
    batch = batch if name != "perturbation" or not parameters else batch.first(3)
    expected = oracle(batch)
    assert expected[:, 1].abs().max() > 1e-4  # the words' scores are not all 0
    for dtype, tolerance in PRECISIONS:
        batch = batch if dtype == torch.float64 else batch.single()
        found = attribute(batch, name, **parameters).scores
        assert found.dtype == dtype and not expected[:, found.shape[1] :].any()
        wanted = expected[:, : found.shape[1]].to(dtype)
        torch.testing.assert_close(found, wanted, atol=tolerance, rtol=tolerance)


def test_attention_renormalised_over_the_words(batch, attribute) -> None:
    scores = attribute(batch, "attention", renormalise=True).scores
    for score, row, eot in zip(scores, attention(batch), batch.eot, strict=True):
        torch.testing.assert_close(score[1:eot], row[1:eot] / row[1:eot].sum())
        assert score[0] == 0 and score[eot:].abs().max() == 0


def test_gradcam_without_second_order_takes_its_gradient_for_a_constant(batch, attribute) -> None:
    weight = batch.model.transformer.resblocks[0].mlp.c_fc.weight
    call = {"create_graph": True}
    found = attribute(batch, "gradcam", call, start_layer=3, second_order=False).scores
    (first_order,) = torch.autograd.grad(found[:, 1].sum(), weight)
    with explicit_attention(batch.model) as maps:
        features = batch.model.encode_text(batch.tokens)
    similarity = batch.similarity(features, temperature=True)
    (constant,) = torch.autograd.grad(similarity.sum(), maps[3], retain_graph=True)
    rows = (constant * maps[3]).clamp(min=0).mean(dim=1)
    (expected,) = torch.autograd.grad(rows[torch.arange(4), batch.eot, 1].sum(), weight)
    torch.testing.assert_close(first_order, expected, atol=1e-10, rtol=1e-8)


@pytest.fixture(scope="module", params=TOWERS)
def case(request: pytest.FixtureRequest) -> SimpleNamespace:
    """A batch, and what its features and scores should be, computed once in float64."""
    name, options = request.param.split(" ")[0], TOWERS[request.param]
    text = open_clip.get_model_config(name)["text_cfg"] | {"layers": options.get("layers", 3)}
    custom = {key: value for key, value in options.items() if key != "layers"}
    torch.manual_seed(0)
    model = open_clip.create_model(
        name, vision_cfg=IMAGE_TOWER, text_cfg=text, pretrained_text=False, **custom
    )
    batch = make_batch(model, CAPTIONS).first(1 if "layers" in options else 2)
    words = torch.zeros_like(batch.tokens)
    for row, numbers in zip(words, WORDS, strict=False):
        row[1 : len(numbers) + 1] = torch.tensor(numbers)
    saliency = batch.saliency()
    expected = {
        "features": batch.model.encode_text(batch.tokens).detach(),
        "attention": attention(batch),
        "gradcam": batch.relevance(),
        "perturbation": batch.ablation(words, batch.text.token_embedding.weight.detach().mean(0)),
        "gradient": saliency.square().sum(-1).sqrt(),
        "gradient l1": saliency.abs().sum(-1),
        "gradient grad_x": batch.gradient_times_embedding(),
    }
    return SimpleNamespace(batch=batch, expected=expected, name=request.param)


def test_the_towers_have_the_sizes_meant(case: SimpleNamespace) -> None:
    text, blocks = case.batch.text, case.batch.text.transformer.resblocks
    width, heads = SIZES["ViT-L-14" if "L-14" in case.name else "ViT-B-32"]
    assert text.token_embedding.weight.shape == (49408, width)
    assert {b.attn.num_heads for b in blocks} == {heads}
    assert len(blocks) == (12 if "depth" in case.name else 3)
    assert isinstance(case.batch.model, open_clip.CustomTextCLIP) == ("Custom" in case.name)
    quick = isinstance(blocks[0].mlp.gelu, open_clip.transformer.QuickGELU)
    assert quick == ("quickgelu" in case.name)


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS, ids=["fp64", "fp32"])
def test_scores_at_the_sizes_of_the_paper(case, dtype, tolerance, attribute) -> None:
    batch = case.batch if dtype == torch.float64 else case.batch.single()
    close = {"atol": tolerance, "rtol": 0}
    for key in list(case.expected)[1:]:
        name, _, reduction = key.partition(" ")
        found = attribute(batch, name, **{"reduction": reduction} if reduction else {})
        expected, length = case.expected[key].to(dtype), found.length
        assert not expected[:, length:].any() and expected[:, 1].abs().min() > 1e-4, key
        assert found.scores.dtype == dtype, key
        torch.testing.assert_close(found.scores, expected[:, :length], **close)
        features = case.expected["features"].to(dtype)
        torch.testing.assert_close(found.text_features, features, **close)
