"""The state file of an unfinished run: model, optimiser, step, and whose run it is."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cae_lib.config import Experiment
from cae_lib.data.captions import Pairs
from cae_lib.errors import CheckpointError
from cae_lib.runtime import training_hash
from cae_lib.training.batch import ImageSource
from cae_lib.words.alignment import Alignment


def save_state(
    path: Path,
    identity: dict[str, str],
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
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
    path: Path, identity: dict[str, str], model: nn.Module, optimizer: torch.optim.Optimizer
) -> int:
    """Load a state into model and optimiser; returns its step, or 0 where there is no file.

    Raises:
        CheckpointError: the file is damaged or belongs to a run of another identity.
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
            f"{path}: state of another run ({changes(content['identity'], identity)}). "
            "Use another folder, or delete the file to start afresh."
        )
    model.load_state_dict(content["model"])
    optimizer.load_state_dict(content["optimizer"])
    return content["step"]


def changes(known: Any, identity: dict[str, str]) -> str:
    """What differs between a stored identity, if it is one, and a run's, in words."""
    known = known if isinstance(known, dict) else {}
    return ", ".join(f"other {part}" for part in identity if known.get(part) != identity[part])


def run_identity(
    experiment: Experiment, weights_id: str, pairs: Pairs, alignment: Alignment, images: ImageSource
) -> dict[str, str]:
    """Hashes of all that decides a run's result up to rounding, by what each of them covers.

    Pictures count with their pixels where these are in memory, else with the name and size of each
    file: one that changes and keeps both is not noticed. False captions count where they are used.
    """
    tensors = [pairs.image_index, alignment.tokens, alignment.roles]
    lists: list[Any] = [pairs.negatives, pairs.hard_images] if experiment.negatives else []
    if hasattr(images, "paths"):
        lists.append([(path.name, path.stat().st_size) for path in images.paths])
    elif hasattr(images, "pixels"):
        tensors.append(images.pixels)
    data = hashlib.sha256(json.dumps(lists).encode())
    for tensor in tensors:
        data.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        data.update(tensor.contiguous().view(-1).numpy())
    return {
        "settings": hashlib.sha256(repr(experiment).encode()).hexdigest(),
        "first weights": weights_id,
        "training data": data.hexdigest(),
        "training code": training_hash(),
    }
