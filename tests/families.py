"""Tiny models of each supported family, and their attention written out by hand."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip import transformer
from open_clip.hf_model import HFTextEncoder
from torch import Tensor, nn

from cae_lib.models import blocks

WORDS = torch.tensor([[0, 1, 2, 2, 3, 0, 0, 0], [0, 1, 1, 2, 3, 4, 5, 0]])
ROLES = torch.tensor([[0, 1, 2, 2, 3, 0, 0, 0], [0, 3, 3, 1, 0, 2, 1, 0]])
ENDS = torch.tensor([5, 7])
VISION = {"layers": 1, "width": 16, "head_width": 8, "patch_size": 16, "image_size": 32}
TEXT = {"vocab_size": 40, "context_length": 8, "width": 16, "heads": 2, "layers": 2, "pad_id": 0}
HF_SIZES = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24}
HF_TEXT = HF_SIZES | {"num_hidden_layers": 2, "vocab_size": 40, "max_position_embeddings": 12}
HF_VISION = HF_SIZES | {"num_hidden_layers": 1, "image_size": 32, "patch_size": 16}


class Attention(transformer.Attention):
    """open_clip's own attention, which its blocks contain after 3.3, in a block of 3.3."""

    def __call__(self, x: Tensor, *_: Any, attn_mask: Tensor | None = None, **__: Any) -> tuple:
        """Attend as `nn.MultiheadAttention` is called."""
        return (super().__call__(x, attn_mask=attn_mask),)


blocks.KNOWN_MODULES += (Attention,)


def with_own_attention(model: nn.Module) -> nn.Module:
    """Put a model's weights into open_clip's own attention, in both towers."""
    for block in model.modules():
        if isinstance(block, transformer.ResidualAttentionBlock):
            attention = Attention(block.attn.embed_dim, block.attn.num_heads)
            attention.load_state_dict(block.attn.state_dict())
            block.attn = attention.to(block.ln_1.weight.dtype)
    return model


@dataclass
class Case:
    """A model with two captions, and what is expected of them.

    Attributes:
        model: In float64, with random weights.
        features: From tokens to features, by the model's own code.
        embedding: The layer that turns tokens into embeddings.
        attentions: The attention of each layer.
        pool: Where the tower is read: "end", "first", "last" or "mean".
        causal: Whether a position reads only those before it.
        padding: The token that no position reads; None if all are read.
        tokens: `(2, 8)`.
        tolerance: Of features and scores.
        extra: Number of positions after the captions, of a class token.
    """

    model: nn.Module
    features: Callable[[Tensor], Tensor]
    embedding: nn.Module
    attentions: list[nn.Module]
    pool: str
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
        self.length = self.tokens.shape[1] + self.extra

    @property
    def readout(self) -> Tensor:
        """Weight of each position in the features `(2, T)`."""
        if self.pool == "mean":
            rows = (self.tokens != self.padding).double()
            return rows / rows.sum(1, keepdim=True)
        positions = {"end": ENDS, "first": torch.tensor([0, 0]), "last": torch.tensor([-1, -1])}
        return F.one_hot(positions[self.pool] % self.length, self.length).double()

    @property
    def allowed(self) -> Tensor:
        """Which position may read which `(2, 1, T, T)`."""
        allowed = torch.ones(2, 1, self.length, self.length, dtype=torch.bool)
        if self.causal:
            allowed = allowed.tril()
        if self.padding is not None:
            keys = self.tokens != self.padding
            # CoCa puts the class token after the caption, but its mask has it before.
            keys = torch.cat([torch.ones(2, self.extra, dtype=torch.bool), keys], dim=1)
            allowed = allowed & keys[:, None, None]
        return allowed

    def cosine(self, features: Tensor) -> Tensor:
        """Return S of each caption `(2,)`."""
        return F.cosine_similarity(features, self.images, dim=-1)

    @contextlib.contextmanager
    def with_embeddings(self, embeddings: Tensor) -> Iterator[None]:
        """Put embeddings in the place of the model's."""
        hook = self.embedding.register_forward_hook(lambda *_: embeddings.clone())
        yield
        hook.remove()

    @contextlib.contextmanager
    def by_hand(self) -> Iterator[list[Tensor]]:
        """Write out the attention of each layer, with maps on the path to the features."""
        maps: list[Tensor] = []

        def attend(
            module: nn.Module,
            x: Tensor | None = None,
            *_: Any,
            hidden_states: Tensor | None = None,
            **options: Any,
        ) -> Any:
            q, k, v, out, scale = _projected(module, hidden_states if x is None else x)
            scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * scale
            maps.append(scores.masked_fill(~self.allowed, -1e300).softmax(-1))
            mixed = out(torch.einsum("bhqk,bkhd->bqhd", maps[-1], v).flatten(2))
            return mixed if type(module).__name__ == "Attention" else (mixed, maps[-1])

        for module in self.attentions:
            module.forward = functools.partial(attend, module)
        yield maps
        for module in self.attentions:
            del module.forward


def _projected(module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Callable, float]:
    """Return queries, keys and values `(B, T, H, d)`, the output layer, and the scale of scores."""
    if hasattr(module, "get_delta_weight"):  # peft's MultiheadAttention
        base, last = module.base_layer, module.base_layer.out_proj
        weight = base.in_proj_weight + module.get_delta_weight("default")
        projected, heads = F.linear(x, weight, base.in_proj_bias).chunk(3, -1), base.num_heads
        delta = last.get_delta_weight("default")  # peft merges it twice, once without gradient
        weight = last.base_layer.weight + delta + delta.detach()
        out = functools.partial(F.linear, weight=weight, bias=last.base_layer.bias)
    elif hasattr(module, "in_proj_weight"):
        projected = F.linear(x, module.in_proj_weight, module.in_proj_bias).chunk(3, -1)
        heads, out = module.num_heads, module.out_proj
    elif hasattr(module, "q_proj"):
        projected = [module.q_proj(x), module.k_proj(x), module.v_proj(x)]
        heads, out = module.num_heads, module.out_proj
    else:
        projected = [module.query(x), module.key(x), module.value(x)]
        heads, out = module.num_attention_heads, nn.Identity()
    q, k, v = (part.unflatten(-1, (heads, -1)) for part in projected)
    scale = q.shape[-1] ** -0.5
    if hasattr(module, "ln_q"):
        q, k = module.ln_q(q), module.ln_k(k)
        if module.head_scale is not None:
            v = v * module.head_scale.view(1, 1, -1, 1)
        out = nn.Sequential(module.ln_inner, module.out_proj)
    return q, k, v, out, scale


def captions(start: int = 38, end: int = 39, pad: int = 0) -> Tensor:
    """Return two captions, of four and of six tokens between start and end."""
    first = [start, 11, 12, 13, 14, end, pad, pad]
    return torch.tensor([first, [start, 21, 22, 23, 24, 25, 26, end]])


def clip(**text: Any) -> nn.Module:
    """Build a tiny CLIP of open_clip."""
    return open_clip.CLIP(12, VISION, TEXT | text)


def custom(**text: Any) -> nn.Module:
    """Build a tiny CustomTextCLIP of open_clip."""
    return open_clip.CustomTextCLIP(12, VISION, TEXT | text)


def _pad_masked(model: nn.Module) -> nn.Module:
    model.text.use_pad_mask = True  # no configuration reaches this option of TextTransformer
    return model


def _open_clip(model: nn.Module, pool: str, causal: bool = True, **options: Any) -> Case:
    inner = getattr(model, "base_model", model)  # of peft
    text = getattr(inner, "text", inner)
    attentions = [block.attn for block in text.transformer.resblocks]
    return Case(
        model,
        functools.partial(inner.encode_text, normalize=False),
        text.token_embedding,
        attentions,
        pool,
        causal,
        **options,
    )


def _siglip_of_open_clip() -> Case:
    config = open_clip.get_model_config("ViT-B-16-SigLIP")["text_cfg"]
    return _open_clip(custom(**(config | TEXT)), "last", causal=False)


def _coca() -> Case:
    text = TEXT | {"embed_cls": True, "output_tokens": True}
    decoder = {"width": 16, "heads": 2, "layers": 1, "context_length": 8, "vocab_size": 40}
    model = open_clip.CoCa(12, decoder, text, VISION | {"output_tokens": True})
    return _open_clip(model, "last", padding=0, extra=1)


def _lora(target: str | list[str]) -> Case:
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(clip(), peft.LoraConfig(r=2, target_modules=target))
    return _open_clip(model, "end")


def _with_hugging_face(kind: str, pooler: str, pool: str, pad: int, **config: Any) -> Case:
    transformers = pytest.importorskip("transformers")
    model = custom()
    sizes = config | {"vocab_size": 40, "pad_token_id": pad}
    config = transformers.AutoConfig.for_model(kind, **sizes)
    model.text = HFTextEncoder("", 12, config, pooler_type=pooler, proj_type="mlp")
    tower = model.text.transformer
    attentions = [m for name, m in tower.named_modules() if name.endswith("attention.self")]
    return Case(
        model,
        model.encode_text,
        tower.get_input_embeddings(),
        attentions,
        pool,
        padding=pad,
        tokens=captions(3, 2, pad),
    )


def _hugging_face(
    kind: str,
    pool: str,
    target: list[str] | None = None,
    attention: str = "sdpa",
    tokens: Tensor | None = None,
    **text: Any,
) -> Case:
    transformers = pytest.importorskip("transformers")
    vision = HF_VISION | ({"num_patches": 4} if kind == "Siglip2" else {})
    config = getattr(transformers, f"{kind}Config")
    config = config(text_config=HF_TEXT | text, vision_config=vision, projection_dim=12)
    config._attn_implementation = attention
    model = outer = getattr(transformers, f"{kind}Model")(config)
    if target:
        peft = pytest.importorskip("peft")
        outer = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=target))

    def features(tokens: Tensor) -> Tensor:
        output = model.get_text_features(input_ids=tokens)
        return getattr(output, "pooler_output", output)  # transformers 4 returns the tensor itself

    text_model = model.text_model
    return Case(
        outer,
        features,
        text_model.embeddings.token_embedding,
        [layer.self_attn for layer in text_model.encoder.layers],
        pool,
        kind == "CLIP",
        tokens=captions(pad=39) if tokens is None else tokens,
        tolerance=1e-10 if attention == "sdpa" else 1e-5,
    )  # eager: softmax in float32


SCALED = ("qk_norm", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc")
EOS = {"pool_type": "eos", "eos_id": 5}
MODEL_FAMILIES: dict[str, Callable[[], Case]] = {
    "CLIP": lambda: _open_clip(clip(), "end"),
    "CLIP, eos": lambda: _open_clip(clip(**EOS), "end", tokens=captions(end=5)),
    "CLIP, own attention": lambda: _open_clip(with_own_attention(clip()), "end"),
    "custom text": lambda: _open_clip(custom(ls_init_value=0.3, proj_bias=True), "end"),
    "custom blocks": lambda: _open_clip(custom(**dict.fromkeys(SCALED, True)), "end"),
    "bidirectional": lambda: _open_clip(custom(no_causal_mask=True), "end", causal=False),
    "bidirectional, padding": lambda: _open_clip(
        _pad_masked(custom(no_causal_mask=True, **EOS)),
        "end",
        causal=False,
        padding=0,
        tokens=captions(end=5),
    ),
    "SigLIP of open_clip": _siglip_of_open_clip,
    "CoCa": _coca,
    "roberta": lambda: _with_hugging_face("roberta", "mean_pooler", "mean", 1, **HF_TEXT),
    "bert": lambda: _with_hugging_face("bert", "cls_pooler", "first", 0, **HF_TEXT),
    "Hugging Face CLIP": lambda: _hugging_face(
        "CLIP", "end", eos_token_id=5, tokens=captions(end=5, pad=5)
    ),
    "Hugging Face CLIP, eos 2": lambda: _hugging_face("CLIP", "end", eos_token_id=2),
    "Hugging Face CLIP, eager": lambda: _hugging_face(
        "CLIP", "end", attention="eager", eos_token_id=2
    ),
    "Hugging Face SigLIP": lambda: _hugging_face("Siglip", "last", projection_size=12),
    "Hugging Face SigLIP 2": lambda: _hugging_face("Siglip2", "last", projection_size=12),
    "LoRA, attention": lambda: _lora(r"transformer.*attn"),
    "LoRA, MLP": lambda: _lora(r"transformer.*c_(fc|proj)"),
    "LoRA, embedding": lambda: _lora(["token_embedding"]),
    "LoRA, Hugging Face": lambda: _hugging_face(
        "CLIP", "end", target=["q_proj", "v_proj"], eos_token_id=2
    ),
}
