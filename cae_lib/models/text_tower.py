"""Which text towers can be trimmed exactly, and where a model keeps the parts of its own."""

from __future__ import annotations

from dataclasses import dataclass

from open_clip import CLIP, CustomTextCLIP
from open_clip.transformer import ResidualAttentionBlock, TextTransformer
from torch import Tensor, nn

from cae_lib.errors import ConfigError


@dataclass(frozen=True)
class TextTower:
    """The parts of a text tower, wherever the model keeps them."""

    token_embedding: nn.Embedding
    positional_embedding: Tensor
    transformer: nn.Module
    ln_final: nn.Module
    text_projection: nn.Module | Tensor | None
    pool_type: str
    eos_id: int

    def eot(self, tokens: Tensor) -> Tensor:
        """Position `(B,)` of the end-of-text token in tokens `(B, T)`."""
        if self.pool_type == "argmax":
            return tokens.argmax(dim=-1)
        return (tokens == self.eos_id).int().argmax(dim=-1)

    def project(self, pooled: Tensor) -> Tensor:
        """Map the state at EOT `(B, D)` to features `(B, E)`."""
        pooled = self.ln_final(pooled)
        if self.text_projection is None:
            return pooled
        if isinstance(self.text_projection, nn.Module):
            return self.text_projection(pooled)
        return pooled @ self.text_projection


def text_tower(model: nn.Module) -> TextTower:
    """Find the text tower of a `CLIP` or `CustomTextCLIP`; check that it is causal and read at EOT.

    Raises:
        ConfigError: when leaving out positions would not be exact for this tower.
    """
    if isinstance(model, CLIP):
        parts, pool, eos = model, model.text_pool_type, model.text_eos_id
    elif isinstance(model, CustomTextCLIP) and isinstance(model.text, TextTransformer):
        parts, pool, eos = model.text, model.text.pool_type, model.text.eos_id
    else:
        raise _not_a_clip(model)
    if getattr(parts, "cls_emb", None) is not None:
        raise _unsupported(model, "it reads an appended class token, not the end-of-text token")
    if parts.attn_mask is None:
        raise _unsupported(model, "it has no causal mask, so later tokens change earlier ones")
    if pool not in ("argmax", "eos"):
        raise _unsupported(model, f"it pools by {pool!r}, not at the end-of-text token")
    if not all(isinstance(b, ResidualAttentionBlock) for b in parts.transformer.resblocks):
        raise _unsupported(model, "its blocks are not open_clip's ResidualAttentionBlock")
    return TextTower(
        token_embedding=parts.token_embedding,
        positional_embedding=parts.positional_embedding,
        transformer=parts.transformer,
        ln_final=parts.ln_final,
        text_projection=parts.text_projection,
        pool_type=pool,
        eos_id=eos,
    )


def _not_a_clip(model: nn.Module) -> ConfigError:
    """The error for a wrapper, another model, or a CLIP whose text tower is of another library."""
    for attribute, wrapper in (("_orig_mod", "torch.compile"), ("module", "DataParallel")):
        inner = getattr(model, attribute, None)
        if isinstance(inner, (CLIP, CustomTextCLIP)):
            return ConfigError(
                f"{type(model).__name__} wraps the model ({wrapper}): pass model.{attribute}, "
                "which shares its parameters."
            )
    if isinstance(model, CustomTextCLIP):
        text = type(model.text).__name__
        return _unsupported(model, f"it is a {text}, not open_clip's TextTransformer")
    return _unsupported(model, "the model is no CLIP or CustomTextCLIP of open_clip")


def _unsupported(model: nn.Module, reason: str) -> ConfigError:
    return ConfigError(
        f"the text tower of {type(model).__name__} is not supported: {reason}. Use a model with a "
        "causal text tower read at its end-of-text token, such as ViT-B-32."
    )
