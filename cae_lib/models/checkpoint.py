"""Files of a training: checkpoints that remember architecture and activation, state, and log.

Metadata lie in the header of the `.safetensors` file; the `.json` beside it is for people. State
(weights, optimiser, step, identity) and log belong to an unfinished run.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from cae_lib.errors import CheckpointError
from cae_lib.runtime import atomic_file, write_atomic

METADATA_KEY = "cae_lib"
"""Key of the header under which a file stores its `CheckpointMeta` as JSON."""

WHOLE_FILE_DIGEST_KEY = "cae_lib_whole"
"""Key of the header of a file without its image trunk: the SHA-256 of the file with the trunk."""

TOKEN_EMBEDDING_NAMES = ("token_embedding.weight", "text.token_embedding.weight")
"""Name of the token embedding in the state dict of a `CLIP` and of a `CustomTextCLIP`."""

PARTIAL_EMBEDDING_SUFFIXES = ("ids", "rows", "vocabulary")
"""Suffixes of the tensors that replace a token embedding in a file that stores some rows of it."""

REQUIRED_STATE_KEYS = frozenset({"identity", "step", "model", "optimizer"})
"""Keys that every state file has; one with an adaptive margin has "adaptive_margin" as well."""


@dataclass(frozen=True)
class CheckpointMeta:
    """Metadata of a checkpoint.

    Attributes:
        model: Name of the open_clip model, for example "clip-mini".
        activation: "quickgelu" or "gelu", the one that the weights were trained with.
        step: Optimiser steps taken.
        config_key: Content hash of the experiment, empty if there is none.
        extra: Anything else that JSON can hold. A trained run has its `run_inputs` as "identity".
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
    kept_token_ids: Tensor | None = None,
    without_trunk: bool = False,
) -> Path:
    """Write weights and metadata to a `.safetensors` file, whose path is returned.

    `weights` is a module, an object with a module as `model`, or a state dict; `dtype` converts its
    floating-point tensors. With `kept_token_ids`, the token embedding `NAME (V, D)` becomes its K
    rows of these ids: `NAME.rows (K, D)`, `NAME.ids (K,)` and `NAME.vocabulary ()`, which is V.
    `without_trunk` leaves out the tensors that equal those of `trunk_weights`.
    """
    path = Path(path).with_suffix(".safetensors")
    if not isinstance(weights, dict):
        weights = (weights if isinstance(weights, nn.Module) else weights.model).state_dict()
    header = json.dumps(dataclasses.asdict(meta), indent=2, sort_keys=True)
    tensors = {}
    for name, value in weights.items():
        value = value.cpu().to(dtype if value.is_floating_point() else None)
        # safetensors refuses tensors that share memory or are not contiguous.
        tensors[name] = value.clone(memory_format=torch.contiguous_format)
    if kept_token_ids is not None:
        _keep_rows(tensors, kept_token_ids.cpu().unique())
    content = save(tensors, {METADATA_KEY: header})
    if without_trunk:
        from cae_lib.models.trunk import trunk_weights

        # Keys of stored results depend on the digest, which must not change if a trunk is left out.
        whole = hashlib.sha256(content).hexdigest()
        for name, value in trunk_weights().items():
            # A trunk that was trained on differs, and stays in the file.
            if name in tensors and torch.equal(tensors[name], value.to(tensors[name].dtype)):
                del tensors[name]
        content = save(tensors, {METADATA_KEY: header, WHOLE_FILE_DIGEST_KEY: whole})
    # After a crash, the file is the old one or the complete new one.
    write_atomic(path, content)
    write_atomic(path.with_suffix(".json"), header + "\n")
    return path


def _keep_rows(tensors: dict[str, Tensor], ids: Tensor) -> None:
    name = next((name for name in TOKEN_EMBEDDING_NAMES if name in tensors), None)
    if name is None:
        raise CheckpointError(
            f"no rows to keep: the model has no {' or '.join(TOKEN_EMBEDDING_NAMES)}."
        )
    weight = tensors.pop(name)
    if not len(ids) or ids[0] < 0 or ids[-1] >= len(weight):
        raise CheckpointError(
            f"cannot keep the tokens {ids.tolist()}: expected ids from 0 to {len(weight) - 1}."
        )
    # `ids` are sorted, as `unique` returns them: the checks above read the first and the last.
    values = (ids, weight[ids], torch.tensor(len(weight)))
    for suffix, value in zip(PARTIAL_EMBEDDING_SUFFIXES, values, strict=True):
        tensors[f"{name}.{suffix}"] = value


def restore_embedding_rows(state: dict[str, Tensor], path: Path) -> None:
    """Complete, in place, a token embedding that was stored with only some of its rows."""
    for name in TOKEN_EMBEDDING_NAMES:
        stored = [suffix for suffix in PARTIAL_EMBEDDING_SUFFIXES if f"{name}.{suffix}" in state]
        if not stored:
            continue
        if len(stored) < len(PARTIAL_EMBEDDING_SUFFIXES):
            missing = f"of {', '.join(PARTIAL_EMBEDDING_SUFFIXES)} of {name} it holds some only"
            raise unreadable_checkpoint_error(path, missing)
        ids, rows, size = (state.pop(f"{name}.{suffix}") for suffix in PARTIAL_EMBEDDING_SUFFIXES)
        if ids.shape != rows.shape[:1] or not len(ids) or ids.min() < 0 or ids.max() >= size:
            shapes = f"{tuple(rows.shape)} for ids {tuple(ids.shape)} below {size.tolist()}"
            raise unreadable_checkpoint_error(path, f"it holds rows of {name} {shapes}")
        # Captions with other tokens can still be encoded: such a token counts as an average one.
        mean = rows.mean(dim=0, dtype=torch.promote_types(rows.dtype, torch.float32))
        state[name] = mean.to(rows.dtype).repeat(int(size), 1)
        state[name][ids] = rows


def read_meta(path: str | Path) -> CheckpointMeta | None:
    """Read the metadata in the header; None for a file that `save_checkpoint` did not write."""
    header = _metadata(require_file(path)).get(METADATA_KEY)
    try:
        return None if header is None else CheckpointMeta(**json.loads(header))
    except (TypeError, ValueError) as error:
        raise unreadable_checkpoint_error(Path(path), error) from error


def _metadata(path: Path) -> dict[str, str]:
    """Return the metadata in the header of a `.safetensors` file; {} for other files."""
    if path.suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise unreadable_checkpoint_error(path, error) from error


def restore_trunk(state: dict[str, Tensor], path: Path) -> None:
    """Add the tensors of the image trunk to `state` if the checkpoint at `path` leaves them out."""
    if WHOLE_FILE_DIGEST_KEY in _metadata(path):
        from cae_lib.models.trunk import trunk_weights

        # A checkpoint in float16 had its trunk in float16, too; the package has it in float32.
        dtype = next(value.dtype for value in state.values() if value.is_floating_point())
        for name, value in trunk_weights().items():
            state.setdefault(name, value.to(dtype if value.is_floating_point() else None))


def checkpoint_digest(path: str | Path) -> str:
    """Return the SHA-256 of a checkpoint, complete with its image trunk, in hexadecimal."""
    path = require_file(path)
    if whole := _metadata(path).get(WHOLE_FILE_DIGEST_KEY):
        return whole
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_file(path: str | Path) -> Path:
    """Return `path` as a `Path`; raise CheckpointError if there is no such file."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}: check the path, or train the model first.")
    return path


def require_finite(state: Mapping[str, Tensor], source: object) -> None:
    """Check that all weights are finite; a model with a NaN scores 0 without an error."""
    for name, value in state.items():
        if not value.is_floating_point() or not value.numel():
            continue
        # Not every operation exists for 8-bit floats.
        wide = value.detach() if value.element_size() > 1 else value.detach().float()
        # A single pass without a tensor of booleans; NaN passes through to both extremes.
        extremes = torch.stack(torch.aminmax(wide))
        if not extremes.isfinite().all():
            n_wrong = int((~wide.isfinite()).sum())
            raise CheckpointError(
                f"{source}: {n_wrong:,} of the {value.numel():,} numbers of {name} are NaN or "
                "infinite. Download or write it again, or train the model again."
            )


def unreadable_checkpoint_error(path: Path, reason: object) -> CheckpointError:
    """Return the error for a file that cannot be read; it quotes the reason's first sentence."""
    first_sentence = str(reason).split(". ")[0].splitlines()[0] if str(reason) else "it is empty"
    return CheckpointError(
        f"{path} cannot be read as a checkpoint ({first_sentence}). Expected a .safetensors file "
        "or a .pt state dict; download or write it again."
    )


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
