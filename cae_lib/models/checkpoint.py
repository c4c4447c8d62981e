"""Checkpoints that remember which activation their weights were trained with.

One `.safetensors` file holds the weights and, in its header, the meta data; a `.json` file of the
same name repeats the meta data for people. Only the header is read back, so that a crash between
the two files, or an edit of one, cannot separate weights from their activation.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from cae_lib.errors import CheckpointError

_HEADER_KEY = "cae_lib"
NESTED = ("state_dict", "model")
SIZES = ("input_resolution", "context_length", "vocab_size")
_SCALAR = np.float64(0).__reduce__()[0]
NUMBERS = [
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "?")),
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]
"""What NumPy needs to read back a number, such as the loss that trainers store with the weights."""


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
    path = _existing(path)
    if path.suffix != ".safetensors":
        return None
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(_HEADER_KEY)
    except (OSError, SafetensorError) as error:
        raise _broken(path, error) from error
    if header is None:
        return None
    try:
        return CheckpointMeta(**json.loads(header))
    except (TypeError, ValueError) as error:
        raise _broken(path, error) from error


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Weights of a `.safetensors` or pickled file, under open_clip's names.

    Read are the files that CLIP-CAE, NegCLIP, CE-CLIP and open_clip's own trainer publish: a state
    dict, alone or nested under "state_dict" or "model", its names with or without "module.". The
    three sizes that OpenAI stores among its weights are left out. Pickled files are read with
    `weights_only=True`: no code in them is run.

    Raises:
        CheckpointError: when the file is missing, is truncated, holds something else, or would run
            code.
    """
    path = _existing(path)
    content = _read(path)
    for name in NESTED:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise _broken(path, "it holds no dictionary of tensors")
    state = {name.removeprefix("module."): value for name, value in content.items()}
    return {name: value for name, value in state.items() if name not in SIZES}


def _read(path: Path) -> Any:
    """What a file holds, tensors and plain values only."""
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}
        with torch.serialization.safe_globals(NUMBERS), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many types on a damaged file
        if "TorchScript" in str(error):
            raise CheckpointError(
                f"{path} is a TorchScript archive, a program that would run when loaded. OpenAI's "
                "weights come without one under open_clip's tag 'openai'; save the state dict of "
                "any other."
            ) from error
        code = re.search(r"[Uu]nsupported (?:global: GLOBAL|GLOBAL|class) ([\w.]+)", str(error))
        if code:
            raise CheckpointError(
                f"{path} cannot be read as a checkpoint: beside tensors it holds {code[1]}, and "
                "loading that can run code; nothing of it was run. Ask its authors for the state "
                "dict alone, best as .safetensors."
            ) from error
        raise _broken(path, error) from error


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file in hexadecimal."""
    with _existing(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}: check the path, or train the model first.")
    return path


def _broken(path: Path, reason: object) -> CheckpointError:
    first_sentence = str(reason).split(". ")[0].splitlines()[0] if str(reason) else "it is empty"
    return CheckpointError(
        f"{path} cannot be read as a checkpoint ({first_sentence}). Expected a .safetensors file "
        "or a .pt state dict; download or write it again."
    )
