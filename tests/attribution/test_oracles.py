"""The methods against captum, a loop over words, and the published formulas on open_clip.

To 1e-10 in float64 and to 1e-5 in float32.
"""

from collections.abc import Callable

import open_clip
import pytest
import torch
from oracles import Batch, explicit_attention, make_batch
from torch import Tensor

from cae_lib.attribution import Attribution
from cae_lib.words.alignment import word_numbers

IMAGE_TOWER = {"image_size": 32, "patch_size": 16, "width": 64, "layers": 1, "head_width": 32}
CAPTIONS = ("a red giraffe chases pterodactyls", "two dogs")

TOWERS = {
    "ViT-L-14 as CustomTextCLIP": {"force_custom_text": True},
    "ViT-B-32-quickgelu of full depth": {"layers": 12},
}


def attention(batch: Batch, *layers: int) -> Tensor:
    rows = batch.attention_rows().detach()
    return rows[list(layers) or slice(None)].mean(dim=(0, 2))


def norm(batch: Batch, temperature: bool = False) -> Tensor:
    return batch.saliency(temperature).square().sum(-1).sqrt()


def ablation(batch: Batch, token: int | None = None, unit: str = "word") -> Tensor:
    """Ablate by captum: the mean embedding, that of a token, or zeros (-1) in place of a word."""
    words, table = word_numbers(batch.tokens, 49408), batch.text.token_embedding.weight.detach()
    groups = words if unit == "word" else torch.arange(77) * (words > 0)
    baseline = table.mean(0) if token is None else table[[token]] * (token >= 0)
    return batch.ablation(groups, baseline)


ORACLES = [
    ("attention", {}, attention),
    ("attention", {"layers": (1, -1)}, lambda b: attention(b, 1, -1)),
    ("gradcam", {}, lambda b: b.relevance()),
    ("gradcam", {"start_layer": -1}, lambda b: b.relevance(3)),
    ("gradcam", {"use_temperature": False}, lambda b: b.relevance(0, False)),
    ("gradient", {}, norm),
    ("gradient", {"use_temperature": True}, lambda b: norm(b, True)),
    ("gradient", {"reduction": "l1"}, lambda b: b.saliency().abs().sum(-1)),
    ("gradient", {"reduction": "grad_x"}, lambda b: b.gradient_times_embedding()),
    ("gradient", {"reduction": "abs_grad_x"}, lambda b: b.gradient_times_embedding().abs()),
    ("perturbation", {}, ablation),
    ("perturbation", {"clamp": True}, lambda b: ablation(b).clamp(min=0)),
    (
        "perturbation",
        {"use_temperature": True},
        lambda b: ablation(b) * b.model.logit_scale.exp().item(),
    ),
    ("perturbation", {"replacement": "zero"}, lambda b: ablation(b, -1)),
    ("perturbation", {"replacement": "token"}, lambda b: ablation(b, 265)),  # "*"
    ("perturbation", {"replacement": "zero", "unit": "token"}, lambda b: ablation(b, -1, "token")),
]


def compare(batch: Batch, attribute: Callable[..., Attribution], rows: list[tuple]) -> None:
    features = batch.model.encode_text(batch.tokens).detach()
    expected = [oracle(batch) for *_, oracle in rows]
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        close = {"atol": tolerance, "rtol": tolerance}
        batch = batch if dtype == torch.float64 else batch.single()
        for (name, parameters, _), oracle_scores in zip(rows, expected, strict=True):
            actual = attribute(batch, name, **parameters)
            assert oracle_scores[:, 1].abs().max() > 1e-4  # the words' scores are not all 0
            assert actual.scores.dtype == dtype
            assert not oracle_scores[:, actual.sequence_length :].any()
            torch.testing.assert_close(
                actual.scores, oracle_scores[:, : actual.sequence_length].to(dtype), **close
            )
            torch.testing.assert_close(actual.text_features, features.to(dtype), **close)


@pytest.mark.parametrize("row", ORACLES, ids=[f"{row[0]} {row[1]}" for row in ORACLES])
def test_scores_are_those_of_the_oracle(row: tuple, batch, attribute) -> None:
    compare(batch if row[0] != "perturbation" or not row[1] else batch.first(3), attribute, [row])


@pytest.mark.parametrize("tower", TOWERS)
def test_scores_at_the_sizes_of_the_paper(tower: str, attribute) -> None:
    """With random weights; the image tower is cut down, for no method reads it."""
    name, options = tower.split(" ")[0], {"layers": 3} | TOWERS[tower]
    text = open_clip.get_model_config(name)["text_cfg"] | {"layers": options.pop("layers")}
    torch.manual_seed(0)
    model = open_clip.create_model(
        name, vision_cfg=IMAGE_TOWER, text_cfg=text, pretrained_text=False, **options
    )
    batch = make_batch(model, CAPTIONS).first(1 if text["layers"] == 12 else 2)
    rows = [row for row in ORACLES if not row[1] or row[1].get("reduction") in ("l1", "grad_x")]
    compare(batch, attribute, rows)


def test_attention_renormalised_over_the_words(batch, attribute) -> None:
    scores = attribute(batch, "attention", renormalise=True).scores
    for score, row, eot in zip(scores, attention(batch), batch.eot, strict=True):
        torch.testing.assert_close(score[1:eot], row[1:eot] / row[1:eot].sum())
        assert score[0] == 0
        assert score[eot:].abs().max() == 0


def test_gradcam_without_second_order_takes_its_gradient_for_a_constant(batch, attribute) -> None:
    weight = batch.model.transformer.resblocks[0].mlp.c_fc.weight
    call = {"create_graph": True}
    actual = attribute(batch, "gradcam", call, start_layer=3, second_order=False).scores
    (first_order,) = torch.autograd.grad(actual[:, 1].sum(), weight)
    with explicit_attention(batch.model) as maps:
        features = batch.model.encode_text(batch.tokens)
    similarity = batch.similarity(features, temperature=True)
    (constant,) = torch.autograd.grad(similarity.sum(), maps[3], retain_graph=True)
    rows = (constant * maps[3]).clamp(min=0).mean(dim=1)
    (expected,) = torch.autograd.grad(rows[torch.arange(4), batch.eot, 1].sum(), weight)
    torch.testing.assert_close(first_order, expected, atol=1e-10, rtol=1e-8)
