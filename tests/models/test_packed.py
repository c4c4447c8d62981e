"""The trimmed text tower against open_clip's own, and its attention against explicit softmax."""

from __future__ import annotations

import open_clip
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cae_lib.models import Clip, encode_text, load_clip, packed, text_encoder

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
@pytest.mark.parametrize("attention", [None, "row", "maps"])
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

    monkeypatch.setattr(packed, "_fused_is_faster", lambda device: True)
    monkeypatch.setattr(F, "scaled_dot_product_attention", counted)
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
            expected = expected[rows, :, tokens.argmax(-1), : row.shape[-1]]
            torch.testing.assert_close(row, expected, atol=1e-6, rtol=0)
    _assert_same(tiny_clip.model, tokens, 1e-5, attention=attention)


@pytest.mark.parametrize("options", [{"second_order": True}, {"attention": "maps"}])
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


def test_no_position_after_the_longest_caption_is_computed(
    tiny_clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = tiny_clip.tokenizer(["a dog", "the red cat sits on a chair"])
    output = encode_text(tiny_clip.model, tokens, attention="row")
    assert output.embeddings.shape == (2, 9, 96)
    assert output.readout.nonzero().tolist() == [[0, 3], [1, 8]]
    seen: list[int] = []
    finish = packed.finish_block

    def counted(block: nn.Module, x: Tensor, merged: Tensor) -> Tensor:
        seen.append(len(x))
        return finish(block, x, merged)

    monkeypatch.setattr(packed, "finish_block", counted)
    encode_text(tiny_clip.model, tokens)
    assert seen == [4 + 9, 4 + 9, 4 + 9, 2]  # no padding of the shorter caption either


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
    path = encode_text(model, tokens, attention="maps").attention
    explicit = _explicit_maps(model, tokens)
    assert len(rows) == len(path) == 4
    each = torch.arange(len(tokens))
    for layer, expected in enumerate(explicit):
        row = expected[each, :, eot]
        torch.testing.assert_close(rows[layer], row, atol=1e-10, rtol=0)
        if layer < 3:
            torch.testing.assert_close(path[layer][each, :, eot], row, atol=1e-10, rtol=0)
        else:
            torch.testing.assert_close(path[layer].squeeze(2), row, atol=1e-10, rtol=0)


@pytest.mark.parametrize("attention", ["row", "maps"])
def test_maps_carry_gradients(tiny_clip: Clip, attention: str) -> None:
    tokens = tiny_clip.tokenizer(SHORT)
    output = encode_text(tiny_clip.model, tokens, attention=attention)
    for layer, weights in enumerate(output.attention):
        tiny_clip.model.zero_grad()
        weights[..., 1].sum().backward(retain_graph=True)
        block = tiny_clip.model.transformer.resblocks[layer]
        assert block.attn.in_proj_weight.grad.abs().max() > 0


def test_path_maps_are_on_the_path_to_the_features(tiny_clip: Clip) -> None:
    output = encode_text(tiny_clip.model, tiny_clip.tokenizer(SHORT), attention="maps")
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
    _assert_same(tiny_clip.model.double(), tokens, 1e-12, attention="maps")


def test_maps_are_float32_under_autocast(tiny_clip: Clip) -> None:
    tokens = tiny_clip.tokenizer(BATCHES["mixed"])
    exact = encode_text(tiny_clip.model, tokens, attention="row")
    with torch.autocast("cpu", torch.bfloat16):
        output = encode_text(tiny_clip.model, tokens, attention="row")
    assert all(row.dtype == torch.float32 for row in output.attention)
    for row, expected in zip(output.attention, exact.attention, strict=True):
        torch.testing.assert_close(row, expected, atol=1e-2, rtol=0)
        torch.testing.assert_close(row.sum(-1), torch.ones(row.shape[:2]))


@pytest.mark.parametrize("in_order", [True, False])
def test_shared_beginnings_change_no_feature(tiny_clip: Clip, in_order: bool) -> None:
    texts = [*SHORT, "a dog", "the red cat sits on a table", "the red cat", "", *LONG]
    tokens = tiny_clip.tokenizer(sorted(texts) if in_order else texts)
    model = tiny_clip.model.double()
    found, expected = text_encoder(model, "packed").encode_many(tokens), model.encode_text(tokens)
    torch.testing.assert_close(found, expected, atol=1e-11, rtol=1e-9)
    wanted, got = _text_gradients(model, expected), _text_gradients(model, found)
    torch.testing.assert_close(got, wanted, atol=1e-11, rtol=1e-9)


@pytest.mark.parametrize("vector", [True, False])
def test_variants_are_captions_with_other_embeddings(tiny_clip: Clip, vector: bool) -> None:
    model = tiny_clip.model.double()
    tokens = tiny_clip.tokenizer(["a dog", "the red cat sits on a chair"])
    caption, masked = torch.tensor([1, 0, 1]), torch.zeros(3, 9, dtype=torch.bool)
    masked[0, 2], masked[1, 1], masked[2, 4:6] = True, True, True
    table = model.token_embedding.weight
    stand_in = torch.randn(96).double() if vector else torch.randint(0, 49000, (2, 9))
    found = text_encoder(model, "packed").encode_variants(tokens, caption, masked, stand_in)
    torch.testing.assert_close(found[:2], model.encode_text(tokens), atol=1e-11, rtol=1e-9)
    for row, text in enumerate(caption):
        embeddings = table[tokens[text]].clone()
        for place in masked[row].nonzero()[:, 0]:
            embeddings[place] = stand_in if vector else table[stand_in[text, place]]
        with torch.no_grad():
            hook = model.token_embedding.register_forward_hook(lambda *_, e=embeddings: e[None])
            expected = model.encode_text(tokens[text : text + 1])[0]
            hook.remove()
        torch.testing.assert_close(found[2 + row], expected, atol=1e-11, rtol=1e-9)
