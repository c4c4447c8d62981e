"""Whatever is changed in a model, its own code says what its features are, packed or not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from families import FAMILIES, VISION, captions, clip, custom
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

from cae_lib.errors import ConfigError
from cae_lib.models import encode_image, encode_text, text_encoder

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)).double()
SIDES = ("text", "image")


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """A tiny CLIP in float64, with two layers in each tower."""
    monkeypatch.setitem(VISION, "layers", 2)
    return FAMILIES["CLIP"]().model


def _found(model: nn.Module, side: str) -> Tensor:
    """Features by the code under test."""
    if side == "text":
        return encode_text(model, captions()).features
    return encode_image(model, IMAGES).features


def _own(model: nn.Module, side: str) -> Tensor:
    """Features by the model's own code."""
    return model.encode_text(captions()) if side == "text" else model.encode_image(IMAGES)


def _block(model: nn.Module, side: str) -> nn.Module:
    return (model if side == "text" else model.visual).transformer.resblocks[0]


def _more(*arguments: Any) -> Any:
    """As a hook of any kind: a tenth more than the last argument."""
    last = arguments[-1]
    if isinstance(last, tuple):
        return tuple(map(_more, last))
    return None if last is None else last * 1.1


class More(nn.Module):
    """A parametrisation, or an adapter around a layer."""

    def __init__(self, layer: nn.Module | None = None) -> None:
        super().__init__()
        self.layer = layer or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """A tenth more."""
        return self.layer(x) * 1.1


class OtherBlock(ResidualAttentionBlock):
    """A block with a method of its own."""

    def attention(self, *arguments: Any, **options: Any) -> Tensor:
        """A tenth more."""
        return super().attention(*arguments, **options) * 1.1


class OtherParameter(nn.Parameter):
    """A parameter that says how layers treat it, as quantised ones do."""

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, arguments: Any = (), options: Any = None
    ):
        found = super().__torch_function__(function, types, arguments, options or {})
        return found * 1.1 if function is F.linear else found


def _replace_attention(block: nn.Module) -> None:
    own = block.attention
    block.attention = lambda *a, **o: own(*a, **o) * 1.1


def _attend_with(**options: Any) -> Callable[[nn.Module], None]:
    def replace(block: nn.Module) -> None:
        block.attn = nn.MultiheadAttention(16, 2, batch_first=True, **options).double()

    return replace


def _weight_norm(block: nn.Module) -> None:
    nn.utils.weight_norm(block.mlp.c_proj).weight_g.data.mul_(1.1)


def _foreign_parameter(block: nn.Module) -> None:
    block.mlp.c_fc.weight = OtherParameter(block.mlp.c_fc.weight.data)


def _adapt(target: str) -> Callable[[nn.Module], None]:
    def adapt(block: nn.Module) -> None:
        peft = pytest.importorskip("peft")
        config = peft.LoraConfig(r=2, target_modules=[target], init_lora_weights=False)
        peft.inject_adapter_in_model(config, block.double())
        block.double()

    return adapt


ALTERATIONS: dict[str, Callable[[nn.Module], Any]] = {
    "forward hook": lambda b: b.mlp.c_fc.register_forward_hook(_more),
    "pre-hook": lambda b: b.mlp.register_forward_pre_hook(_more),
    "hook on an identity": lambda b: b.ls_2.register_forward_hook(_more),
    "hook on the block": lambda b: b.register_forward_hook(_more),
    "subclass": lambda b: setattr(b, "__class__", OtherBlock),
    "wrapped layer": lambda b: setattr(b.mlp, "c_proj", More(b.mlp.c_proj)),
    "parametrisation": lambda b: parametrize.register_parametrization(b.mlp.c_fc, "weight", More()),
    "weight norm": _weight_norm,
    "pruning": lambda b: prune.l1_unstructured(b.mlp.c_proj, "weight", 0.5),
    "replaced attention": _replace_attention,
    "replaced forward": lambda b: setattr(b.ln_2, "forward", lambda x: x * 1.1),
    "attention without bias": _attend_with(bias=False),
    "attention to zeros": _attend_with(add_zero_attn=True),
    "attention to a bias": _attend_with(add_bias_kv=True),
    "foreign parameter": _foreign_parameter,
    "LoRA": _adapt("c_proj"),
    "LoRA of the attention": _adapt("attn"),
    "dropout": lambda b: setattr(b.mlp, "gelu", nn.Sequential(b.mlp.gelu, nn.Dropout(0.5))),
}


def _assert_reference(model: nn.Module, side: str) -> None:
    torch.manual_seed(0)
    found = _found(model, side)
    torch.manual_seed(0)
    torch.testing.assert_close(found, _own(model, side), atol=1e-11, rtol=0)
    if side == "text":
        assert text_encoder(model).path == "reference"
        with pytest.raises(ConfigError, match="not exact"):
            text_encoder(model, "packed")


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_altered_blocks_are_called(model: nn.Module, side: str, alteration: str) -> None:
    model.train()
    before = _found(model, side)
    torch.testing.assert_close(before, _own(model, side), atol=1e-11, rtol=0)
    assert text_encoder(model).path == "packed"
    torch.manual_seed(0)
    ALTERATIONS[alteration](_block(model, side))
    _assert_reference(model, side)
    assert (_found(model, side) - before).abs().max() > 1e-3


@pytest.mark.parametrize("side", SIDES)
def test_dropout_of_the_attention(model: nn.Module, side: str) -> None:
    _block(model.train(), side).attn.dropout = 0.5
    _assert_reference(model, side)


@pytest.mark.parametrize("side", SIDES)
def test_lora_that_open_clip_leaves_out(model: nn.Module, side: str) -> None:
    """`nn.MultiheadAttention` reads the weight of its projection and never calls it."""
    before = _own(model, side)
    _adapt("out_proj")(_block(model, side))
    _assert_reference(model, side)
    torch.testing.assert_close(_found(model, side), before, atol=1e-11, rtol=0)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("part", ["mlp", "attn", "ln_1"])
def test_backward_hooks_are_called(model: nn.Module, side: str, part: str) -> None:
    block = _block(model, side)
    plain, *_ = torch.autograd.grad(_own(model, side).sum(), block.ln_1.weight)
    getattr(block, part).register_full_backward_hook(lambda m, grads, _: _more(grads))
    gradients = [
        torch.autograd.grad(encode(model, side).sum(), block.ln_1.weight)[0]
        for encode in (_found, _own)
    ]
    torch.testing.assert_close(*gradients, atol=1e-11, rtol=0)
    assert (gradients[0] - plain).abs().max() > 1e-6 or part == "ln_1"


@pytest.fixture(params=["register_module_forward_hook", "register_module_forward_pre_hook"])
def hooks_everywhere(request: pytest.FixtureRequest) -> Iterator[None]:
    """A hook of all modules, which acts on those of the type GELU."""
    register = getattr(nn.modules.module, request.param)
    handle = register(lambda m, *a: _more(*a) if isinstance(m, nn.GELU) else None)
    yield
    handle.remove()


@pytest.mark.usefixtures("hooks_everywhere")
@pytest.mark.parametrize("side", SIDES)
def test_hooks_of_all_modules_are_called(model: nn.Module, side: str) -> None:
    _assert_reference(model, side)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    ("kind", "method"),
    [
        (ResidualAttentionBlock, "attention"),
        (nn.LayerNorm, "forward"),
        (nn.GELU, "forward"),
        (nn.Linear, "forward"),
    ],
)
def test_methods_replaced_for_a_whole_class(
    model: nn.Module, side: str, kind: type, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind is nn.LayerNorm:
        kind = type(model.ln_final)
    own = getattr(kind, method)
    monkeypatch.setattr(kind, method, lambda *a, **o: own(*a, **o) * 1.1)
    _assert_reference(model, side)


def test_replaced_methods_of_the_model(model: nn.Module) -> None:
    text, image = model.encode_text, model.encode_image
    model.encode_text = lambda *a, **o: text(*a, **o) * 1.1
    model.encode_image = lambda *a, **o: image(*a, **o) * 1.1
    for side in SIDES:
        _assert_reference(model, side)


def test_subclass_of_the_model(model: nn.Module) -> None:
    class Other(type(model)):
        def encode_text(self, text: Tensor, normalize: bool = False) -> Tensor:
            return super().encode_text(text, normalize) * 1.1

        def encode_image(self, image: Tensor, normalize: bool = False) -> Tensor:
            return super().encode_image(image, normalize) * 1.1

    model.__class__ = Other
    for side in SIDES:
        _assert_reference(model, side)


def test_replaced_pooling_of_the_image_tower(model: nn.Module) -> None:
    model.visual._global_pool = lambda x: (x.mean(1), x)
    _assert_reference(model, "image")
    del model.visual._global_pool
    model.visual._pool = lambda x: (x.mean(1), x)
    _assert_reference(model, "image")


@pytest.mark.parametrize("build", [clip, custom])
def test_other_mask(build: Callable[[], nn.Module]) -> None:
    model = build().double()
    assert text_encoder(model).path == "packed"
    getattr(model, "text", model).attn_mask.fill_(0)
    _assert_reference(model, "text")


@pytest.mark.parametrize(
    "family", ["CLIP", "custom text", "custom blocks", "bidirectional", "CoCa"]
)
def test_hook_on_each_module_in_turn(family: str) -> None:
    case = FAMILIES[family]()
    encode = case.features
    plain, changed, calls = encode(case.tokens), 0, 0
    for side, tokens in (("text", case.tokens), ("image", IMAGES)):
        tower = case.model.visual if side == "image" else getattr(case.model, "text", case.model)
        own = case.model.encode_image if side == "image" else encode
        plain = own(tokens)
        for name, module in tower.named_modules():
            if side == "text" and name.startswith("visual"):
                continue
            handle = module.register_forward_hook(_more)
            expected = own(tokens)
            options = {} if side == "text" else {"attention": False}
            found = (encode_text if side == "text" else encode_image)(case.model, tokens, **options)
            torch.testing.assert_close(found.features, expected, atol=1e-11, rtol=0, msg=name)
            handle.remove()
            calls += 1
            changed += not torch.allclose(expected, plain)
    assert changed > calls / 2


def test_auto_says_once_which_path_it_takes(
    model: nn.Module, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "cae_lib"):
        for _ in range(2):
            encode_text(model, captions())
        assert [record.levelname for record in caplog.records] == ["INFO"]
        caplog.clear()
        model.transformer.resblocks[1].ln_2.register_forward_hook(_more)
        for _ in range(2):
            encode_text(model, captions())
        text_encoder(model, "reference")
    (message,) = caplog.messages
    assert "resblocks.1.ln_2" in message and "hooks" in message
