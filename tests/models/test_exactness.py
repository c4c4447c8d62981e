"""Modified models: whatever is changed, features are those of the model's own code."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from families import MODEL_FAMILIES, VISION, Attention, captions
from open_clip.transformer import LayerNorm, QuickGELU
from torch import Tensor, nn
from torch.nn.utils import parametrize

from cae_lib.errors import ConfigError
from cae_lib.models import encode_image, encode_text, text_encoder

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)).double()
both_sides = pytest.mark.parametrize("side", ["text", "image"])


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """Return a tiny CLIP in float64, with two layers in each tower."""
    monkeypatch.setitem(VISION, "layers", 2)
    return MODEL_FAMILIES["CLIP"]().model


def our_features(model: nn.Module, side: str) -> Tensor:
    """Return features by this library."""
    torch.manual_seed(0)
    is_text = side == "text"
    return (encode_text(model, captions()) if is_text else encode_image(model, IMAGES)).features


def own_features(model: nn.Module, side: str) -> Tensor:
    """Return features by the model's own code."""
    torch.manual_seed(0)
    is_text = side == "text"
    return model.encode_text(captions(), normalize=False) if is_text else model.encode_image(IMAGES)


def assert_same(model: nn.Module, side: str) -> None:
    features, expected = our_features(model, side), own_features(model, side)
    torch.testing.assert_close(features, expected, atol=1e-11, rtol=0)


def first_block(model: nn.Module, side: str) -> nn.Module:
    return (model if side == "text" else model.visual).transformer.resblocks[0]


def increase(*arguments: Any) -> Any:
    """Return a tenth more than the last argument, as a hook of any kind."""
    last = arguments[-1]
    if isinstance(last, tuple):
        return tuple(map(increase, last))
    return None if last is None else last * 1.1


class Increase(nn.Module):
    """A parametrization, or an adapter around a layer: a tenth more."""

    def __init__(self, layer: nn.Module | None = None) -> None:
        super().__init__()
        self.layer = layer or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return a tenth more than the layer."""
        return self.layer(x) * 1.1


def subclass(module: nn.Module, method: str) -> None:
    """Give a module a class of its own, whose method returns a tenth more."""
    original = getattr(module, method)
    module.__class__ = type("Subclass", (module.__class__,), {})
    setattr(module.__class__, method, lambda _, *arguments, **kw: original(*arguments, **kw) * 1.1)


def attention(**options: Any) -> nn.Module:
    return nn.MultiheadAttention(16, 2, batch_first=True, **options).double()


def of_open_clip(**options: Any) -> nn.Module:
    return Attention(16, 2, norm_layer=LayerNorm, **options).double()


def lora(block: nn.Module) -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["attn"], init_lora_weights=False)
    peft.inject_adapter_in_model(config, block)
    block.double()


MODIFICATIONS: dict[str, Callable[[nn.Module], Any]] = {
    "subclass": lambda b: subclass(b, "attention"),
    "replaced forward": lambda b: setattr(  # as accelerate does, which moves weights
        b.mlp, "forward", lambda x, forward=b.mlp.forward: forward(x) * 1.1
    ),
    "wrapped layer": lambda b: setattr(b.mlp, "c_proj", Increase(b.mlp.c_proj)),
    "parametrization": lambda b: parametrize.register_parametrization(
        b.mlp.c_fc, "weight", Increase()
    ),
    "attention without bias": lambda b: setattr(b, "attn", attention(bias=False)),
    "attention to zeros": lambda b: setattr(b, "attn", attention(add_zero_attn=True)),
    "attention to a bias": lambda b: setattr(b, "attn", attention(add_bias_kv=True)),
    "open_clip's, norm": lambda b: setattr(b, "attn", of_open_clip(qk_norm=True)),
    "open_clip's, scale": lambda b: setattr(b, "attn", of_open_clip(scale_heads=True)),
    "open_clip's, inner norm": lambda b: setattr(b, "attn", of_open_clip(inner_norm=True)),
    "open_clip's, dropout": lambda b: setattr(b, "attn", of_open_clip(attn_drop=0.5)),
    "open_clip's, no bias": lambda b: setattr(b, "attn", of_open_clip(qkv_bias=False)),
    "attention with dropout": lambda b: setattr(b.attn, "dropout", 0.5),
    "dropout": lambda b: setattr(b.mlp, "gelu", nn.Sequential(b.mlp.gelu, nn.Dropout(0.5))),
    "LoRA of the attention": lambda b: lora(b),
}
PLAIN: dict[str, Callable[[nn.Module], Any]] = {
    "open_clip's own attention": lambda b: setattr(b, "attn", of_open_clip()),
    "layers without bias": lambda b: [setattr(layer, "bias", None) for layer in b.mlp[::2]],
    "QuickGELU": lambda b: setattr(b.mlp, "gelu", QuickGELU()),
}
"""Modifications that the packed path computes."""


@both_sides
@pytest.mark.parametrize("modification", [*MODIFICATIONS, *PLAIN])
def test_modified_blocks_give_what_the_model_gives(model: nn.Module, side: str, modification: str):
    model.train()
    before = our_features(model, side)
    assert_same(model, side)
    assert text_encoder(model).implementation == "packed"
    torch.manual_seed(0)
    (MODIFICATIONS | PLAIN)[modification](first_block(model, side))
    assert_same(model, side)
    assert (our_features(model, side) - before).abs().max() > 1e-3
    is_packed = modification in PLAIN or side == "image"
    assert text_encoder(model).implementation == ("packed" if is_packed else "reference")
    if not is_packed:
        with pytest.raises(ConfigError):
            text_encoder(model, "packed")


@both_sides
def test_a_subclass_encodes_itself_and_a_mask_may_be_another(model: nn.Module, side: str) -> None:
    model.attn_mask.fill_(0)  # not causal
    assert_same(model, side)
    subclass(model, f"encode_{side}")
    assert_same(model, side)


@both_sides
@pytest.mark.parametrize("kind", ["backward_hook", "backward_pre_hook"])
def test_backward_hooks_are_called(model: nn.Module, side: str, kind: str) -> None:
    block = first_block(model, side)
    weight = block.ln_1.weight
    (before,) = torch.autograd.grad(own_features(model, side).sum(), weight)
    register = getattr(block.mlp, f"register_full_{kind}")
    register(lambda module, grads, *_: increase(grads))
    (expected,) = torch.autograd.grad(own_features(model, side).sum(), weight)
    (gradient,) = torch.autograd.grad(our_features(model, side).sum(), weight)
    torch.testing.assert_close(gradient, expected, atol=1e-11, rtol=0)
    assert not torch.allclose(before, expected)


@pytest.mark.parametrize(
    ("family", "side"), [("CLIP", "image"), ("custom text", "text"), ("CoCa", "text")]
)
def test_a_hook_on_any_module_is_called(family: str, side: str) -> None:
    model, changed = MODEL_FAMILIES[family]().model, []
    tower = model.visual if side == "image" else model.text
    before = own_features(model, side)
    for _, module in tower.named_modules():
        with module.register_forward_hook(increase):
            assert_same(model, side)
            changed.append(not torch.allclose(own_features(model, side), before))
    assert sum(changed) > len(changed) / 2


def test_auto_logs_once_which_path_it_takes(model, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "cae_lib")
    for _ in range(2):
        encode_text(model, captions())
    model.transformer.resblocks[1].ln_2.register_forward_hook(increase)
    for path in ("auto", "auto", "reference"):
        text_encoder(model, path)
    info, warning = caplog.records
    assert (info.levelname, warning.levelname) == ("INFO", "WARNING")
    assert "resblocks.1.ln_2" in warning.getMessage()
