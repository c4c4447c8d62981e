"""Checkpoints that remember which activation their weights were trained with.

One `.safetensors` file holds the weights and, in its header, the meta data; a `.json` file of the
same name repeats the meta data for people. Only the header is read back, so that a crash between
the two files, or an edit of one, cannot separate weights from their activation.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from cae_lib.errors import CheckpointError
from cae_lib.models.weight_files import broken, existing, file_digest, read_state_dict

__all__ = [
    "CheckpointMeta",
    "file_digest",
    "read_meta",
    "read_state_dict",
    "save_checkpoint",
]

_HEADER_KEY = "cae_lib"


@dataclass(frozen=True)
class CheckpointMeta:
    """What a checkpoint says about itself.

    Attributes:
        model: open_clip model name, for example "clip-mini".
        activation: "quickgelu" or "gelu": the activation the weights were trained with.
        step: optimiser steps taken.
        config_key: content hash of the experiment, empty if there is none.
        extra: anything else that JSON can hold.
    """

    model: str
    activation: str
    step: int = 0
    config_key: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(
    path: str | Path, clip_or_model: Any, meta: CheckpointMeta, dtype: torch.dtype | None = None
) -> Path:
    """Write weights and meta data so that a crash leaves the old checkpoint or the new one.

    Args:
        path: file to write; its suffix becomes `.safetensors`.
        clip_or_model: an `nn.Module`, or an object whose `.model` is one.
        meta: stored in the file's header and in the `.json` beside it.
        dtype: storage type of the floating-point weights; None keeps theirs.

    Returns:
        The path written.

    Raises:
        CheckpointError: when the folder or the file cannot be written.
    """
    path = Path(path).with_suffix(".safetensors")
    model = clip_or_model if isinstance(clip_or_model, nn.Module) else clip_or_model.model
    text = json.dumps(dataclasses.asdict(meta), indent=2, sort_keys=True)
    tensors = {name: _stored(value, dtype) for name, value in model.state_dict().items()}
    partial = path.with_name(path.name + ".partial")
    readable = path.with_suffix(".json.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, partial, metadata={_HEADER_KEY: text})
        readable.write_text(text + "\n", encoding="utf-8")
        os.replace(partial, path)
        os.replace(readable, path.with_suffix(".json"))
    except (OSError, SafetensorError) as error:
        _discard(partial, readable)
        raise CheckpointError(
            f"cannot write the checkpoint {path}: {error}. Choose a folder you may write to, "
            "with enough free space."
        ) from error
    return path


def _discard(*files: Path) -> None:
    """Remove what an interrupted write left."""
    for file in files:
        with contextlib.suppress(OSError):
            file.unlink()


def _stored(value: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Detached copy on the CPU, in the storage type."""
    value = value.detach().cpu()
    if dtype is not None and value.is_floating_point():
        value = value.to(dtype)
    return value.clone(memory_format=torch.contiguous_format)


def read_meta(path: str | Path) -> CheckpointMeta | None:
    """Meta data of a checkpoint; None for weights that were not written by `save_checkpoint`.

    Raises:
        CheckpointError: when the file is missing, is truncated, or is no checkpoint.
    """
    path = existing(path)
    if path.suffix != ".safetensors":
        return None
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(_HEADER_KEY)
    except (OSError, SafetensorError) as error:
        raise broken(path, error) from error
    if header is None:
        return None
    try:
        return CheckpointMeta(**json.loads(header))
    except (TypeError, ValueError) as error:
        raise broken(path, error) from error
