"""Tiny models of every family that has a reference encoder, and what is known of each by hand.

That is how a model encodes, which positions may read which, and where the tower is read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.hf_model import HFTextEncoder
from torch import Tensor, nn

WORDS = torch.tensor([[0, 1, 2, 2, 3, 0, 0, 0], [0, 1, 1, 2, 3, 4, 5, 0]])
ROLES = torch.tensor([[0, 1, 2, 2, 3, 0, 0, 0], [0, 3, 3, 1, 0, 2, 1, 0]])
ENDS = torch.tensor([5, 7])
VISION = {"layers": 1, "width": 16, "head_width": 8, "patch_size": 16, "image_size": 32}
TEXT = {"vocab_size": 40, "context_length": 8, "width": 16, "heads": 2, "layers": 2, "pad_id": 0}
HF_TEXT = {
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "vocab_size": 40,
    "intermediate_size": 24,
    "max_position_embeddings": 12,
}
HF_VISION = {
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "image_size": 32,
    "intermediate_size": 24,
    "patch_size": 16,
}


@dataclass
class Case:
    """A model, two captions for it, and what should become of them.

    Attributes:
        model: in float64, with random weights.
        features: tokens -> features by the model's own code.
        embedding: the layer of token embeddings.
        attentions: the attention of each layer.
        read: where the tower is read, "end", "first", "last" or "mean".
        causal: whether tokens read the ones before them only.
        padding: the token that is not read; None where all are.
        tokens: `(2, 8)`.
        tolerance: of features and scores.
    """

    model: nn.Module
    features: Callable[[Tensor], Tensor]
    embedding: nn.Module
    attentions: list[nn.Module]
    read: str
    causal: bool = False
    padding: int | None = None
    tokens: Tensor = field(default_factory=lambda: captions())
    tolerance: float = 1e-10
    extra: int = 0

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.model.double().eval()
        with torch.no_grad():  # adapters act, biases and norms too
            for name, p in self.model.named_parameters():
                noise = torch.randn(p.shape, generator=generator, dtype=torch.float64)
                if "logit_scale" not in name or p.ndim > 1:
                    p.copy_(noise * 0.4 if p.ndim > 1 else p + noise * 0.1)
        width = self.features(self.tokens).shape[-1]
        self.images = torch.randn(2, width, generator=generator, dtype=torch.float64)

    @property
    def length(self) -> int:
        """T, with a class token behind the captions."""
        return self.tokens.shape[1] + self.extra

    @property
    def readout(self) -> Tensor:
        """Weight of each position in the features `(2, T)`."""
        rows = torch.zeros(2, self.length, dtype=torch.float64)
        if self.read == "mean":
            rows[:] = (self.tokens != self.padding).double()
            return rows / rows.sum(1, keepdim=True)
        places = {"end": ENDS, "first": torch.tensor([0, 0]), "last": torch.tensor([-1, -1])}
        rows[[0, 1], places[self.read]] = 1
        return rows

    @property
    def allowed(self) -> Tensor:
        """Which position may read which `(2, 1, T, T)`."""
        size = self.length
        allowed = torch.ones(2, 1, size, size, dtype=torch.bool)
        if self.causal:
            allowed = allowed.tril()
        if self.padding is not None:
            keys = self.tokens != self.padding
            # CoCa puts the class token behind the caption, but its mask has it in front.
            keys = torch.cat([torch.ones(2, self.extra, dtype=torch.bool), keys], dim=1)
            allowed = allowed & keys[:, None, None]
        return allowed

    def cosine(self, features: Tensor) -> Tensor:
        """S of each caption `(2,)`."""
        return F.cosine_similarity(features, self.images, dim=-1)

    @contextlib.contextmanager
    def given(self, embeddings: Tensor) -> Iterator[None]:
        """Other embeddings in the place of the model's."""
        hook = self.embedding.register_forward_hook(lambda *_: embeddings.clone())
        yield
        hook.remove()

    @contextlib.contextmanager
    def by_hand(self) -> Iterator[list[Tensor]]:
        """The attention of each layer written out; its maps lie on the path to the features."""
        maps: list[Tensor] = []
        bias = None

        def attend(module: nn.Module, x: Tensor, **options: Any) -> Any:
            nonlocal bias
            q, k, v, out, scale = _projected(module, x)
            scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * scale
            if hasattr(module, "relative_attention_bias"):  # T5's first layer has it for all
                bias = module.compute_bias(self.length, self.length)
            scores = scores if bias is None else scores + bias
            maps.append(scores.masked_fill(~self.allowed, -1e300).softmax(-1))
            mixed = torch.einsum("bhqk,bkhd->bqhd", maps[-1], v)
            mixed = out(mixed.flatten(2))
            kind = type(module).__name__
            if kind == "Attention":
                return mixed
            return (mixed, bias, maps[-1]) if kind == "MT5Attention" else (mixed, maps[-1])

        for module in self.attentions:
            module.forward = lambda x=None, *_, hidden_states=None, m=module, **o: attend(
                m, hidden_states if x is None else x, **o
            )
        try:
            yield maps
        finally:
            for module in self.attentions:
                del module.forward


def _projected(module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, Tensor, nn.Module, float]:
    """Queries, keys and values `(B, T, H, d)`, what maps heads to states, the factor of scores."""
    out: Any = nn.Identity()
    if hasattr(module, "get_delta_weight"):  # peft's MultiheadAttention
        base, delta = module.base_layer, module.get_delta_weight("default")
        weight, heads, last = base.in_proj_weight + delta, base.num_heads, base.out_proj
        delta = last.get_delta_weight("default")  # peft merges it twice, once without gradient
        weight_out = last.base_layer.weight + delta + delta.detach()
        projected = F.linear(x, weight, base.in_proj_bias).chunk(3, -1)
        out = lambda mixed: F.linear(mixed, weight_out, last.base_layer.bias)  # noqa: E731
    elif hasattr(module, "in_proj_weight"):
        projected = F.linear(x, module.in_proj_weight, module.in_proj_bias).chunk(3, -1)
        heads, out = module.num_heads, module.out_proj
    elif hasattr(module, "q_proj"):
        projected = [module.q_proj(x), module.k_proj(x), module.v_proj(x)]
        heads, out = module.num_heads, module.out_proj
    elif hasattr(module, "query"):
        projected = [module.query(x), module.key(x), module.value(x)]
        heads = module.num_attention_heads
    else:
        projected, heads, out = [module.q(x), module.k(x), module.v(x)], module.n_heads, module.o
    q, k, v = (part.unflatten(-1, (heads, -1)) for part in projected)
    scale = 1.0 if hasattr(module, "o") else q.shape[-1] ** -0.5
    if hasattr(module, "ln_q"):
        q, k = module.ln_q(q), module.ln_k(k)
        if module.head_scale is not None:
            v = v * module.head_scale.view(1, 1, -1, 1)
        inner, projection = module.ln_inner, module.out_proj
        out = lambda mixed: projection(inner(mixed))  # noqa: E731
    return q, k, v, out, scale


def captions(start: int = 38, end: int = 39, pad: int = 0) -> Tensor:
    """Two captions, of four and of six tokens between start and end."""
    first = [start, 11, 12, 13, 14, end, pad, pad]
    return torch.tensor([first, [start, 21, 22, 23, 24, 25, 26, end]])


def clip(**text: Any) -> nn.Module:
    """open_clip's `CLIP`."""
    return open_clip.CLIP(12, VISION, TEXT | text)


def custom(**text: Any) -> nn.Module:
    """open_clip's `CustomTextCLIP`."""
    return open_clip.CustomTextCLIP(12, VISION, TEXT | text)


def _pad_masked(model: nn.Module) -> nn.Module:
    model.text.use_pad_mask = True  # no configuration reaches this option of TextTransformer
    return model


def _open_clip(model: nn.Module, read: str, causal: bool = True, **options: Any) -> Case:
    inner = model.base_model.model if hasattr(model, "peft_config") else model
    text = getattr(inner, "text", inner)
    return Case(
        model,
        lambda tokens: inner.encode_text(tokens, normalize=False),
        text.token_embedding,
        [block.attn for block in text.transformer.resblocks],
        read,
        causal,
        **options,
    )


def _siglip_of_open_clip() -> Case:
    config = open_clip.get_model_config("ViT-B-16-SigLIP")["text_cfg"]
    return _open_clip(custom(**(config | TEXT)), "last", causal=False)


def _coca() -> Case:
    text = TEXT | {"embed_cls": True, "output_tokens": True}
    decoder = {"width": 16, "heads": 2, "layers": 1, "context_length": 8, "vocab_size": 40}
    vision = VISION | {"output_tokens": True}
    model = open_clip.CoCa(12, decoder, text, vision)
    return _open_clip(model, "last", padding=0, extra=1)


def _peft(
    model: Callable[[], nn.Module], target: str | list[str], case: Callable, **o: Any
) -> Case:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=target)
    return case(peft.get_peft_model(model(), config), **o)


def _with_hugging_face(kind: str, pooler: str, read: str, **config: Any) -> Case:
    transformers = pytest.importorskip("transformers")
    model = custom()
    config = transformers.AutoConfig.for_model(kind, **config)
    model.text = HFTextEncoder("", 12, config, pooler_type=pooler, proj_type="mlp")
    tower = model.text.transformer
    if config.is_encoder_decoder:
        tower = model.text.transformer = tower.encoder  # as HFTextEncoder does without a config
    names = ("SelfAttention", "self_attn", "self")
    return Case(
        model,
        model.encode_text,
        tower.get_input_embeddings(),
        [m for n, m in tower.named_modules() if n.rpartition(".")[2] in names],
        read,
        padding=config.pad_token_id,
        tokens=captions(3, 2, config.pad_token_id),
    )


def _hugging_face(
    kind: str,
    read: str,
    causal: bool = False,
    target: list[str] | None = None,
    attention: str = "sdpa",
    tokens: Tensor | None = None,
    **text: Any,
) -> Case:
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{kind}Config")
    vision = HF_VISION | ({"num_patches": 4} if kind == "Siglip2" else {})
    config = config(text_config=HF_TEXT | text, vision_config=vision, projection_dim=12)
    config._attn_implementation = attention
    model = outer = getattr(transformers, f"{kind}Model")(config)
    if target:
        peft = pytest.importorskip("peft")
        outer = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=target))
    text_model = model.text_model
    return Case(
        outer,
        lambda tokens: _pooled(model.get_text_features(input_ids=tokens)),
        text_model.embeddings.token_embedding,
        [layer.self_attn for layer in text_model.encoder.layers],
        read,
        causal,
        tokens=captions(pad=39) if tokens is None else tokens,
        tolerance=1e-10 if attention == "sdpa" else 1e-5,  # eager takes the softmax in float32
    )


def _pooled(output: Any) -> Tensor:
    return getattr(output, "pooler_output", output)  # transformers 4 returns the tensor itself


def _blip() -> Case:
    transformers = pytest.importorskip("transformers")
    text = HF_TEXT | {"pad_token_id": 0, "encoder_hidden_size": 16, "projection_dim": 12}
    config = transformers.BlipConfig(
        text_config=text, vision_config=HF_VISION, image_text_hidden_size=12, projection_dim=12
    )
    model = transformers.BlipForImageTextRetrieval(config)
    layers = model.text_encoder.encoder.layer

    def features(tokens: Tensor) -> Tensor:
        states = model.text_encoder(input_ids=tokens, attention_mask=(tokens != 0).long())
        return model.text_proj(states.last_hidden_state[:, 0])

    return Case(
        model,
        features,
        model.text_encoder.embeddings.word_embeddings,
        [layer.attention.self for layer in layers],
        "first",
        padding=0,
    )


FAMILIES: dict[str, Callable[[], Case]] = {
    "CLIP": lambda: _open_clip(clip(), "end"),
    "CLIP, eos": lambda: _open_clip(clip(pool_type="eos", eos_id=5), "end", tokens=captions(end=5)),
    "CLIP, last": lambda: _open_clip(clip(pool_type="last"), "last"),
    "custom text": lambda: _open_clip(custom(ls_init_value=0.3, proj_bias=True), "end"),
    "bidirectional": lambda: _open_clip(custom(no_causal_mask=True), "end", causal=False),
    "bidirectional, first": lambda: _open_clip(
        custom(no_causal_mask=True, pool_type="first"), "first", causal=False
    ),
    "bidirectional, padding": lambda: _open_clip(
        _pad_masked(custom(no_causal_mask=True, pool_type="eos", eos_id=5)),
        "end",
        causal=False,
        padding=0,
        tokens=captions(end=5),
    ),
    "custom blocks": lambda: _open_clip(
        custom(
            qk_norm=True, scale_heads=True, scale_attn_inner=True, scale_attn=True, scale_fc=True
        ),
        "end",
    ),
    "SigLIP of open_clip": _siglip_of_open_clip,
    "CoCa": _coca,
    "roberta": lambda: _with_hugging_face(
        "roberta", "mean_pooler", "mean", pad_token_id=1, **HF_TEXT
    ),
    "bert": lambda: _with_hugging_face("bert", "cls_pooler", "first", pad_token_id=0, **HF_TEXT),
    "bert, last state": lambda: _with_hugging_face(
        "bert", "cls_last_hidden_state_pooler", "first", pad_token_id=0, **HF_TEXT
    ),
    "mt5": lambda: _with_hugging_face(
        "mt5",
        "mean_pooler",
        "mean",
        pad_token_id=0,
        vocab_size=40,
        d_model=16,
        d_kv=8,
        d_ff=24,
        num_heads=2,
        num_layers=2,
    ),
    "m2m_100": lambda: _with_hugging_face(
        "m2m_100",
        "cls_pooler",
        "first",
        pad_token_id=1,
        vocab_size=40,
        d_model=16,
        max_position_embeddings=12,
        encoder_layers=2,
        decoder_layers=1,
        encoder_ffn_dim=24,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
    ),
    "Hugging Face CLIP": lambda: _hugging_face(
        "CLIP", "end", causal=True, eos_token_id=5, tokens=captions(end=5, pad=5)
    ),
    "Hugging Face CLIP, eos 2": lambda: _hugging_face("CLIP", "end", causal=True, eos_token_id=2),
    "Hugging Face CLIP, eager": lambda: _hugging_face(
        "CLIP", "end", causal=True, attention="eager", eos_token_id=2
    ),
    "Hugging Face SigLIP": lambda: _hugging_face("Siglip", "last", projection_size=12),
    "Hugging Face SigLIP 2": lambda: _hugging_face("Siglip2", "last", projection_size=12),
    "BLIP": _blip,
    "LoRA, attention": lambda: _peft(clip, r"transformer.*attn", _open_clip, read="end"),
    "LoRA, MLP": lambda: _peft(clip, r"transformer.*c_(fc|proj)", _open_clip, read="end"),
    "LoRA, embedding": lambda: _peft(clip, ["token_embedding"], _open_clip, read="end"),
    "LoRA, Hugging Face": lambda: _hugging_face(
        "CLIP", "end", causal=True, target=["q_proj", "v_proj"], eos_token_id=2
    ),
}
