"""One step: losses from open_clip's own features, checkpointing, AdamW and its rate."""

import math
import os
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from toys import FT, toy_clip, toy_run

from cae_lib.config import AttributionLossConfig, Experiment
from cae_lib.errors import CheckpointError, ConfigError
from cae_lib.methods import PAPER_METHODS
from cae_lib.models.checkpoint import load_state, save_state
from cae_lib.models.packed import PackedEncoder
from cae_lib.runtime import MAX_WORKERS, ExecutionOptions
from cae_lib.training.losses import role_masks
from cae_lib.training.objective import adamw, gradient_norm, learning_rate, match_gradient_norm
from cae_lib.training.trainer import NotFiniteError

SETTINGS = replace(FT, method="gradcam", weight=3.0, margin=2.0)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_checkpointing_is_of_both_towers(checkpointing: bool) -> None:
    model = toy_run(SETTINGS, execution=ExecutionOptions(grad_checkpointing=checkpointing)).model
    assert model.transformer.grad_checkpointing == checkpointing
    assert model.visual.transformer.grad_checkpointing == checkpointing


@pytest.mark.parametrize(
    ("workers", "decoding", "ranks", "expected"),
    [
        (None, False, 1, 0),
        (None, True, 1, MAX_WORKERS),
        (None, True, 8, 8),
        (None, True, 100, 1),
        (3, False, 2, 3),
    ],
)
def test_workers_share_the_cores_if_they_have_work(monkeypatch, workers, decoding, ranks, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(64), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if ranks:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
    assert ExecutionOptions(workers=workers).worker_count(decoding) == expected
    with pytest.raises(ConfigError, match="workers is -1"):
        ExecutionOptions(workers=-1)


def contrastive_of(model: nn.Module, images: Tensor, texts: Tensor, columns: Tensor) -> float:
    """Compute CLIP's loss; the images have to tell their texts from all columns."""
    logits, target = model.logit_scale.exp() * images @ columns.T, torch.arange(len(images))
    captions = logits[:, : len(texts)].T
    return (F.cross_entropy(logits, target) + F.cross_entropy(captions, target)).item() / 2


LOSSES = {
    "CLIP-FT": {},
    "NegCLIP": {"negatives": True},
    "CAE": {"method": "attention"},
    "NegCLIP with CAE": {"method": "attention", "negatives": True},
    "softmax, negatives": {"foils": "given"},
    "softmax, swaps": {"foils": "exchanged"},
    "margin, negatives": {"foils": "given", "foil_hinge": True, "margin": 0.3},
    "margin, swaps": {"foils": "exchanged", "foil_hinge": True, "margin": 0.3},
}


@pytest.mark.parametrize("changes", LOSSES.values(), ids=LOSSES)
def test_losses_are_those_of_open_clips_features(changes: dict) -> None:
    """Not all of the eight captions have a negative caption, and none of these has roles."""
    run = toy_run(replace(SETTINGS, batch_size=8, **{"method": None} | changes))
    batch, model = run.batches.at(0), toy_clip().model
    images = model.encode_image(batch.image_inputs, normalize=True)
    texts = model.encode_text(batch.tokens, normalize=True)
    false, is_margin_loss = texts[:0], "foil_hinge" in changes
    if batch.negatives is not None and len(batch.negatives):
        false = model.encode_text(batch.negatives, normalize=True)
        assert 0 < len(false) < len(texts)
    assert bool(len(false)) == ("negatives" in changes or "foils" in changes)
    columns = texts if is_margin_loss else torch.cat([texts, false])
    expected = contrastive_of(model, images, texts, columns)
    values = run.step(0, batch)
    assert values["contrastive"] == pytest.approx(expected, abs=1e-4)
    assert values["lr"] == pytest.approx(FT.lr / 2)
    if "negatives" in changes:
        assert (values["n_negatives"], values["n_similar"]) == (len(false), batch.n_similar)
    expected = 0.0
    if "method" in changes:
        assert values["n_objects"] == role_masks(batch.roles, AttributionLossConfig())[0].sum()
        expected = 3 * (values["objects"] - values["composition"] + SETTINGS.margin)
    elif is_margin_loss:
        rows = batch.caption_of_negative
        lag = (0.3 - (images[rows] * (texts[rows] - false)).sum(1)).clamp(min=0)
        expected = 3 * lag.mean().item()
        assert expected > 0
    assert values.get("attribution", 0.0) == pytest.approx(expected, abs=2e-4)
    assert values["loss"] == pytest.approx(values["contrastive"] + expected, abs=2e-4)


ADAPTIVE = replace(FT, foils="given", foil_hinge=True, weight=2.0, margin_rule="adaptive")


def test_an_adaptive_margin_is_the_limited_mean_gap_of_the_step_before() -> None:
    """The toy model prefers some hard negatives, so the gap of a batch is set by hand."""
    loss = toy_run(replace(ADAPTIVE, margin=0.3)).unwrapped_objective
    first, second = torch.eye(2)
    images = captions = torch.stack([first, first])

    def step(*similarities: float) -> float:
        """Take a step with negatives of these similarities to their images."""
        negatives = torch.stack([s * first + second for s in similarities])
        return loss._hard_negative_margin_loss(images, captions, negatives).item()

    assert step(1.5, 0.9) == pytest.approx(2 * 0.5 / 2)  # gaps -.5 and .1, margin 0
    assert step(0.9, 0.7) == pytest.approx(0)  # mean -.2, so the margin is still 0
    assert step(0.9, 0.7) == pytest.approx(2 * 0.1 / 2)  # margin .2, gaps .1 and .3
    assert step(0.0, 0.0) == pytest.approx(0)  # gaps 1
    assert step(0.9, 0.9) == pytest.approx(2 * 0.2)  # margin 1, limited to .3


def test_an_adaptive_margin_is_kept_in_the_state_and_by_a_step_that_fails(tmp_path) -> None:
    run, resumed = (toy_run(replace(ADAPTIVE, margin=9.0)) for _ in range(2))
    run.unwrapped_objective.adaptive_margin = expected = torch.tensor(0.25)
    run.save(tmp_path / "state.pt", 1)
    margin = resumed.unwrapped_objective.adaptive_margin
    load_state(tmp_path / "state.pt", resumed.identity, resumed.model, resumed.optimizer, margin)
    assert margin == expected
    run.model.visual.proj.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(NotFiniteError):
        run.step(0, run.batches.at(0))
    assert run.unwrapped_objective.adaptive_margin == expected


def test_a_state_without_the_adaptive_margin_of_its_run_is_refused(tmp_path) -> None:
    run = toy_run(replace(ADAPTIVE, margin=9.0))
    path, margin = tmp_path / "state.pt", run.unwrapped_objective.adaptive_margin
    save_state(path, run.identity, 1, run.model, run.optimizer)
    with pytest.raises(CheckpointError, match="it lacks adaptive_margin"):
        load_state(path, run.identity, run.model, run.optimizer, margin)


@pytest.mark.parametrize(
    ("method", "kind"),
    [*((name, "permuted") for name in PAPER_METHODS), ("perturbation", "random")],
)
def test_a_matched_placebo_has_the_gradient_norm_of_the_loss_that_it_imitates(method, kind) -> None:
    """The two losses are computed apart: the hinge of the parsed roles, and a plain difference."""
    imitated = replace(SETTINGS, method=method, batch_size=8)

    def gradients(settings: Experiment) -> tuple[Tensor, dict[str, Tensor]]:
        run = toy_run(settings)
        values = run.objective(run.batches.at(0))
        values["attribution"].backward()
        flat = [p.grad.flatten() for p in run.model.parameters() if p.grad is not None]
        return torch.cat(flat), values

    placebo = replace(imitated, roles=kind)
    expected, _ = gradients(imitated)
    matched, values = gradients(replace(placebo, match_gradient=True))
    assert expected.norm() > 0
    torch.testing.assert_close(matched.norm(), expected.norm(), rtol=1e-4, atol=0)
    unscaled, parts = gradients(replace(placebo, margin=100.0, weight=1.0))  # its hinge is active
    cosine = F.cosine_similarity(matched.double(), unscaled.double(), dim=0)
    assert cosine == pytest.approx(1, abs=1e-4)
    factor = matched.norm() / unscaled.norm()
    gap = parts["objects"] - parts["composition"]
    torch.testing.assert_close(values["attribution"], factor * gap, rtol=1e-3, atol=1e-6)


def test_a_loss_without_a_gradient_is_matched_by_none() -> None:
    weight = torch.ones(3, requires_grad=True)
    assert match_gradient_norm(0 * weight.sum(), weight.sum(), [weight]) == 0
    assert match_gradient_norm(weight.sum(), 0 * weight.sum(), [weight]) == 0


def test_a_method_and_the_margin_loss_are_added() -> None:
    both = replace(FT, method="attention", foils="exchanged", foil_hinge=True, batch_size=8)
    both = replace(both, margin=0.3, weight=2.0)
    values, margin_loss, attribution = (
        run.step(0, run.batches.at(0))
        for run in map(
            toy_run, (both, replace(both, method=None), replace(both, foils=None, foil_hinge=False))
        )
    )
    assert margin_loss["attribution"] > 0 and attribution["attribution"] > 0
    expected = margin_loss["attribution"] + attribution["attribution"]
    assert values["attribution"] == pytest.approx(expected, rel=1e-5)
    assert values["loss"] == pytest.approx(values["contrastive"] + expected, rel=1e-5)


def test_only_matrices_decay(tiny_clip):
    optimizer = adamw(tiny_clip.model, 0.1, 0.2, (0.8, 0.9), 1e-5)
    options = {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-5, "fused": True}
    groups = optimizer.param_groups
    assert all(group.items() >= options.items() for group in groups)
    names = {id(p): name for name, p in tiny_clip.model.named_parameters()}
    decayed, spared = ({names[id(p)] for p in group["params"]} for group in groups)
    assert [group["weight_decay"] for group in groups] == [0.2, 0.0]
    assert decayed | spared == set(names.values())
    assert not decayed & spared
    assert {"token_embedding.weight", "text_projection", "visual.proj"} <= decayed
    assert "logit_scale" in spared
    assert all(name in spared for name in names.values() if "bias" in name or ".ln_" in name)


def test_warm_up_then_cosine():
    rates = [learning_rate(step, steps=12, peak=2.0, warmup=4) for step in range(13)]
    assert rates[:5] == [0.5, 1.0, 1.5, 2.0, 2.0]
    assert rates[8] == pytest.approx(1.0)
    assert rates[12] == pytest.approx(0.0)
    assert rates[6] == pytest.approx(1 + math.cos(math.pi / 4))
    assert learning_rate(0, steps=5, peak=1.0, warmup=0) == 1.0


def test_gradient_norm_is_euclidean_and_shows_a_single_nan():
    layer = nn.Linear(2, 1)
    layer.weight.grad, layer.bias.grad = torch.tensor([[3.0, 0.0]]), torch.tensor([4.0])
    assert gradient_norm(layer).item() == pytest.approx(5.0)
    layer.weight.grad[0, 1] = math.nan
    assert math.isnan(gradient_norm(layer).item())


def gradients_of(**changes: object) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    run = toy_run(replace(SETTINGS, batch_size=8, **changes))
    values = run.objective(run.batches.at(0))
    values["loss"].backward()
    return values, {n: p.grad.double() for n, p in run.model.named_parameters()}


@pytest.mark.parametrize("roles", ["parsed", "permuted"])
def test_the_losses_of_several_methods_are_added_each_with_its_weight(roles: str) -> None:
    """Values and gradients are those of the single methods, less CLIP-FT's that each contains."""
    weights = {"attention": 30.0, "gradcam": 3.0, "perturbation": 20.0, "gradient": 7.0}
    (first, weight), *further = weights.items()
    shared = {"roles": roles, "stop_gradient": True}
    all_values, all_gradients = gradients_of(
        method=first, weight=weight, further_methods=tuple(further), **shared
    )
    single = [gradients_of(method=name, weight=weights[name], **shared) for name in weights]
    plain_values, plain = gradients_of(method=None)
    assert min(values["attribution"] for values, _ in single) > 0, "each hinge is active"
    torch.testing.assert_close(
        all_values["attribution"], sum(values["attribution"] for values, _ in single)
    )
    torch.testing.assert_close(all_values["contrastive"], plain_values["contrastive"])
    for (values, _), name in zip(single[1:], list(weights)[1:], strict=True):
        assert torch.equal(all_values[f"objects_{name}"], values["objects"])
        assert torch.equal(all_values[f"composition_{name}"], values["composition"])
    for name, gradient in all_gradients.items():
        expected = sum(gradients[name] for _, gradients in single) - 3 * plain[name]
        torch.testing.assert_close(gradient, expected, atol=2e-5, rtol=1e-3, msg=name)


def test_several_methods_share_one_encoding_of_the_captions(monkeypatch) -> None:
    n_texts = []
    run = PackedEncoder._run

    def noted(encoder, embeddings, packing, *options):
        n_texts.append(len(packing.eot_positions))
        return run(encoder, embeddings, packing, *options)

    monkeypatch.setattr(PackedEncoder, "_run", noted)
    further = (("gradcam", 1.0), ("perturbation", 1.0), ("gradient", 1.0))
    gradients_of(method="attention", weight=1.0, further_methods=further)
    # Perturbation encodes the captions once more, together with their masked variants.
    assert [n for n in n_texts if n == 8] == [8]
    assert len(n_texts) == 2
