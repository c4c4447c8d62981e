"""Files of an unfinished run: its state (weights, optimiser, step, identity) and its log."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor, nn

from cae_lib.data.images import TrainingImages
from cae_lib.errors import CheckpointError
from cae_lib.runtime import whole_file, write_atomic

REQUIRED_STATE_KEYS = frozenset({"identity", "step", "model", "optimizer"})
"""Entries of every state file."""


def save_state(
    path: Path,
    identity: dict[str, str],
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    adaptive_margin: Tensor | None = None,
) -> None:
    """Write the state after `step` optimiser steps so that `path` is always a complete file."""
    state: dict[str, Any] = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    if adaptive_margin is not None:
        state["adaptive_margin"] = adaptive_margin
    with whole_file(path) as temporary:
        torch.save({"identity": identity, "step": step} | state, temporary)


def load_state(
    path: Path,
    identity: dict[str, str],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    adaptive_margin: Tensor | None = None,
) -> int:
    """Load a state file into model and optimiser, and into the margin if it is adaptive.

    Returns:
        The number of steps taken, 0 if there is no file.

    Raises:
        CheckpointError: If the file is damaged, holds no state of a training, or belongs to a run
            of another identity.
    """
    if not path.exists():
        return 0
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"{path}: damaged state file ({error}). Delete it to start afresh."
        ) from error
    missing = (
        REQUIRED_STATE_KEYS - set(content) if isinstance(content, dict) else REQUIRED_STATE_KEYS
    )
    if missing:
        raise CheckpointError(
            f"{path}: no state of a training (it lacks {', '.join(sorted(missing))}). Use another "
            "folder, or delete the file to start afresh."
        )
    if content["identity"] != identity:
        raise CheckpointError(
            f"{path}: state of another run ({describe_changes(content['identity'], identity)}). "
            "Use another folder, or delete the file to start afresh."
        )
    model.load_state_dict(content["model"])
    optimizer.load_state_dict(content["optimizer"])
    if adaptive_margin is not None:
        adaptive_margin.copy_(content["adaptive_margin"])
    return content["step"]


def describe_changes(stored: Any, identity: Mapping[str, str]) -> str:
    """Describe what differs between a stored identity, if it is one, and that of a run."""
    stored = stored if isinstance(stored, dict) else {}
    return ", ".join(f"other {name}" for name in identity if stored.get(name) != identity[name])


def images_hash(images: TrainingImages) -> str:
    """Hash images by their pixels if these are in memory, else by each file's name and size.

    A file that changes and keeps both is not noticed.
    """
    pixels = getattr(images, "pixels", None)
    if pixels is not None:
        return content_hash([], [pixels])
    return content_hash([(path.name, path.stat().st_size) for path in images.paths], [])


def content_hash(values: list[Any], tensors: Iterable[Tensor]) -> str:
    """Hash plain values and tensors, the types and shapes of tensors included."""
    content = hashlib.sha256(json.dumps(values).encode())
    for tensor in tensors:
        content.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        content.update(tensor.contiguous().view(-1).view(torch.uint8).cpu().numpy().data)
    return content.hexdigest()


def open_log(path: Path, step: int) -> TextIO:
    """Open a log for appending, which has one JSON line a step, and drop its lines after `step`."""
    lines = [line for line in read_log(path) if line["step"] <= step]
    write_atomic(path, "".join(json.dumps(line) + "\n" for line in lines))
    return path.open("a", encoding="utf-8", buffering=1)  # flushed at the end of each line


def read_log(path: Path) -> list[dict[str, float]]:
    """Read all complete lines of a log, none if there is no file.

    A last line that a crash has cut short is left out.
    """
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
