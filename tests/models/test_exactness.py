"""Whatever is changed in a model, its own code says what its features are, packed or not."""

import copy
import logging
from collections.abc import Callable
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from families import FAMILIES, VISION, Attention, captions, with_own_attention
from open_clip.transformer import LayerNorm, QuickGELU, ResidualAttentionBlock
from pytest import LogCaptureFixture, MonkeyPatch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

from cae_lib.errors import ConfigError
from cae_lib.models import encode_image, encode_text, text_encoder

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)).double()
both_sides = pytest.mark.parametrize("side", ["text", "image"])


@pytest.fixture
def model(monkeypatch: MonkeyPatch) -> nn.Module:
    """A tiny CLIP in float64, with two layers in each tower."""
    monkeypatch.setitem(VISION, "layers", 2)
    return FAMILIES["CLIP"]().model


def _found(model: nn.Module, side: str) -> Tensor:
    """Features by the code under test."""
    text = side == "text"
    return (encode_text(model, captions()) if text else encode_image(model, IMAGES)).features


def _own(model: nn.Module, side: str) -> Tensor:
    """Features by the model's own code."""
    text = side == "text"
    return model.encode_text(captions(), normalize=False) if text else model.encode_image(IMAGES)


def _assert_reference(model: nn.Module, side: str) -> None:
    torch.manual_seed(0)
    found = _found(model, side)
    torch.manual_seed(0)
    torch.testing.assert_close(found, _own(model, side), atol=1e-11, rtol=0)
    if side == "text":
        assert text_encoder(model).path == "reference"
        with pytest.raises(ConfigError, match="not exact"):
            text_encoder(model, "packed")


def _block(model: nn.Module, side: str) -> nn.Module:
    return (model if side == "text" else model.visual).transformer.resblocks[0]


def _more(*arguments: Any) -> Any:
    """As a hook of any kind: a tenth more than the last argument."""
    last = arguments[-1]
    if isinstance(last, tuple):
        return tuple(map(_more, last))
    return None if last is None else last * 1.1


def _with_more(function: Callable) -> Callable:
    return lambda *arguments, **options: function(*arguments, **options) * 1.1


class More(nn.Module):
    """A parametrisation, or an adapter around a layer: a tenth more."""

    def __init__(self, layer: nn.Module | None = None) -> None:
        super().__init__()
        self.layer = layer or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * 1.1


class OtherParameter(nn.Parameter):
    """A parameter that says how layers treat it, as quantised ones do."""

    @classmethod
    def __torch_function__(cls, function: Callable, *rest: Any) -> Any:
        found = super().__torch_function__(function, *rest)
        return found * 1.1 if function is F.linear else found


def _replace(place: Any, method: str) -> None:
    setattr(place, method, _with_more(getattr(place, method)))


def _subclass(module: nn.Module, method: str) -> None:
    module.__class__ = type("Other", (module.__class__,), {})
    _replace(module.__class__, method)


def _attend_with(block: nn.Module, **options: Any) -> None:
    block.attn = nn.MultiheadAttention(16, 2, batch_first=True, **options).double()


def _adapt(block: nn.Module, target: str) -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=[target], init_lora_weights=False)
    peft.inject_adapter_in_model(config, block)
    block.double()


ALTERATIONS: dict[str, Callable[[nn.Module], Any]] = {
    "pre-hook": lambda b: b.mlp.register_forward_pre_hook(_more),
    "subclass": lambda b: _subclass(b, "attention"),
    "wrapped layer": lambda b: setattr(b.mlp, "c_proj", More(b.mlp.c_proj)),
    "parametrisation": lambda b: parametrize.register_parametrization(b.mlp.c_fc, "weight", More()),
    "pruning": lambda b: prune.l1_unstructured(b.mlp.c_proj, "weight", 0.5),
    "replaced attention": lambda b: _replace(b, "attention"),
    "replaced forward": lambda b: _replace(b.ln_2, "forward"),
    "attention without bias": lambda b: _attend_with(b, bias=False),
    "attention to zeros": lambda b: _attend_with(b, add_zero_attn=True),
    "attention to a bias": lambda b: _attend_with(b, add_bias_kv=True),
    "attention with dropout": lambda b: setattr(b.attn, "dropout", 0.5),
    "dropout": lambda b: setattr(b.mlp, "gelu", nn.Sequential(b.mlp.gelu, nn.Dropout(0.5))),
    "foreign parameter": lambda b: setattr(b.mlp.c_fc, "weight", OtherParameter(b.mlp.c_fc.weight)),
    "LoRA": lambda b: _adapt(b, "c_proj"),
    "LoRA of the attention": lambda b: _adapt(b, "attn"),
    "LoRA left out": lambda b: _adapt(b, "out_proj"),  # `nn.MultiheadAttention` never calls it
}


@both_sides
@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_altered_blocks_are_called(model: nn.Module, side: str, alteration: str) -> None:
    model.train()
    before = _found(model, side)
    torch.testing.assert_close(before, _own(model, side), atol=1e-11, rtol=0)
    assert text_encoder(model).path == "packed"
    torch.manual_seed(0)
    ALTERATIONS[alteration](_block(model, side))
    _assert_reference(model, side)
    acts = (_found(model, side) - before).abs().max() > 1e-3
    assert acts != (alteration == "LoRA left out")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"qk_norm": True},
        {"scale_heads": True},
        {"scaled_cosine": True},
        {"inner_norm": True},
        {"attn_drop": 0.5},
        {"proj_drop": 0.5},
        {"qkv_bias": False},
        {"scale": 0.5},
    ],
    ids=str,
)
def test_own_attention_is_written_out_if_it_is_plain(model: nn.Module, settings: dict) -> None:
    for tower in (model, with_own_attention(model).visual):
        options = {"norm_layer": LayerNorm} | settings
        scale = options.pop("scale", None)
        tower.transformer.resblocks[0].attn = Attention(16, 2, **options).double()
        tower.transformer.resblocks[0].attn.scale = scale or 8**-0.5
    assert text_encoder(model).path == ("reference" if settings else "packed")
    if "scaled_cosine" not in settings:  # with which 3.3 cannot be run
        for side in ("text", "image"):
            torch.manual_seed(0)
            found = _found(model.train(), side)
            torch.manual_seed(0)
            torch.testing.assert_close(found, _own(model, side), atol=1e-12, rtol=0)


@both_sides
@pytest.mark.parametrize("part", ["mlp", "attn"])
@pytest.mark.parametrize("kind", ["backward_hook", "backward_pre_hook"])
def test_backward_hooks_are_called(model: nn.Module, side: str, part: str, kind: str) -> None:
    block = _block(model, side)
    slopes = [torch.autograd.grad(_own(model, side).sum(), block.ln_1.weight)]
    register = getattr(getattr(block, part), f"register_full_{kind}")
    register(lambda module, grads, *_: _more(grads))
    for encode in (_own, _found):
        slopes += [torch.autograd.grad(encode(model, side).sum(), block.ln_1.weight)]
    torch.testing.assert_close(slopes[2], slopes[1], atol=1e-11, rtol=0)
    assert not torch.allclose(slopes[0][0], slopes[1][0])


@both_sides
def test_hooks_of_all_modules_methods_of_types_and_other_encoding(
    model: nn.Module, side: str, monkeypatch: MonkeyPatch
) -> None:
    for kind in (
        "forward_hook",
        "forward_pre_hook",
        "full_backward_hook",
        "full_backward_pre_hook",
    ):
        register = getattr(nn.modules.module, f"register_module_{kind}")
        with register(lambda m, *a: _more(*a) if isinstance(m, nn.GELU) else None):
            _assert_reference(model, side)
    for kind in (ResidualAttentionBlock, LayerNorm, nn.GELU):
        name = "attention" if kind is ResidualAttentionBlock else "forward"
        with monkeypatch.context() as patch:
            patch.setattr(kind, name, _with_more(getattr(kind, name)))
            _assert_reference(model, side)
    with monkeypatch.context() as patch:
        whole = _with_more(getattr(open_clip.CLIP, f"encode_{side}"))
        patch.setattr(open_clip.CLIP, f"encode_{side}", whole)
        _assert_reference(model, side)
    for alter in (_subclass, _replace):
        other = copy.deepcopy(model)
        alter(other, f"encode_{side}")
        _assert_reference(other, side)
    model._encode_text = model.encode_text  # what `encode_text` calls after 3.3
    assert text_encoder(model).path == "reference"


@both_sides
def test_layers_without_bias_stay_packed(model: nn.Module, side: str) -> None:
    for layer in _block(model, side).mlp[::2]:
        layer.bias = None
    _block(model, side).mlp[1] = QuickGELU()
    torch.testing.assert_close(_found(model, side), _own(model, side), atol=1e-11, rtol=0)
    assert text_encoder(model).path == "packed"


@pytest.mark.parametrize("family", ["CLIP", "custom text"])
def test_other_mask_and_pooling(family: str) -> None:
    model = FAMILIES[family]().model
    getattr(model, "text", model).attn_mask.fill_(0)
    _assert_reference(model, "text")
    for method in ("_global_pool", "_pool"):
        setattr(model.visual, method, lambda x: (x.mean(1), x))
        _assert_reference(model, "image")
        delattr(model.visual, method)


@both_sides
@pytest.mark.parametrize(
    "family", ["CLIP", "CLIP, own attention", "custom text", "custom blocks", "CoCa"]
)
def test_hook_on_each_module_in_turn(family: str, side: str) -> None:
    model, changed = FAMILIES[family]().model, []
    tower = model.visual if side == "image" else getattr(model, "text", model)
    plain = _own(model, side)
    for name, module in tower.named_modules():
        if side == "image" or not name.startswith("visual"):
            with module.register_forward_hook(_more):
                expected = _own(model, side)
                torch.testing.assert_close(_found(model, side), expected, atol=1e-11, rtol=0)
            changed.append(not torch.allclose(expected, plain))
    assert sum(changed) > len(changed) / 2


def test_auto_says_once_which_path_it_takes(model: nn.Module, caplog: LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "cae_lib")
    for _ in range(2):
        encode_text(model, captions())
    model.transformer.resblocks[1].ln_2.register_forward_hook(_more)
    for path in ("auto", "auto", "reference"):
        text_encoder(model, path)
    info, warning = caplog.records
    assert (info.levelname, warning.levelname) == ("INFO", "WARNING")
    assert "resblocks.1.ln_2 has hooks" in warning.getMessage()
