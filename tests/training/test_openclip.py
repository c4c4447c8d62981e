"""CAE in open_clip's own loop: its steps are those of a plain loop with the whole batch."""

import copy
import logging
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import open_clip
import pytest
import torch
from open_clip_train.train import evaluate, train_one_epoch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from toys import CAPTIONS, WordTagger

from cae_lib.errors import ConfigError, DataError
from cae_lib.training.losses import CAELoss
from cae_lib.training.openclip import CAEClipLoss, CAEModel, RoleTokenizer
from cae_lib.words.roles import OBJECT, RELATION

SETTINGS = [
    {"method": "attention", "stop_gradient": True, "hinge": "log"},
    {"method": "gradcam"},
    {"method": "perturbation", "scope": "caption"},
    {"method": "gradient", "scope": "word", "complete_captions": False},
    {"method": "perturbation", "hinge": "margin", "scope": "word", "image_gradient": False},
    {"method": "gradient", "hinge": "margin", "complete_captions": False, "image_gradient": False},
    {"method": "gradcam", "image_gradient": False},
    {"method": "attention", "hinge": "log", "scope": "caption"},
]
FLAGS = [(False, True), (True, True), (False, False)]  # local_loss, gather_with_grad
CASES = [(0, 0, 1), (1, 1, 2), (2, 2, 1), (3, 0, 2), (4, 1, 1), (7, 2, 2)]
"""Which of the settings, which of the flags, and the number of accumulated parts."""

EVERY = pytest.mark.parametrize("settings", SETTINGS, ids=str)


def packed() -> Tensor:
    """Return the captions' tokens, roles and words `(8, 3, 16)`, in a vocabulary of their own."""
    texts = RoleTokenizer(open_clip.SimpleTokenizer(context_length=16), WordTagger())(CAPTIONS)
    texts[:, 0] = texts[:, 0].unique(return_inverse=True)[1]  # in order: EOT stays the largest
    return texts


def pixels() -> Tensor:
    return torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)).double()


def plain_model() -> nn.Module:
    torch.manual_seed(0)
    model = open_clip.CLIP(
        embed_dim=16,
        vision_cfg={"image_size": 16, "patch_size": 8, "width": 32, "layers": 1, "head_width": 16},
        text_cfg={"context_length": 16, "vocab_size": 64, "width": 32, "heads": 2, "layers": 2},
        output_dict=True,
    ).double()
    with torch.no_grad():  # scores far from 0, features far from each other
        model.token_embedding.weight.mul_(20)
    return model


def cae_model(settings: dict[str, Any], model: nn.Module | None = None) -> CAEModel:
    return CAEModel(model or plain_model(), **{"weight": 3.0, "margin": 2.0} | settings)


def named(module: nn.Module) -> dict[str, Tensor]:
    parameters = module.named_parameters()
    return {name.removeprefix("module."): value.detach() for name, value in parameters}


def by_hand(settings: dict[str, Any]) -> dict[str, Tensor]:
    """Return the parameters after one step of a plain loop with the whole batch."""
    model = plain_model()
    task = CAELoss(model, **{"weight": 3.0, "margin": 2.0} | settings)
    images = model.encode_image(pixels(), normalize=True)
    output = task(images, *packed().unbind(1))
    contrastive = open_clip.ClipLoss()(images, output.text_features, model.logit_scale.exp())
    (contrastive + output.loss).backward()
    torch.optim.SGD(model.parameters(), 0.1).step()
    return named(model)


def in_their_loop(
    model: CAEModel, loss: nn.Module, rows: slice = slice(None), accum_freq: int = 1, **options: Any
) -> dict[str, Tensor]:
    """Return the parameters after one step of open_clip's loop with some rows of the batch."""
    parts = zip(pixels()[rows].chunk(accum_freq), packed()[rows].chunk(accum_freq), strict=True)
    data = {"train": loader(list(parts))}
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    arguments = args(accum_freq=accum_freq, **options)
    train_one_epoch(model, data, loss, 0, optimiser, None, None, None, arguments)
    return named(model)


def loader(batches: list[tuple[Tensor, Tensor]]) -> SimpleNamespace:
    """Return what the loop needs of open_clip's `DataInfo`."""

    class Loader(list):
        num_batches, num_samples = len(batches), 8

    return SimpleNamespace(dataloader=Loader(batches), set_epoch=lambda epoch: None)


def args(**options: Any) -> SimpleNamespace:
    off = ("distill", "horovod", "wandb", "distributed", "save_logs")
    one = ("accum_freq", "world_size", "log_every_n_steps", "val_frequency", "epochs")
    defaults = dict.fromkeys(off, False) | dict.fromkeys(one, 1) | {"batch_size": 8, "rank": 0}
    defaults |= {"device": "cpu", "precision": "fp32", "skip_scheduler": True}
    defaults |= {"grad_clip_norm": None}
    return SimpleNamespace(**defaults | options)


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    torch.testing.assert_close(actual, expected, atol=1e-10, rtol=0)


@EVERY
@pytest.mark.parametrize("accum_freq", [1, 4])
def test_a_step_is_that_of_a_plain_loop(settings: dict, accum_freq: int, caplog) -> None:
    model = cae_model(settings)
    loss = CAEClipLoss(model.cae_loss, accum_freq=accum_freq)
    with caplog.at_level(logging.INFO):
        actual = in_their_loop(model, loss, accum_freq=accum_freq)
    expected = by_hand(settings)
    assert_same(actual, expected)
    without = by_hand({**settings, "weight": 0.0})
    for name in ("transformer.resblocks.0.attn.in_proj_weight", "positional_embedding"):
        assert (expected[name] - without[name]).abs().max() > 1e-4  # L_attr is part of it
    assert "Attribution_loss: " in caplog.text  # a loss of its own in their log


def work(rank: int, folder: Path) -> None:
    """Run all cases, one step each, as one of two processes."""
    for number, (choice, flags, accum_freq) in enumerate(CASES):
        model = cae_model(SETTINGS[choice])
        local_loss, gather_with_grad = FLAGS[flags]
        loss = CAEClipLoss(
            model.cae_loss,
            accum_freq=accum_freq,
            local_loss=local_loss,
            cache_labels=True,
            gather_with_grad=gather_with_grad,
            rank=rank,
            world_size=2,
        )
        rows = slice(4 * rank, 4 * rank + 4)
        both = DistributedDataParallel(model)
        actual = in_their_loop(both, loss, rows, accum_freq, rank=rank, world_size=2)
        torch.save(actual, folder / f"{number}-{rank}.pt")
    torch.save(both.state_dict(), folder / f"ddp-{rank}.pt")


@pytest.mark.parametrize("number", range(len(CASES)), ids=map(str, CASES))
def test_a_step_of_two_processes_is_that_of_one(number: int, halves: Path) -> None:
    expected = by_hand(SETTINGS[CASES[number][0]])
    for rank in range(2):
        assert_same(torch.load(halves / f"{number}-{rank}.pt"), expected)


def test_a_checkpoint_of_several_processes_is_open_clips(halves: Path) -> None:
    state, plain = torch.load(halves / "ddp-0.pt"), plain_model()
    plain.load_state_dict({name.removeprefix("module."): v for name, v in state.items()})
    holder = nn.ModuleDict({"module": cae_model({})})
    holder.load_state_dict(state)  # as `DistributedDataParallel` loads it
    assert_same(named(holder["module"]), named(plain))


FORMS = {
    "copied": copy.deepcopy,  # as for a moving average
    "compiled": lambda model: torch.compile(model, backend="aot_eager"),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_model_takes_the_same_step_in_every_form(form) -> None:
    model = cae_model({"method": "gradcam"})
    other = form(model)
    expected = by_hand({"method": "gradcam"})
    actual = in_their_loop(other, CAEClipLoss(other.cae_loss))
    assert_same({name.removeprefix("_orig_mod."): v for name, v in actual.items()}, expected)
    if isinstance(other, CAEModel):
        assert other.cae_loss.model is other.model is not model.model
        assert_same(named(model), named(plain_model()))


@pytest.mark.parametrize("name", ["coca_ViT-B-32", "ViT-B-16-SigLIP"])
def test_a_model_with_another_loss_is_refused(name: str) -> None:
    with torch.device("meta"):
        model = open_clip.create_model(name, device="meta")
    with pytest.raises(ConfigError, match="contrastive"):
        CAEModel(model)


def test_calls_that_would_train_on_something_else_are_refused() -> None:
    model = cae_model({}).train()
    with pytest.raises(ConfigError, match="gather-with-grad"):
        CAEClipLoss(model.cae_loss, local_loss=True, world_size=2)
    with pytest.raises(ConfigError, match="horovod"):
        CAEClipLoss(model.cae_loss, use_horovod=True)
    with pytest.raises(DataError, match="RoleTokenizer"):
        CAEClipLoss(model.cae_loss)(**model(pixels(), packed()[:, 0]))
    with pytest.raises(ConfigError, match="image"):
        model(text=packed())
    texts = packed()
    texts[:, 1:] = texts[:, 1:].roll(1, 0)
    with pytest.raises(DataError, match="caption [0-7] "):
        model(pixels(), texts)


def test_names_and_state_of_the_wrapper_are_those_of_the_model() -> None:
    plain, model = plain_model(), cae_model({"method": "gradcam"})
    for kind in ("state_dict", "named_parameters", "named_buffers", "named_children"):
        assert list(dict(getattr(model, kind)())) == list(dict(getattr(plain, kind)()))
    assert "gradcam" in repr(model).lower()
    with torch.no_grad():
        model.positional_embedding.add_(1.0)
    plain.load_state_dict(model.state_dict())
    assert_same(named(plain), named(model))
    model.load_state_dict(plain_model().state_dict())
    assert_same(named(model), named(plain_model()))


def test_locking_and_checkpointing_reach_the_model() -> None:
    model = cae_model({"method": "gradcam"})
    model.lock_image_tower()
    model.set_grad_checkpointing()
    assert model.transformer.grad_checkpointing
    assert model.no_weight_decay()
    actual = in_their_loop(model, CAEClipLoss(model.cae_loss))
    start = named(plain_model()).items()
    locked = {name: value for name, value in start if name.startswith("visual.")}
    assert_same(actual, by_hand({"method": "gradcam"}) | locked)


def test_outside_of_training_the_wrapper_is_the_model() -> None:
    """Also for texts of open_clip's validation set, which has the same tokenizer."""
    plain, model, texts = plain_model(), cae_model({"method": "gradcam"}), packed()
    arguments = (args(), None, None)
    expected = evaluate(plain, {"val": loader([(pixels(), texts[:, 0])])}, 1, *arguments)
    for batch in (texts, texts[:, 0]):
        actual = evaluate(model, {"val": loader([(pixels(), batch)])}, 1, *arguments)
        assert actual == expected
        assert torch.equal(model.encode_text(batch), plain.encode_text(texts[:, 0]))
    actual, expected = model(image=pixels()), plain(image=pixels())
    assert actual.keys() == expected.keys()
    assert actual["text_features"] is None
    assert torch.equal(actual["image_features"], expected["image_features"])
    assert model.train()(pixels(), texts[:, 0]).keys() == expected.keys()
    assert model.eval()(pixels(), texts).keys() == expected.keys()
    assert not CAEModel(plain.eval()).training


def test_tokens_roles_and_words() -> None:
    tokenizer = open_clip.SimpleTokenizer(context_length=16)
    ours = RoleTokenizer(tokenizer, WordTagger())
    texts = ours("two pterodactyls under")
    expected = torch.zeros(3, 16, dtype=torch.long)
    assert len(tokenizer.encode("pterodactyls")) == 5
    expected[0] = tokenizer("two pterodactyls under")[0]
    expected[1, 2:8] = torch.tensor([OBJECT] * 5 + [RELATION])
    expected[2, 1:8] = torch.tensor([1, 2, 2, 2, 2, 2, 3])
    assert torch.equal(texts, expected[None])
    assert torch.equal(ours("two pterodactyls under", context_length=12), texts[:, :, :12])
    assert ours.context_length == 16
    assert ours.eot_token_id == tokenizer.eot_token_id
    again = pickle.loads(pickle.dumps(ours))
    assert torch.equal(again(CAPTIONS), ours(CAPTIONS))
