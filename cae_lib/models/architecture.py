"""Architectures by name: `clip-mini` and all that open_clip knows."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import open_clip
from open_clip.transformer import QuickGELU
from torch import nn

from cae_lib.errors import ConfigError

open_clip.add_model_config(Path(__file__).parent / "configs")


def activation_of(model: nn.Module) -> str:
    """Activation of a model's transformer blocks: "quickgelu" or "gelu"."""
    quick = any(isinstance(module, QuickGELU) for module in model.modules())
    return "quickgelu" if quick else "gelu"


def model_config(name: str) -> dict[str, Any]:
    """open_clip's configuration of an architecture, as a copy.

    Raises:
        ConfigError: for an unknown name, with the names that are close to it.
    """
    config = open_clip.get_model_config(name)
    if config is None:
        close = difflib.get_close_matches(name, open_clip.list_models(), n=3)
        hint = f" Did you mean {', '.join(close)}?" if close else ""
        raise ConfigError(
            f"unknown model {name!r}: expected 'clip-mini' or a model name of open_clip.{hint}"
        )
    return config


def architecture(name: str) -> dict[str, Any]:
    """The configuration without the activation, which checkpoints state for themselves."""
    config = model_config(name)
    config.pop("quick_gelu", None)
    return config
