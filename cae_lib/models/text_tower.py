"""Where an open_clip model keeps the parts of its text tower."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from open_clip import CLIP, CustomTextCLIP
from open_clip.transformer import ResidualAttentionBlock, TextTransformer
from torch import Tensor, nn

from cae_lib.errors import ConfigError
from cae_lib.models.exactness import alteration


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
    """The parts of the text tower of an open_clip model.

    Raises:
        ConfigError: when the text tower is not open_clip's own.
    """
    text = getattr(model, "text", model)
    if not isinstance(model, CLIP) and not isinstance(text, TextTransformer):
        raise ConfigError(
            f"{type(model).__name__} has no text tower of open_clip's own: expected a CLIP or a "
            "CustomTextCLIP with a TextTransformer."
        )
    prefix = "text_" if isinstance(model, CLIP) else ""
    return TextTower(
        token_embedding=text.token_embedding,
        positional_embedding=text.positional_embedding,
        transformer=text.transformer,
        ln_final=text.ln_final,
        text_projection=text.text_projection,
        pool_type=getattr(text, f"{prefix}pool_type"),
        eos_id=getattr(text, f"{prefix}eos_id"),
    )


def why_not_packed(model: nn.Module) -> str | None:
    """Why leaving out padding would not be exact for a model, in words; None where it is."""
    if type(model) not in (CLIP, CustomTextCLIP):
        return f"the model is a {type(model).__name__}"
    if "encode_text" in vars(model):
        return "its encode_text was replaced"
    text = getattr(model, "text", model)
    if type(model) is CustomTextCLIP and type(text) is not TextTransformer:
        return f"its text tower is a {type(text).__name__}"
    if getattr(text, "cls_emb", None) is not None:
        return "it reads an appended class token"
    if not _is_causal(text.attn_mask):
        return "it is not causal"
    tower = text_tower(model)
    if tower.pool_type not in ("argmax", "eos"):
        return f"it is read at its {tower.pool_type} token"
    if not all(type(block) is ResidualAttentionBlock for block in tower.transformer.resblocks):
        return "its blocks are not the plain ones"
    if text is not model:
        return alteration([text])
    read = ("token_embedding", "positional_embedding", "transformer", "ln_final", "text_projection")
    return alteration(getattr(model, name) for name in read)


def _is_causal(mask: Tensor | None) -> bool:
    return mask is not None and torch.equal(mask, torch.full_like(mask, -torch.inf).triu(1))
