"""Load CLIP models by name.

OpenAI's weights need QuickGELU, but open_clip builds models with GELU by default. With the wrong
activation a model runs without an error, but its scores differ by several points. Checkpoints
therefore store the activation.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor, nn

from cae_lib.errors import CheckpointError, ConfigError
from cae_lib.models.checkpoint import checkpoint_digest, read_meta, require_finite
from cae_lib.models.weight_files import read_state_dict

ACTIVATIONS = ("quickgelu", "gelu")
WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
_CONFIGS = Path(__file__).parent / "configs"
BUNDLED_ARCHITECTURES = tuple(sorted(path.stem for path in _CONFIGS.glob("*.json")))
"""Names of the architectures that this module adds to those of open_clip."""
open_clip.add_model_config(_CONFIGS)


@dataclass
class Clip:
    """A CLIP model with its preprocessing and tokenizer.

    Attributes:
        model: A model of open_clip, in float32, or of transformers, in the dtype that transformers
            chooses. It is in eval mode.
        preprocess: PIL image -> `(3, H, W)` float tensor, normalised.
        tokenizer: List of n strings -> `(n, context_length)` long.
        name: Name of the open_clip model; for a folder or hub repository, its name without the
            owner.
        activation: "quickgelu" or "gelu"; for a model of transformers, "gelu" stands for any other
            activation than QuickGELU.
        image_size: Height of the input in pixels; most models take square images.
        weights_id: Where the weights come from: the SHA-256 of a weight file, an open_clip tag, the
            `state_digest` of a folder or hub repository, or "random-<seed>" for random weights. The
            hash of a file does not cover what `load_external` changes in its weights.
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
    """Build a CLIP model and load its weights.

    Args:
        name: One of `BUNDLED_ARCHITECTURES` or the name of an open_clip model.
        weights: An open_clip tag, whose weights are downloaded if they are not cached; a checkpoint
            of `save_checkpoint`; or another file that `read_state_dict` reads. For a file that is
            not such a checkpoint, the argument `activation` is needed too. None for random weights.
        activation: "quickgelu", "gelu" or None. None means the activation that the weights were
            trained with or, if no weights are given, the activation in the model's configuration.
        device: Device to put the model on.
        seed: Seed of random weights.
        allow_activation_mismatch: Accept an `activation` that the weights were not trained with.

    Raises:
        ConfigError: The model or the activation is unknown.
        CheckpointError: The weights are missing, damaged, not finite, of another architecture, or
            trained with another activation, or they cannot be downloaded.
    """
    config = model_config(name)
    path = _weights_path(name, weights)
    trained_with = _trained_activation(name, config, weights, path)
    activation = activation or trained_with
    if activation is None:
        raise ConfigError(
            f"{path} does not say which activation it was trained with: pass "
            "activation='quickgelu' (OpenAI's weights and their descendants) or 'gelu'."
        )
    if weights and trained_with not in (None, activation) and not allow_activation_mismatch:
        raise CheckpointError(
            f"{weights} was trained with {trained_with}, but activation={activation!r} was asked "
            "for. Leave activation out, or pass allow_activation_mismatch=True if you mean it."
        )
    if path is not None:
        return build_with_state_dict(name, read_state_dict(path), path, activation, device)
    tag = str(weights) if weights else None
    model, preprocess = _build(name, activation, tag, seed)
    if tag:
        require_finite(model.state_dict(), f"{name}:{tag}")
    return Clip(
        model.eval().to(device),
        preprocess,
        _tokenizer_of(name),
        name,
        activation,
        image_height(model),
        tag or f"random-{seed}",
    )


def build_with_state_dict(
    name: str,
    state: dict[str, Tensor],
    path: Path,
    activation: str,
    device: str | torch.device = "cpu",
) -> Clip:
    """Build a model and load a state dict that was read from a file.

    The context length is the length of the tensor `positional_embedding`, if `state` has one.

    Args:
        name: Name of an open_clip model.
        state: Tensors by open_clip's names.
        path: The file, for its digest and for error messages.
        activation: "quickgelu" or "gelu".
        device: Device to put the model on.

    Raises:
        ConfigError: The model or the activation is unknown.
        CheckpointError: The weights do not fit the model.
    """
    positions = len(state.get("positional_embedding", ()))
    default = model_config(name)["text_cfg"].get("context_length", 77)
    context = positions if positions not in (0, default) else None
    model, preprocess = _build(name, activation, None, 0, context)
    initial = model.state_dict()
    state = {
        key: value.reshape(initial[key].shape) if key in initial and value.numel() == 1 else value
        for key, value in state.items()
    }  # a number is stored as () or (1,)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(line.strip() for line in str(error).splitlines()[1:3])
        raise CheckpointError(
            f"{path} does not fit {name}: {reason[:300]} Check the architecture."
        ) from error
    return Clip(
        model.eval().to(device),
        preprocess,
        _tokenizer_of(name, context),
        name,
        activation,
        image_height(model),
        checkpoint_digest(path),
    )


@cache
def _tokenizer_of(name: str, context_length: int | None = None) -> Any:
    """Return open_clip's tokenizer of an architecture; the result is cached.

    Args:
        name: Name of the architecture.
        context_length: Number of tokens that texts are padded or cut to; None for the context
            length of the architecture.
    """
    return open_clip.get_tokenizer(name, context_length=context_length)


def image_height(model: Any) -> int:
    """Return the height in pixels of the images that an open_clip model takes."""
    size = model.visual.image_size
    return size if isinstance(size, int) else size[0]


def model_config(name: str) -> dict[str, Any]:
    """Return a copy of open_clip's configuration of an architecture.

    Raises:
        ConfigError: The name is unknown.
    """
    config = open_clip.get_model_config(name)
    if config is None:
        close = difflib.get_close_matches(name, open_clip.list_models(), n=3)
        hint = f" Did you mean {', '.join(close)}?" if close else ""
        raise ConfigError(
            f"unknown model {name!r}: expected one of {', '.join(BUNDLED_ARCHITECTURES)} or a "
            f"model name of open_clip.{hint}"
        )
    return config


def _weights_path(name: str, weights: str | Path | None) -> Path | None:
    """Return the path if `weights` is a file; None for no weights and for a tag.

    A name with one of the `WEIGHT_SUFFIXES` counts as a file even if there is no such file.

    Raises:
        CheckpointError: `weights` is neither a tag of the model nor a file.
    """
    tags = open_clip.list_pretrained_tags_by_model(name)
    if weights is None or str(weights) in tags:
        return None
    if Path(weights).suffix in WEIGHT_SUFFIXES or Path(weights).exists():
        return Path(weights)
    raise CheckpointError(
        f"{weights} is neither a file nor a tag of {name}. Known tags: {', '.join(tags) or 'none'}."
        f" Weight files end in {', '.join(WEIGHT_SUFFIXES)}."
    )


def _trained_activation(
    name: str, config: dict[str, Any], weights: str | Path | None, path: Path | None
) -> str | None:
    """Return the activation that the weights were trained with.

    Without weights, this is the activation in the configuration. For a file without metadata, which
    does not say its activation, it is None.

    Raises:
        CheckpointError: The file is missing, or its metadata are damaged or name another model.
    """
    if path is None:
        quick = config.get("quick_gelu", False)
        if weights is not None:
            quick = open_clip.get_pretrained_cfg(name, str(weights)).get("quick_gelu", quick)
        return "quickgelu" if quick else "gelu"
    meta = read_meta(path)
    if meta is None:
        return None
    any_activation = {"quick_gelu": None}  # the activation is the checkpoint's own
    if model_config(meta.model) | any_activation != config | any_activation:
        raise CheckpointError(f"{path} holds {meta.model}, not {name}: pass name={meta.model!r}.")
    return meta.activation


def _build(
    name: str, activation: str, tag: str | None, seed: int, context: int | None = None
) -> tuple[Any, Any]:
    """Build a model and its preprocessing; the caller's CPU random generator stays untouched.

    Args:
        name: Name of an open_clip model.
        activation: "quickgelu" or "gelu".
        tag: Tag of the weights; None for random weights.
        seed: Seed of random weights.
        context: Context length of the text tower; None for that of the architecture.

    Raises:
        ConfigError: The activation is unknown.
        CheckpointError: The weights of the tag cannot be downloaded or read.
    """
    if activation not in ACTIVATIONS:
        raise ConfigError(f"unknown activation {activation!r}: expected one of {ACTIVATIONS}.")
    quick = activation == "quickgelu"
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)  # open_clip warns of random weights, which are meant here
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # `manual_seed` would seed GPUs as well
            model, _, preprocess = open_clip.create_model_and_transforms(
                name,
                pretrained=tag,
                force_quick_gelu=quick,
                quick_gelu=quick,
                pretrained_text=False,
                force_context_length=context,
            )
            if name == "clip-mini":  # learns where things are only if positions differ at first
                visual: Any = model.visual
                nn.init.normal_(visual.positional_embedding, std=0.5)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(
            f"cannot get the weights {tag!r} of {name}: {error}. Without a network, download them "
            "elsewhere and pass their path."
        ) from error
    finally:
        logging.disable(disabled)
    return model, preprocess
