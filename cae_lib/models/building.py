"""Models of an architecture, with random weights or open_clip's, and filled from a file."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import nn

from cae_lib.errors import CheckpointError
from cae_lib.models.weight_files import read_state_dict


def build(name: str, activation: str, tag: str | None, seed: int) -> tuple[nn.Module, Any]:
    """Model and preprocessing; the random generator of the caller is left as it was.

    Args:
        name: open_clip model name.
        activation: "quickgelu" or "gelu".
        tag: of open_clip's weights; None for random ones.
        seed: of random weights.

    Raises:
        CheckpointError: open_clip cannot get the weights.
    """
    quick = activation == "quickgelu"
    overrides = {} if quick else {"quick_gelu": False}
    with torch.random.fork_rng(devices=[]), _quiet():
        torch.manual_seed(seed)
        try:
            model, _, preprocess = open_clip.create_model_and_transforms(
                name, pretrained=tag, force_quick_gelu=quick, pretrained_text=False, **overrides
            )
        except (OSError, RuntimeError) as error:
            raise CheckpointError(
                f"cannot get the weights {tag!r} of {name}: {error}. Without a network, download "
                "them elsewhere and pass their path."
            ) from error
        if name == "clip-mini":
            init_clip_mini(model)
    return model, preprocess


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep open_clip from warning about random weights, which are meant here."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def fill(model: nn.Module, path: Path, name: str) -> None:
    """Load the weights of a file into a model of architecture `name`.

    Raises:
        CheckpointError: the file cannot be read, or is of another architecture.
    """
    state = read_state_dict(path)
    if "logit_scale" in state and state["logit_scale"].numel() == 1:  # stored as () or (1,)
        state["logit_scale"] = state["logit_scale"].reshape(model.logit_scale.shape)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).splitlines()[1:3]
        raise CheckpointError(
            f"{path} does not fit {name}: {' '.join(line.strip() for line in first)} "
            "Check the model name."
        ) from error


def image_size_of(model: nn.Module) -> int:
    """Height and width of a model's input in pixels."""
    size = model.visual.image_size
    return int(size[0] if isinstance(size, (tuple, list)) else size)


def init_clip_mini(model: nn.Module, vision_position_std: float = 0.5) -> None:
    """Redraw the image position embedding of a fresh clip-mini with a larger spread.

    Args:
        model: the model, changed in place.
        vision_position_std: standard deviation; open_clip's is width ** -0.5 = 0.09. A small
            model learns where things are only if positions differ from the start.
    """
    nn.init.normal_(model.visual.positional_embedding, std=vision_position_std)
