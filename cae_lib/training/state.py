"""The state file of an unfinished run: model, optimiser, step, and whose run it is."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from cae_lib.errors import CheckpointError


def save_state(
    path: Path, identity: str, step: int, model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Write the state after `step` optimiser steps so that `path` is always a complete file."""
    content = {
        "identity": identity,
        "step": step,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    partial = path.with_name(path.name + ".partial")
    torch.save(content, partial)
    os.replace(partial, path)


def load_state(
    path: Path, identity: str, model: nn.Module, optimizer: torch.optim.Optimizer
) -> int:
    """Load a state into model and optimiser; returns its step, or 0 where there is no file.

    Raises:
        CheckpointError: the file is damaged or belongs to another experiment, data or start.
    """
    if not path.exists():
        return 0
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"{path}: damaged state file ({error}). Delete it to start afresh."
        ) from error
    if content["identity"] != identity:
        raise CheckpointError(
            f"{path}: state of another run; its configuration, data or first weights differ. "
            "Use another folder, or delete the file to start afresh."
        )
    model.load_state_dict(content["model"])
    optimizer.load_state_dict(content["optimizer"])
    return content["step"]


def run_identity(
    key: str, weights_id: str, tensors: Iterable[Tensor], lists: Iterable[list | None] = ()
) -> str:
    """Hash of what a run depends on: configuration key, first weights, and data."""
    digest = hashlib.sha256(f"{key} {weights_id}".encode())
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    for values in lists:
        digest.update(json.dumps(values).encode())
    return digest.hexdigest()
