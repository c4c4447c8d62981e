"""The trimmed text tower against open_clip's own, and its attention against explicit softmax."""

from __future__ import annotations

import open_clip
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cae_lib.errors import ConfigError
from cae_lib.models import Clip, encode_text, load_clip, text_tower, towers

SHORT = ["a dog", "x", "the red cat sits on a chair"]
LONG = [" ".join(["a small blue bird on the left of a tree and"] * 4)]
TRUNCATED = ["word " * 100, "a striped cup " * 60]
BATCHES = {
    "short": SHORT,
    "long": LONG,
    "truncated": TRUNCATED,
    "empty": ["", ""],
    "mixed": SHORT + LONG + TRUNCATED + [""],
}


def _text_gradients(model: nn.Module, features: Tensor) -> dict[str, Tensor]:
    """Gradients of a fixed random projection of the features."""
    direction = torch.randn(features.shape, generator=torch.Generator().manual_seed(0))
    model.zero_grad()
    (features * direction.to(features)).sum().backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def _assert_same(model: nn.Module, tokens: Tensor, tolerance: float, **options: object) -> None:
    expected = model.encode_text(tokens)
    features = encode_text(model, tokens, **options).features
    torch.testing.assert_close(features, expected, atol=tolerance, rtol=0)
    wanted, got = _text_gradients(model, expected), _text_gradients(model, features)
    assert wanted.keys() == got.keys()
    for name, gradient in wanted.items():
        scale = gradient.abs().max().clamp(min=1)
        torch.testing.assert_close(got[name] / scale, gradient / scale, atol=tolerance, rtol=0)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("attention", [None, "row", "path", "full"])
def test_features_and_gradients_are_those_of_open_clip(
    tiny_clip: Clip, batch: str, attention: str | None
) -> None:
    tokens = tiny_clip.tokenizer(BATCHES[batch])
    _assert_same(tiny_clip.model, tokens, 1e-5, attention=attention)


def test_equal_to_rounding_in_float64(tiny_clip: Clip) -> None:
    tokens = tiny_clip.tokenizer(BATCHES["mixed"])
    _assert_same(tiny_clip.model.double(), tokens, 1e-12, attention="row")


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Take the fused kernel as on a GPU; the queries it was called with."""
    calls: list[Tensor] = []
    kernel = F.scaled_dot_product_attention

    def counted(q: Tensor, *arguments: Tensor, **options: bool) -> Tensor:
        calls.append(q)
        return kernel(q, *arguments, **options)

    monkeypatch.setattr(towers, "_fused_is_faster", lambda device: True)
    monkeypatch.setattr(towers.F, "scaled_dot_product_attention", counted)
    return calls


@pytest.mark.parametrize("attention", [None, "row"])
def test_fused_kernel(tiny_clip: Clip, fused: list[Tensor], attention: str | None) -> None:
    tokens = tiny_clip.tokenizer(BATCHES["mixed"])
    output = encode_text(tiny_clip.model, tokens, attention=attention)
    assert len(fused) == 3  # the last block computes one row by hand
    rows = torch.arange(len(tokens))
    if attention:
        explicit = _explicit_maps(tiny_clip.model, tokens)
        for row, expected in zip(output.attention, explicit, strict=True):
            torch.testing.assert_close(row, expected[rows, :, output.eot], atol=1e-6, rtol=0)
    _assert_same(tiny_clip.model, tokens, 1e-5, attention=attention)


@pytest.mark.parametrize("options", [{"second_order": True}, {"attention": "path"}])
def test_second_order_avoids_the_fused_kernel(
    tiny_clip: Clip, fused: list[Tensor], options: dict
) -> None:
    tokens = tiny_clip.tokenizer(SHORT)
    output = encode_text(tiny_clip.model, tokens, **options)
    assert not fused
    weight = tiny_clip.model.transformer.resblocks[0].attn.in_proj_weight
    (first,) = torch.autograd.grad(
        output.features.sum(), output.embeddings, create_graph=True
    )
    first.square().sum().backward()
    assert weight.grad.abs().max() > 0


def test_vit_b_32() -> None:
    clip = load_clip("ViT-B-32", seed=1)
    _assert_same(clip.model, clip.tokenizer(SHORT), 1e-5, attention="row")


def test_custom_text_clip_with_layer_scale_and_biased_projection() -> None:
    torch.manual_seed(0)
    config = open_clip.get_model_config("clip-mini")
    config["text_cfg"] |= {"ls_init_value": 0.3, "proj_bias": True, "pool_type": "eos"}
    config["text_cfg"]["eos_id"] = 49407
    model = open_clip.CustomTextCLIP(**config)
    tokens = open_clip.tokenize(BATCHES["mixed"])
    _assert_same(model, tokens, 1e-5, attention="row")


def test_no_position_after_the_longest_caption_is_computed(tiny_clip: Clip) -> None:
    tokens = tiny_clip.tokenizer(["a dog", "the red cat sits on a chair"])
    output = encode_text(tiny_clip.model, tokens, attention="row")
    assert output.embeddings.shape == (2, 9, 96)
    assert output.eot.tolist() == [3, 8]
    seen: list[int] = []
    norm = tiny_clip.model.transformer.resblocks[0].ln_2
    with torch.no_grad():
        hook = norm.register_forward_hook(lambda module, inputs, out: seen.append(len(inputs[0])))
        encode_text(tiny_clip.model, tokens)
        hook.remove()
    assert seen == [4 + 9]  # packed: no padding of the shorter caption either


def _explicit_maps(model: nn.Module, tokens: Tensor) -> list[Tensor]:
    """Softmax attention of every layer over all 77 positions, from open_clip's own states."""
    normed: list[Tensor] = []
    blocks = model.transformer.resblocks
    hooks = [b.ln_1.register_forward_hook(lambda m, i, out: normed.append(out)) for b in blocks]
    with torch.no_grad():
        model.encode_text(tokens)
    for hook in hooks:
        hook.remove()
    maps = []
    for block, states in zip(blocks, normed, strict=True):
        heads, width = block.attn.num_heads, states.shape[-1]
        projected = F.linear(states, block.attn.in_proj_weight, block.attn.in_proj_bias)
        q, k, _ = projected.split(width, -1)
        q, k = (s.reshape(*s.shape[:2], heads, -1).permute(0, 2, 1, 3) for s in (q, k))
        scores = torch.einsum("bhqd,bhkd->bhqk", q, k) / (width / heads) ** 0.5
        maps.append((scores + model.attn_mask.to(scores)).softmax(-1))
    return maps


def test_rows_are_those_of_explicit_attention_over_77_tokens(tiny_clip: Clip) -> None:
    model = tiny_clip.model.double()
    tokens = tiny_clip.tokenizer(BATCHES["mixed"])
    eot = tokens.argmax(-1)
    rows = encode_text(model, tokens, attention="row").attention
    path = encode_text(model, tokens, attention="path").attention
    full = encode_text(model, tokens, attention="full").attention
    explicit = _explicit_maps(model, tokens)
    assert len(rows) == len(path) == len(full) == 4
    each = torch.arange(len(tokens))
    for layer, expected in enumerate(explicit):
        row = expected[each, :, eot]
        torch.testing.assert_close(rows[layer], row, atol=1e-10, rtol=0)
        if layer < 3:
            torch.testing.assert_close(path[layer][each, :, eot], row, atol=1e-10, rtol=0)
        else:
            torch.testing.assert_close(path[layer].squeeze(2), row, atol=1e-10, rtol=0)
        inside = (torch.arange(77) <= eot[:, None])[:, None, :, None]
        torch.testing.assert_close(full[layer], expected * inside, atol=1e-10, rtol=0)


@pytest.mark.parametrize("attention", ["row", "path", "full"])
def test_maps_carry_gradients(tiny_clip: Clip, attention: str) -> None:
    tokens = tiny_clip.tokenizer(SHORT)
    output = encode_text(tiny_clip.model, tokens, attention=attention)
    for layer, weights in enumerate(output.attention):
        tiny_clip.model.zero_grad()
        weights[..., 1].sum().backward(retain_graph=True)
        block = tiny_clip.model.transformer.resblocks[layer]
        assert block.attn.in_proj_weight.grad.abs().max() > 0


def test_path_maps_are_on_the_path_to_the_features(tiny_clip: Clip) -> None:
    output = encode_text(tiny_clip.model, tiny_clip.tokenizer(SHORT), attention="path")
    gradients = torch.autograd.grad(output.features.sum(), output.attention)
    assert all(gradient.abs().max() > 0 for gradient in gradients)


def test_other_embeddings_can_be_given(tiny_clip: Clip) -> None:
    tokens = tiny_clip.tokenizer(["a dog", "a cat"])
    own = encode_text(tiny_clip.model, tokens)
    swapped = encode_text(tiny_clip.model, tokens, embeddings=own.embeddings.flip(0))
    torch.testing.assert_close(swapped.features, own.features.flip(0))


def test_gradient_checkpointing_changes_nothing(tiny_clip: Clip) -> None:
    tiny_clip.model.set_grad_checkpointing(True)
    tokens = tiny_clip.tokenizer(BATCHES["mixed"])
    _assert_same(tiny_clip.model.double(), tokens, 1e-12, attention="path")


def test_maps_are_float32_under_autocast(tiny_clip: Clip) -> None:
    tokens = tiny_clip.tokenizer(BATCHES["mixed"])
    exact = encode_text(tiny_clip.model, tokens, attention="row")
    with torch.autocast("cpu", torch.bfloat16):
        output = encode_text(tiny_clip.model, tokens, attention="row")
    assert all(row.dtype == torch.float32 for row in output.attention)
    for row, expected in zip(output.attention, exact.attention, strict=True):
        torch.testing.assert_close(row, expected, atol=1e-2, rtol=0)
        torch.testing.assert_close(row.sum(-1), torch.ones(row.shape[:2]))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"no_causal_mask": True}, "no causal mask"),
        ({"embed_cls": True}, "class token"),
        ({"pool_type": "last"}, "pools by 'last'"),
        ({"qk_norm": True}, "ResidualAttentionBlock"),
    ],
)
def test_unsupported_tower_says_why(change: dict[str, object], reason: str) -> None:
    config = open_clip.get_model_config("clip-mini")
    config["text_cfg"] |= change
    with pytest.raises(ConfigError, match=reason):
        text_tower(open_clip.CustomTextCLIP(**config))


def test_foreign_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="no CLIP or CustomTextCLIP"):
        text_tower(nn.Linear(2, 2))


def test_coca_is_refused() -> None:
    config = open_clip.get_model_config("clip-mini") | {
        "multimodal_cfg": {"width": 96, "heads": 4, "layers": 1, "context_length": 76}
    }
    config["text_cfg"] |= {"embed_cls": True, "output_tokens": True}
    config["vision_cfg"] |= {"attentional_pool": True, "output_tokens": True}
    config["vision_cfg"]["attn_pooler_heads"] = 4
    with pytest.raises(ConfigError, match="CoCa is not supported: the model is no CLIP"):
        text_tower(open_clip.CoCa(**config))


def test_text_tower_of_another_library_is_refused() -> None:
    class HFTextEncoder(nn.Module):
        """Stands for open_clip's, which needs a download."""

    model = open_clip.CustomTextCLIP(**open_clip.get_model_config("clip-mini"))
    model.text = HFTextEncoder()
    with pytest.raises(ConfigError, match="it is a HFTextEncoder, not open_clip's TextTransf"):
        text_tower(model)


def test_a_wrapper_is_refused_with_the_way_out(tiny_clip: Clip) -> None:
    compiled = torch.compile(tiny_clip.model, backend="eager")
    with pytest.raises(ConfigError, match=r"torch.compile\): pass model._orig_mod"):
        text_tower(compiled)
    with pytest.raises(ConfigError, match=r"DataParallel\): pass model.module"):
        text_tower(nn.DataParallel(tiny_clip.model))
    assert text_tower(compiled._orig_mod).token_embedding is tiny_clip.model.token_embedding
