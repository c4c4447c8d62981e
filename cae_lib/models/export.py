"""Models in the layout that open_clip and the Hugging Face hub read: weights, configuration, card.

The weights are a plain state dict under open_clip's names, so `pretrained=PATH` takes them. The
configuration states the activation, so that nobody who loads the folder can get the other one.
"""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import torch

from cae_lib.errors import ConfigError
from cae_lib.models.checkpoint import CheckpointMeta, save_checkpoint
from cae_lib.models.clip import OWN_MODELS, Clip, model_config
from cae_lib.runtime import whole_file, write_atomic

FILES = {"safetensors": "open_clip_model.safetensors", "pt": "open_clip_model.pt"}
CONFIG = "open_clip_config.json"
SUFFIX = "-quickgelu"


def export_clip(
    clip: Clip, folder: str | Path, meta: CheckpointMeta, card: str, form: str = "safetensors"
) -> Path:
    """Write a model's weights, its configuration and its card into a folder; returns the weights.

    `create_model_and_transforms("hf-hub:OWNER/NAME")` and `("local-dir:FOLDER")` read the folder.

    Args:
        clip: the model; its weights are written in the type they have.
        folder: made if it is missing; files of the same names are replaced.
        meta: what the header of a `.safetensors` file says, which open_clip does not read.
        card: the model card in Markdown.
        form: a key of `FILES`.

    Raises:
        ConfigError: for an unknown form.
        DataError: when the folder cannot be written.
    """
    if form not in FILES:
        raise ConfigError(f"unknown format {form!r}: expected {' or '.join(FILES)}.")
    path = Path(folder) / FILES[form]
    if form == "safetensors":
        save_checkpoint(path, clip, meta)
    else:
        state = clip.model.state_dict()
        with whole_file(path) as temporary:
            torch.save({name: value.cpu().clone() for name, value in state.items()}, temporary)
    preprocess = dict(open_clip.get_model_preprocess_cfg(clip.model))
    preprocess.pop("size", None)  # given by the architecture
    architecture = model_config(clip.name) | {"quick_gelu": clip.activation == "quickgelu"}
    config = {"model_cfg": architecture, "preprocess_cfg": preprocess}
    write_atomic(path.with_name(CONFIG), json.dumps(config, indent=2, sort_keys=True) + "\n")
    write_atomic(path.with_name("README.md"), card)
    return path


def open_clip_name(name: str, activation: str) -> str | None:
    """The name under which open_clip builds this architecture with this activation.

    None where no name of open_clip's own does, as for clip-mini: its folder has to be loaded.
    """
    stem = name.removesuffix(SUFFIX)
    for candidate in (name, stem, stem + SUFFIX):
        if candidate in open_clip.list_models() and candidate not in OWN_MODELS:
            quick = model_config(candidate).get("quick_gelu", False)
            if quick == (activation == "quickgelu"):
                return candidate
    return None
