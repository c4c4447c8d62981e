"""Checkpoints that remember their activation. The meta data is in the header of the `.safetensors`
file; nobody reads the `.json` but people."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from cae_lib.errors import CheckpointError
from cae_lib.runtime import write_atomic

HEADER = "cae_lib"
EMBEDDINGS = ("token_embedding.weight", "text.token_embedding.weight")
KEPT = ("ids", "rows", "vocabulary")
"""What stands in a file for a token embedding of which some rows are kept."""


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
    path: str | Path,
    weights: Any,
    meta: CheckpointMeta,
    dtype: torch.dtype | None = None,
    tokens: Tensor | None = None,
) -> Path:
    """Write weights and meta data; returns the path, whose suffix becomes `.safetensors`.

    A crash leaves the old file or the new one. WriteError when it cannot be written.

    Args:
        weights: an `nn.Module`, an object whose `.model` is one, or a state dict.
        meta: stored in the file's header and in a `.json` beside it.
        dtype: storage type of the floating-point weights; None keeps theirs.
        tokens: ids that the model has (else a CheckpointError), in any shape. Only their rows of
            the text tower's token embedding `NAME (V, D)` are kept, as `NAME.rows (K, D)` of the
            tokens `NAME.ids (K,)`, with V as `NAME.vocabulary ()`. None keeps all.
    """
    path = Path(path).with_suffix(".safetensors")
    if not isinstance(weights, dict):
        weights = (weights if isinstance(weights, nn.Module) else weights.model).state_dict()
    text = json.dumps(dataclasses.asdict(meta), indent=2, sort_keys=True)
    tensors = {}
    for name, value in weights.items():
        value = value.cpu().to(dtype if value.is_floating_point() else None)
        tensors[name] = value.clone(memory_format=torch.contiguous_format)
    if tokens is not None:
        _keep_rows(tensors, tokens.cpu().unique())
    write_atomic(path, save(tensors, {HEADER: text}))
    write_atomic(path.with_suffix(".json"), text + "\n")
    return path


def _keep_rows(tensors: dict[str, Tensor], ids: Tensor) -> None:
    name = next((name for name in EMBEDDINGS if name in tensors), None)
    if name is None:
        raise CheckpointError(f"no rows to keep: the model has no {' or '.join(EMBEDDINGS)}.")
    weight = tensors.pop(name)
    if not len(ids) or ids[0] < 0 or ids[-1] >= len(weight):
        raise CheckpointError(
            f"cannot keep the tokens {ids.tolist()}: expected ids from 0 to {len(weight) - 1}."
        )
    kept = zip(KEPT, (ids, weight[ids], torch.tensor(len(weight))), strict=True)
    tensors.update({f"{name}.{what}": value for what, value in kept})


def restore_rows(state: dict[str, Tensor], path: Path) -> None:
    """Put the token embedding in the place of `KEPT`; rows left out are the mean of those kept."""
    for name in EMBEDDINGS:
        kept = {what: state.pop(f"{name}.{what}") for what in KEPT if f"{name}.{what}" in state}
        if not kept:
            continue
        if len(kept) < len(KEPT):
            raise broken(path, f"of {', '.join(KEPT)} of {name} it holds some only")
        ids, rows, size = kept.values()
        if ids.shape != rows.shape[:1] or not len(ids) or ids.min() < 0 or ids.max() >= size:
            shapes = f"{tuple(rows.shape)} for ids {tuple(ids.shape)} below {size.tolist()}"
            raise broken(path, f"it holds rows of {name} {shapes}")
        mean = rows.mean(dim=0, dtype=torch.promote_types(rows.dtype, torch.float32))
        state[name] = mean.to(rows.dtype).repeat(int(size), 1)
        state[name][ids] = rows


def read_meta(path: str | Path) -> CheckpointMeta | None:
    """Meta data of a checkpoint, None of weights of others; CheckpointError for a broken file."""
    path = existing(path)
    if path.suffix != ".safetensors":
        return None
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(HEADER)
        return None if header is None else CheckpointMeta(**json.loads(header))
    except (OSError, SafetensorError, TypeError, ValueError) as error:
        raise broken(path, error) from error


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file in hexadecimal; CheckpointError if there is none."""
    with existing(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def existing(path: str | Path) -> Path:
    """The path of a file that is there, else a CheckpointError."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}: check the path, or train the model first.")
    return path


def broken(path: Path, reason: object) -> CheckpointError:
    """The error of a file that cannot be read, with the first sentence of the reason."""
    first_sentence = str(reason).split(". ")[0].splitlines()[0] if str(reason) else "it is empty"
    return CheckpointError(
        f"{path} cannot be read as a checkpoint ({first_sentence}). Expected a .safetensors file "
        "or a .pt state dict; download or write it again."
    )
