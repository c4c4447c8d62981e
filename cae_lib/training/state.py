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
from cae_lib.runtime import atomic_file, write_atomic

REQUIRED_STATE_KEYS = frozenset({"identity", "step", "model", "optimizer"})
"""Keys that every state file has."""


def save_state(
    path: Path,
    identity: dict[str, str],
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    adaptive_margin: Tensor | None = None,
) -> None:
    """Save the state of a run after `step` optimiser steps; readers never see an incomplete file.

    Args:
        path: The state file.
        identity: Inputs of the run by name, as `cae_lib.training.inputs.run_inputs` returns them.
        step: Number of steps taken.
        model: Model whose parameters and buffers are saved.
        optimizer: Optimiser whose state is saved.
        adaptive_margin: Margin of the next step; None if the margin is fixed.

    Raises:
        WriteError: If the file cannot be written.
    """
    state: dict[str, Any] = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    if adaptive_margin is not None:
        state["adaptive_margin"] = adaptive_margin
    with atomic_file(path) as temporary:
        torch.save({"identity": identity, "step": step} | state, temporary)


def load_state(
    path: Path,
    identity: dict[str, str],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    adaptive_margin: Tensor | None = None,
) -> int:
    """Load a state file into a model, its optimiser and, if given, its adaptive margin, in place.

    Args:
        path: The state file.
        identity: Inputs of the run by name, as `cae_lib.training.inputs.run_inputs` returns them.
        model: Model that takes the saved parameters and buffers.
        optimizer: Optimiser that takes the saved state.
        adaptive_margin: Tensor that takes the saved margin; None if the margin is fixed.

    Returns:
        The number of steps taken, 0 if there is no file.

    Raises:
        CheckpointError: If the file cannot be read, is not a state file, or belongs to a run with
            another identity.
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
    """List the entries in which a run's identity and a stored identity differ.

    Args:
        stored: The stored identity; anything but a dictionary counts as one without entries.
        identity: Inputs of the run by name, as `cae_lib.training.inputs.run_inputs` returns them.

    Returns:
        Text such as "other settings, other training data"; empty if nothing differs.
    """
    stored = stored if isinstance(stored, dict) else {}
    names = {**identity, **stored}
    return ", ".join(f"other {name}" for name in names if stored.get(name) != identity.get(name))


def images_hash(images: TrainingImages) -> str:
    """Hash images by their pixels if these are in memory, else by each file's name and byte count.

    In the second case, the hash does not depend on the content of a file or on its folder.
    """
    pixels = getattr(images, "pixels", None)
    if pixels is not None:
        return content_hash([], [pixels])
    return content_hash([(path.name, path.stat().st_size) for path in images.paths], [])


def content_hash(values: list[Any], tensors: Iterable[Tensor]) -> str:
    """Return the SHA-256 of plain JSON values and of tensors (types, shapes, values), in hex."""
    content = hashlib.sha256(json.dumps(values).encode())
    for tensor in tensors:
        content.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        content.update(tensor.contiguous().view(-1).view(torch.uint8).cpu().numpy().data)
    return content.hexdigest()


def open_log(path: Path, step: int) -> TextIO:
    """Remove the lines of a log that come after `step`, and open the log for appending.

    A log is a text file with one JSON object on a line for each step. The file is created if there
    is none.

    Raises:
        WriteError: If the file cannot be written.
    """
    lines = [line for line in read_log(path) if line["step"] <= step]
    write_atomic(path, "".join(json.dumps(line) + "\n" for line in lines))
    return path.open("a", encoding="utf-8", buffering=1)  # flushed at the end of each line


def read_log(path: Path) -> list[dict[str, float]]:
    """Read the values of each step from a log; without a file the list is empty.

    A last line that a crash has cut short is left out.
    """
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
