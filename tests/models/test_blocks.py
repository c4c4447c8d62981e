"""The MLP and the patches of a tower, where somebody has put something into it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cae_lib.models import Clip, encode_image, encode_text


class Adapter(nn.Module):
    """A layer with something learned beside it, which shows its weight as adapters do."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.weight, self.bias = layer, layer.weight, layer.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + 1


def test_adapters_of_the_mlp_and_the_patches_take_part(tiny_clip: Clip) -> None:
    model = tiny_clip.model.double()
    tokens, images = tiny_clip.tokenizer(["a red cat"]), torch.randn(1, 3, 112, 112).double()
    before = encode_text(model, tokens).features, encode_image(model, images).features
    for tower in (model.transformer, model.visual.transformer):
        tower.resblocks[0].mlp.c_fc = Adapter(tower.resblocks[0].mlp.c_fc)
    model.visual.conv1 = Adapter(model.visual.conv1)
    after = encode_text(model, tokens).features, encode_image(model, images).features
    torch.testing.assert_close(after[0], model.encode_text(tokens), atol=1e-11, rtol=1e-9)
    torch.testing.assert_close(after[1], model.encode_image(images), atol=1e-11, rtol=1e-9)
    assert all((a - b).abs().max() > 1e-3 for a, b in zip(after, before, strict=True))


def test_hooks_act(tiny_clip: Clip) -> None:
    model = tiny_clip.model.double()
    tokens, images = tiny_clip.tokenizer(["a red cat"]), torch.randn(1, 3, 112, 112).double()
    for tower in (model.transformer, model.visual.transformer):
        for module in (tower.resblocks[1], tower.resblocks[2].attn.out_proj):
            module.register_forward_hook(lambda module, inputs, output: 2 * output)
    torch.testing.assert_close(encode_text(model, tokens).features, model.encode_text(tokens))
    torch.testing.assert_close(encode_image(model, images).features, model.encode_image(images))


def test_a_rest_beside_the_patches_is_left_out_as_open_clip_does(tiny_clip: Clip) -> None:
    model, images = tiny_clip.model.double(), torch.randn(1, 3, 115, 114).double()
    found = encode_image(model, images).features
    torch.testing.assert_close(found, model.encode_image(images), atol=1e-11, rtol=1e-9)
