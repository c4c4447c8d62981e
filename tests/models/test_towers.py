"""The functional towers against open_clip's own code; packing on cases worked by hand."""

from unittest.mock import Mock

import pytest
import torch
from open_clip.transformer import PatchDropout
from torch import Tensor, nn

from cae_lib.errors import ConfigError
from cae_lib.models import Clip, encode_image, encode_text, load_clip, text_encoder
from cae_lib.models.packed import PackedEncoder
from cae_lib.models.shared import SharedEncoder

SHORT = ["a dog", "x", "the red cat sits on a chair"]
MIXED = [*SHORT, "a small blue bird on the left of " * 5, "word " * 100, "a striped cup " * 60, ""]
BATCHES = {"mixed": MIXED, "empty": ["", ""]}


def _assert_same(model: nn.Module, actual: Tensor, expected: Tensor) -> None:
    """Check that features are equal, and the gradients of a fixed projection of them."""
    torch.testing.assert_close(actual, expected, atol=1e-12, rtol=1e-11)
    direction = torch.linspace(0, 99, actual.numel(), dtype=actual.dtype).view(actual.shape).sin()
    gradients = []
    for features in (actual, expected):
        model.zero_grad()
        (features * direction).sum().backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    torch.testing.assert_close(*gradients, atol=1e-11, rtol=1e-9)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("attention", [None, "row", "maps"])
def test_features_and_gradients_are_those_of_open_clip(tiny_clip: Clip, batch, attention) -> None:
    model, tokens = tiny_clip.model.double(), tiny_clip.tokenizer(BATCHES[batch])
    for checkpointing in (False, True):
        model.set_grad_checkpointing(checkpointing)
        output = encode_text(model, tokens, attention=attention)
        _assert_same(model, output.features, model.encode_text(tokens))


@pytest.mark.parametrize("in_order", [True, False])
def test_shared_beginnings_change_no_feature(tiny_clip: Clip, in_order: bool) -> None:
    texts = [*MIXED, "a dog", "the red cat sits on a table", "the red cat"]
    tokens = tiny_clip.tokenizer(sorted(texts) if in_order else texts)
    model = tiny_clip.model.double()
    actual = text_encoder(model, "packed").encode_features(tokens)
    _assert_same(model, actual, model.encode_text(tokens))


@pytest.mark.parametrize(
    ("attention", "checkpointing", "size"),
    [(False, False, 112), (True, True, 112), (False, True, 115)],  # a rest is left out
)
def test_image_features_and_gradients_are_open_clips(
    tiny_clip: Clip, attention: bool, checkpointing: bool, size: int
) -> None:
    model = tiny_clip.model.double()
    model.set_grad_checkpointing(checkpointing)
    images = torch.randn(3, 3, size, 112, dtype=torch.float64)
    output = encode_image(model, images, attention=attention)
    _assert_same(model, output.features, model.encode_image(images))


def test_patches_are_dropped_in_training_as_open_clip_drops_them(tiny_clip: Clip) -> None:
    model, images = tiny_clip.model.train(), torch.randn(2, 3, 112, 112)
    whole = encode_image(model, images).features
    model.visual.patch_dropout = PatchDropout(0.5)
    torch.manual_seed(1)
    expected = model.encode_image(images)
    torch.manual_seed(1)
    torch.testing.assert_close(encode_image(model, images).features, expected)
    assert not torch.allclose(expected, whole, atol=1e-4)
    torch.testing.assert_close(encode_image(model.eval(), images).features, whole)


def test_attention_pooling_of_timm() -> None:
    """The map of the pooling, written out: the first token is the mean of the 7 x 7 places."""
    model = load_clip("clip-photo").model.double()
    images = torch.randn(2, 3, 224, 224, dtype=torch.float64)
    output = encode_image(model, images, attention=True)
    torch.testing.assert_close(output.features, model.encode_image(images))
    pool, states = model.visual.head.pool, model.visual.trunk(images).flatten(2).mT
    x = torch.cat([states.mean(1, keepdim=True), states], dim=1) + pool.pos_embed
    q, k, _ = pool.qkv(x).unflatten(-1, (3, pool.num_heads, -1)).unbind(2)
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * q.shape[-1] ** -0.5
    (actual,) = output.attention
    torch.testing.assert_close(actual, scores.softmax(-1))
    (slope,) = torch.autograd.grad(output.features.sum(), actual)
    assert slope[:, :, 0].abs().max() > 0
    assert not slope[:, :, 1:].any()
    model.visual.head.pool.fused_attn = False  # attention by matrix products, not recorded
    with pytest.raises(ConfigError, match="scaled_dot_product_attention"):
        encode_image(model, images, attention=True)


def test_a_shared_encoding_serves_every_option_and_ends_with_its_block(
    tiny_clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokens = tiny_clip.model.double(), tiny_clip.tokenizer(SHORT)
    run, plain, shared = Mock(wraps=PackedEncoder._run), PackedEncoder(model), SharedEncoder(model)
    monkeypatch.setattr(PackedEncoder, "_run", lambda *arguments: run(*arguments))
    with shared.sharing():
        embeddings = shared.embed(tokens)
        actual = [shared.encode(tokens, attention=kind) for kind in (None, "row", "maps")]
        assert shared.encode(tokens.clone(), embeddings=embeddings).embeddings is embeddings
        assert run.call_count == 1
        # Other captions, and other embeddings of the same captions, are encoded apart.
        other = shared.encode(tokens, embeddings=2 * embeddings).features
        assert not torch.allclose(other, actual[0].features)
        assert len(shared.encode(tokens[:2]).features) == 2
    _assert_same(model, actual[0].features, plain.encode(tokens).features)
    for kind, output in zip((None, "row", "maps"), actual, strict=True):
        expected = plain.encode(tokens, attention=kind)
        assert len(output.attention) == len(expected.attention)
        for weights, others in zip(output.attention, expected.attention, strict=True):
            torch.testing.assert_close(weights, others)
    with torch.no_grad():
        model.token_embedding.weight.mul_(2)
    with shared.sharing():
        expected = plain.encode(tokens).features
        torch.testing.assert_close(shared.encode(tokens).features, expected)
    with torch.no_grad(), shared.sharing():
        assert not shared.encode(tokens).features.requires_grad
