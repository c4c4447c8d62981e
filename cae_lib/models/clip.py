"""CLIP models by name, `clip-mini` and all that open_clip knows, with the activation explicit.

OpenAI's weights need QuickGELU, and open_clip builds plain GELU unless told otherwise. Both run,
and the scores differ by several points; so here the activation travels with the weights and a
mismatch is an error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor, nn

from cae_lib.errors import CheckpointError, ConfigError
from cae_lib.models.architecture import architecture, model_config
from cae_lib.models.building import build, fill, image_size_of
from cae_lib.models.checkpoint import file_digest, read_meta

ACTIVATIONS = ("quickgelu", "gelu")
WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")


@dataclass
class Clip:
    """A CLIP model with everything needed to feed it.

    Attributes:
        model: open_clip `CLIP` or `CustomTextCLIP`, in float32 and in eval mode.
        preprocess: PIL image -> `(3, H, W)` float tensor, normalised.
        tokenizer: list of n strings -> `(n, context_length)` long.
        name: open_clip model name.
        activation: "quickgelu" or "gelu".
        image_size: height and width of the input in pixels.
        weights_id: SHA-256 of the weight file, open_clip tag, or "random-<seed>".
    """

    model: nn.Module
    preprocess: Callable[[Any], Tensor]
    tokenizer: Callable[[list[str]], Tensor]
    name: str
    activation: str
    image_size: int
    weights_id: str


def load_clip(
    name: str = "clip-mini",
    weights: str | Path | None = None,
    activation: str | None = None,
    device: str | torch.device = "cpu",
    seed: int = 0,
    *,
    allow_activation_mismatch: bool = False,
) -> Clip:
    """Build a CLIP model and fill it with weights.

    Args:
        name: "clip-mini" or an open_clip model name.
        weights: None for random ones, a checkpoint of `save_checkpoint`, a plain state dict
            (`.pt`, `.safetensors`; `activation` must then be given), or an open_clip tag.
        activation: "quickgelu", "gelu", or None for the one the weights were trained with
            (without weights: the one in the model's configuration).
        device: where the model is put.
        seed: of random weights.
        allow_activation_mismatch: run weights with the other activation on purpose.

    Raises:
        ConfigError: for an unknown model or activation, or a plain state dict without activation.
        CheckpointError: for weights that are missing, broken, of another architecture, or
            trained with another activation.
    """
    config = model_config(name)
    if activation is not None and activation not in ACTIVATIONS:
        raise ConfigError(f"unknown activation {activation!r}: expected one of {ACTIVATIONS}.")
    path = _weights_path(name, weights)
    trained_with = _trained_activation(name, config, weights, path)
    if trained_with is None and activation is None:
        raise ConfigError(
            f"{path} does not say which activation it was trained with: pass "
            "activation='quickgelu' (OpenAI's weights and their descendants) or 'gelu'."
        )
    chosen = activation or trained_with
    if trained_with not in (None, chosen) and weights and not allow_activation_mismatch:
        raise CheckpointError(
            f"{weights} was trained with {trained_with}, but activation={chosen!r} was asked for. "
            "Leave activation out, or pass allow_activation_mismatch=True if you mean it."
        )
    tag = str(weights) if weights and path is None else None
    model, preprocess = build(name, chosen, tag, seed)
    if path is not None:
        fill(model, path, name)
    return Clip(
        model=model.eval().to(device),
        preprocess=preprocess,
        tokenizer=open_clip.get_tokenizer(name),
        name=name,
        activation=chosen,
        image_size=image_size_of(model),
        weights_id=file_digest(path) if path else tag or f"random-{seed}",
    )


def _weights_path(name: str, weights: str | Path | None) -> Path | None:
    """The file meant by `weights`; None for no weights and for a tag."""
    if weights is None:
        return None
    if str(weights) in open_clip.list_pretrained_tags_by_model(name):
        return None
    if Path(weights).suffix in WEIGHT_SUFFIXES or Path(weights).exists():
        return Path(weights)
    tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none"
    raise CheckpointError(
        f"{weights} is neither a file nor a tag of {name}. Known tags: {tags}. Weight files end "
        f"in {', '.join(WEIGHT_SUFFIXES)}."
    )


def _trained_activation(
    name: str, config: dict[str, Any], weights: str | Path | None, path: Path | None
) -> str | None:
    """What the weights were trained with; None when a plain state dict does not tell."""
    if path is None:
        quick = config.get("quick_gelu", False)
        if weights is not None:
            quick = open_clip.get_pretrained_cfg(name, str(weights)).get("quick_gelu", quick)
        return "quickgelu" if quick else "gelu"
    meta = read_meta(path)
    if meta is None:
        return None
    if architecture(meta.model) != architecture(name):
        raise CheckpointError(
            f"{path} holds a {meta.model}, not a {name}: pass name={meta.model!r}."
        )
    return meta.activation
