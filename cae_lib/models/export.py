"""Models in the layout that open_clip and the Hugging Face hub read: weights, configuration, card.

The weights are a plain state dict under open_clip's names, so `pretrained=PATH` takes them. The
configuration states the activation, so that nobody who loads the folder can get the other one.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import nn

from cae_lib.errors import CheckpointError, ConfigError
from cae_lib.models.architecture import model_config
from cae_lib.models.checkpoint import CheckpointMeta, save_checkpoint
from cae_lib.models.clip import Clip
from cae_lib.runtime import write_atomic

FILES = {"safetensors": "open_clip_model.safetensors", "pt": "open_clip_model.pt"}
CONFIG = "open_clip_config.json"
CARD = "README.md"
SUFFIX = "-quickgelu"


def export_clip(clip: Clip, folder: str | Path, meta: CheckpointMeta, card: str,
                form: str = "safetensors") -> Path:
    """Write a model's weights, its open_clip configuration and its card into a folder.

    Args:
        clip: the model; its weights are written in the type they have.
        folder: made if it is missing; files of the same names are replaced.
        meta: what the header of a `.safetensors` file says, which open_clip does not read.
        card: the model card in Markdown.
        form: a key of `FILES`.

    Returns:
        The weight file.

    Raises:
        ConfigError: for an unknown form.
        CheckpointError: when the folder cannot be written.
    """
    if form not in FILES:
        raise ConfigError(f"unknown format {form!r}: expected {' or '.join(FILES)}.")
    path = Path(folder) / FILES[form]
    if form == "safetensors":
        save_checkpoint(path, clip, meta)
    else:
        _save_pickle(clip.model, path)
    path.chmod(0o644)
    content = json.dumps(open_clip_config(clip), indent=2, sort_keys=True)
    write_atomic(path.with_name(CONFIG), content + "\n")
    write_atomic(path.with_name(CARD), card)
    return path


def open_clip_config(clip: Clip) -> dict[str, Any]:
    """What open_clip needs to build the model without knowing its name; `quick_gelu` is explicit.

    Read by `create_model_and_transforms("hf-hub:OWNER/NAME")` and `("local-dir:FOLDER")`.
    """
    preprocess = dict(open_clip.get_model_preprocess_cfg(clip.model))
    preprocess.pop("size", None)  # given by the architecture
    return {
        "model_cfg": model_config(clip.name) | {"quick_gelu": clip.activation == "quickgelu"},
        "preprocess_cfg": preprocess,
    }


def open_clip_name(name: str, activation: str) -> str | None:
    """The name under which open_clip builds this architecture with this activation.

    None where no name of open_clip's own does, as for clip-mini: its folder has to be loaded.
    """
    own = set(open_clip.list_models()) - {"clip-mini"}
    stem = name.removesuffix(SUFFIX)
    for candidate in (name, stem, stem + SUFFIX):
        config = model_config(candidate) if candidate in own else None
        if config and config.get("quick_gelu", False) == (activation == "quickgelu"):
            return candidate
    return None


def _save_pickle(model: nn.Module, path: Path) -> None:
    """Write the state dict alone, whole or not at all."""
    state = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, partial)
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise CheckpointError(
            f"cannot write {path}: {error}. Choose a folder you may write to, with enough free "
            "space."
        ) from error
