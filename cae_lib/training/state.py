"""Files of an unfinished run: its state (weights, optimiser, step, identity) and its log."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor, nn

from cae_lib.errors import CheckpointError
from cae_lib.runtime import atomic_file, write_atomic

REQUIRED_STATE_KEYS = frozenset({"identity", "step", "model", "optimizer"})
"""Keys that every state file has; one with an adaptive margin has "adaptive_margin" as well."""


def save_state(
    path: Path,
    identity: dict[str, str],
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    adaptive_margin: Tensor | None = None,
) -> None:
    """Save the state of a run after `step` optimiser steps; readers never see an incomplete file.

    `identity` is what `run_inputs` returns, `adaptive_margin` the margin of the next step, if any.
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
    """Load a state file in place, and return the number of steps taken, 0 if there is no file."""
    if not path.exists():
        return 0
    try:
        # A pickle may run code, so only tensors and plain values are read. They go to the CPU,
        # since the GPU of the state may not be here; model and optimiser copy them.
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"{path}: damaged state file ({error}). Delete it to start afresh."
        ) from error
    required = REQUIRED_STATE_KEYS | ({"adaptive_margin"} if adaptive_margin is not None else set())
    missing = required - set(content) if isinstance(content, dict) else required
    if missing:
        raise CheckpointError(
            f"{path}: no state of a training (it lacks {', '.join(sorted(missing))}). Use another "
            "folder, or delete the file to start afresh."
        )
    # Resumed with other settings, data or versions, the run would be a mixture of two.
    if content["identity"] != identity:
        raise CheckpointError(
            f"{path}: state of another run ({describe_changes(content['identity'], identity)}). "
            "Use another folder, or delete the file to start afresh."
        )
    model.load_state_dict(content["model"])
    optimizer.load_state_dict(content["optimizer"])
    if adaptive_margin is not None:
        # In place, because the objective of the run holds this tensor.
        adaptive_margin.copy_(content["adaptive_margin"])
    return content["step"]


def describe_changes(stored: Any, identity: Mapping[str, str]) -> str:
    """Return text such as "other settings, other training data", empty if nothing differs."""
    # `stored` comes from a file, which may hold anything.
    stored = stored if isinstance(stored, dict) else {}
    names = {**identity, **stored}
    return ", ".join(f"other {name}" for name in names if stored.get(name) != identity.get(name))


def open_log(path: Path, step: int) -> TextIO:
    """Open a log for appending after `step`: a text file with one JSON object for each step."""
    # Steps after the saved state are taken, and logged, again.
    lines = [line for line in read_log(path) if line["step"] <= step]
    write_atomic(path, "".join(json.dumps(line) + "\n" for line in lines))
    # Flushed at the end of each line.
    return path.open("a", encoding="utf-8", buffering=1)


def read_log(path: Path) -> list[dict[str, float]]:
    """Read the values of each step from a log; without a file the list is empty."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    # A crash may have cut the last line short.
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
