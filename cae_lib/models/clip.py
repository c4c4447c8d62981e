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
    # Random weights were trained with no activation; their configuration only proposes one.
    if weights and trained_with not in (None, activation) and not allow_activation_mismatch:
        raise CheckpointError(
            f"{weights} was trained with {trained_with}, but activation={activation!r} was asked "
            "for. Leave activation out, or pass allow_activation_mismatch=True if you mean it."
        )
    if path is not None:
        return build_with_state_dict(name, read_state_dict(path), path, activation, device)
    tag = str(weights) if weights else None
    model, preprocess = _build(name, activation, tag, seed)
    # The weights of a file are checked where they are read.
    if tag:
        require_finite(model.state_dict(), f"{name}:{tag}")
    return Clip(
        model.eval().to(device),
        preprocess,
        _tokenizer_of(name, None),
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
    """Build a model and load a state dict that was read from the file `path`."""
    # Some published models have fewer positions than their architecture; 0 if there are none here.
    positions = len(state.get("positional_embedding", ()))
    default = model_config(name)["text_cfg"].get("context_length", 77)
    context = positions if positions not in (0, default) else None
    model, preprocess = _build(name, activation, None, 0, context)
    initial = model.state_dict()
    # Published files store a number such as logit_scale as () or as (1,).
    state = {
        key: value.reshape(initial[key].shape) if key in initial and value.numel() == 1 else value
        for key, value in state.items()
    }
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        # The first line of torch's message names only the class of the model.
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
def _tokenizer_of(name: str, context_length: int | None) -> Any:
    """Load open_clip's tokenizer of an architecture; None stands for its own context length."""
    return open_clip.get_tokenizer(name, context_length=context_length)


def image_height(model: Any) -> int:
    """Return the height in pixels of the images that an open_clip model takes."""
    size = model.visual.image_size
    return size if isinstance(size, int) else size[0]


def model_config(name: str) -> dict[str, Any]:
    """Return a copy of open_clip's configuration of an architecture."""
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
    """Return the path if `weights` is a file; None for no weights and for a tag."""
    tags = open_clip.list_pretrained_tags_by_model(name)
    if weights is None or str(weights) in tags:
        return None
    # The path of a missing file counts, so that the error is about the file and not about tags.
    if Path(weights).suffix in WEIGHT_SUFFIXES or Path(weights).exists():
        return Path(weights)
    raise CheckpointError(
        f"{weights} is neither a file nor a tag of {name}. Known tags: {', '.join(tags) or 'none'}."
        f" Weight files end in {', '.join(WEIGHT_SUFFIXES)}."
    )


def _trained_activation(
    name: str, config: dict[str, Any], weights: str | Path | None, path: Path | None
) -> str | None:
    """Return the activation that the weights were trained with; None if a file does not say it."""
    if path is None:
        quick = config.get("quick_gelu", False)
        if weights is not None:
            # A trap: the configuration of ViT-B-32 says GELU, and its tag "openai" QuickGELU.
            quick = open_clip.get_pretrained_cfg(name, str(weights)).get("quick_gelu", quick)
        return "quickgelu" if quick else "gelu"
    meta = read_meta(path)
    if meta is None:
        return None
    # Configurations and not names are compared: ViT-B-32 and ViT-B-32-quickgelu differ only in the
    # activation, which the checkpoint itself states.
    any_activation = {"quick_gelu": None}
    if model_config(meta.model) | any_activation != config | any_activation:
        raise CheckpointError(f"{path} holds {meta.model}, not {name}: pass name={meta.model!r}.")
    return meta.activation


def _build(
    name: str, activation: str, tag: str | None, seed: int, context: int | None = None
) -> tuple[Any, Any]:
    """Build a model and its preprocessing; the caller's CPU random generator stays untouched."""
    if activation not in ACTIVATIONS:
        raise ConfigError(f"unknown activation {activation!r}: expected one of {ACTIVATIONS}.")
    quick = activation == "quickgelu"
    disabled = logging.root.manager.disable
    # open_clip warns of random weights, which are meant here.
    logging.disable(logging.WARNING)
    try:
        with torch.random.fork_rng(devices=[]):
            # `torch.manual_seed` would seed the generators of GPUs as well.
            torch.default_generator.manual_seed(seed)
            model, _, preprocess = open_clip.create_model_and_transforms(
                name,
                pretrained=tag,
                # The first can only switch QuickGELU on, and is what open_clip compares with the
                # tag; the second overrides the configuration, and can also switch it off.
                force_quick_gelu=quick,
                quick_gelu=quick,
                # A text tower of Hugging Face would otherwise be downloaded with its weights.
                pretrained_text=False,
                force_context_length=context,
            )
            # A model this small learns where things are only if positions differ at first.
            # open_clip's standard deviation is 128 ** -0.5 = 0.09.
            if name == "clip-mini":
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
