"""CLIP models by name. OpenAI's weights need QuickGELU, but open_clip builds GELU unless told. Both
run, and scores differ by several points: so the activation travels with the weights."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor, nn

from cae_lib.errors import CheckpointError, ConfigError
from cae_lib.models.checkpoint import file_digest, read_meta
from cae_lib.models.weight_files import read_state_dict

ACTIVATIONS = ("quickgelu", "gelu")
WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
_CONFIGS = Path(__file__).parent / "configs"
OWN_MODELS = tuple(sorted(path.stem for path in _CONFIGS.glob("*.json")))
open_clip.add_model_config(_CONFIGS)


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

    ConfigError for an unknown model or activation; CheckpointError for weights that are missing,
    broken, of another architecture, or trained with another activation.

    Args:
        name: one of `OWN_MODELS` or an open_clip model name.
        weights: None for random ones from `seed`, a checkpoint of `save_checkpoint`, an open_clip
            tag, or a plain state dict (`.pt`, `.safetensors`), which needs `activation`.
        activation: "quickgelu", "gelu", or None for the one the weights were trained with (without
            weights: the one in the model's configuration).
        allow_activation_mismatch: run weights with the other activation on purpose.
    """
    config = model_config(name)
    path = _weights_path(name, weights)
    trained_with = _trained_activation(name, config, weights, path)
    if (chosen := activation or trained_with) is None:
        raise ConfigError(
            f"{path} does not say which activation it was trained with: pass "
            "activation='quickgelu' (OpenAI's weights and their descendants) or 'gelu'."
        )
    if weights and trained_with not in (None, chosen) and not allow_activation_mismatch:
        raise CheckpointError(
            f"{weights} was trained with {trained_with}, but activation={chosen!r} was asked for. "
            "Leave activation out, or pass allow_activation_mismatch=True if you mean it."
        )
    if path is not None:
        return filled(name, read_state_dict(path), path, chosen, device)
    tag = str(weights) if weights else None
    model, preprocess = _build(name, chosen, tag, seed)
    return Clip(
        model.eval().to(device),
        preprocess,
        open_clip.get_tokenizer(name),
        name,
        chosen,
        side(model.visual.image_size),
        tag or f"random-{seed}",
    )


def filled(
    name: str,
    state: dict[str, Tensor],
    path: Path,
    activation: str,
    device: str | torch.device = "cpu",
) -> Clip:
    """A model with the weights of a file, each of which has its place, else a CheckpointError.
    Texts are as long as the file has positions for."""
    positions = len(state.get("positional_embedding", ()))
    whole = model_config(name)["text_cfg"].get("context_length", 77)
    context = positions if positions not in (0, whole) else None
    model, preprocess = _build(name, activation, None, 0, context)
    own = model.state_dict()
    state = {
        key: value.reshape(own[key].shape) if key in own and value.numel() == 1 else value
        for key, value in state.items()
    }  # a number is stored as () or (1,)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        first = " ".join(line.strip() for line in str(error).splitlines()[1:3])
        wrong = f"{path} does not fit {name}: {first[:300]} Check the architecture."
        raise CheckpointError(wrong) from error
    tokenizer = open_clip.get_tokenizer(name, context_length=context)
    return Clip(
        model.eval().to(device),
        preprocess,
        tokenizer,
        name,
        activation,
        side(model.visual.image_size),
        file_digest(path),
    )


def side(size: int | tuple[int, int]) -> int:
    """The height of a picture from open_clip's `image_size`."""
    return size if isinstance(size, int) else size[0]


def model_config(name: str) -> dict[str, Any]:
    """open_clip's configuration of an architecture, as a copy; ConfigError for an unknown name."""
    config = open_clip.get_model_config(name)
    if config is None:
        close = difflib.get_close_matches(name, open_clip.list_models(), n=3)
        hint = f" Did you mean {', '.join(close)}?" if close else ""
        raise ConfigError(
            f"unknown model {name!r}: expected one of {', '.join(OWN_MODELS)} or a model name of "
            f"open_clip.{hint}"
        )
    return config


def _weights_path(name: str, weights: str | Path | None) -> Path | None:
    """The file meant by `weights`; None for no weights and for a tag."""
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
    """What the weights were trained with; None when a plain state dict does not tell."""
    if path is None:
        quick = config.get("quick_gelu", False)
        if weights is not None:
            quick = open_clip.get_pretrained_cfg(name, str(weights)).get("quick_gelu", quick)
        return "quickgelu" if quick else "gelu"
    meta = read_meta(path)
    if meta is None:
        return None
    same = {"quick_gelu": None}  # the activation is the checkpoint's own
    if model_config(meta.model) | same != config | same:
        raise CheckpointError(f"{path} holds {meta.model}, not {name}: pass name={meta.model!r}.")
    return meta.activation


def _build(
    name: str, activation: str, tag: str | None, seed: int, context: int | None = None
) -> tuple[nn.Module, Any]:
    """Model and preprocessing; the caller's random generator is left as it was."""
    if activation not in ACTIVATIONS:
        raise ConfigError(f"unknown activation {activation!r}: expected one of {ACTIVATIONS}.")
    quick = activation == "quickgelu"
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)  # open_clip warns of random weights, which are meant here
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model, _, preprocess = open_clip.create_model_and_transforms(
                name,
                pretrained=tag,
                force_quick_gelu=quick,
                quick_gelu=quick,
                pretrained_text=False,
                force_context_length=context,
            )
            if name == "clip-mini":  # learns where things are only if positions differ at first
                nn.init.normal_(model.visual.positional_embedding, std=0.5)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(
            f"cannot get the weights {tag!r} of {name}: {error}. Without a network, download them "
            "elsewhere and pass their path."
        ) from error
    finally:
        logging.disable(disabled)
    return model, preprocess
