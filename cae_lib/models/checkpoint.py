"""Checkpoints that remember their activation, and weight files of others, read safely. The meta
data is in the header of the `.safetensors` file; nobody reads the `.json` but people."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from cae_lib.errors import CheckpointError
from cae_lib.runtime import write_atomic

HEADER = "cae_lib"
EMBEDDINGS = ("token_embedding.weight", "text.token_embedding.weight")
# What stands in a file for a token embedding of which some rows are kept.
PARTS = ("ids", "rows", "vocabulary")
NESTED = ("state_dict", "model", "model_state_dict")
SIZES = ("input_resolution", "context_length", "vocab_size")
PREFIXES = ("module.", "model.", "clip.", "clip_model.")
COMPILED = "_orig_mod."
"""What `torch.compile` puts before the names of the parts that it compiles."""

HEAD = "head."
"""Beginning of the names of a head that CS-CLIP trains beside the model, and does not use."""
_SCALAR = np.float64(0).__reduce__()[0]
# What NumPy needs to read back a number, such as the loss that trainers store with the weights.
NUMBERS = [
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "?")),
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]


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


def save_checkpoint(path: str | Path, clip_or_model: Any, meta: CheckpointMeta,
                    dtype: torch.dtype | None = None, tokens: Tensor | None = None) -> Path:
    """Write weights and meta data; returns the path, whose suffix becomes `.safetensors`.

    A crash leaves the old file or the new one. WriteError when it cannot be written.

    Args:
        clip_or_model: an `nn.Module`, or an object whose `.model` is one.
        meta: stored in the file's header and in a `.json` beside it.
        dtype: storage type of the floating-point weights; None keeps theirs.
        tokens: ids that the model has (else a CheckpointError), in any shape. Only their rows of
            the text tower's token embedding `NAME (V, D)` are kept, as `NAME.rows (K, D)` of the
            tokens `NAME.ids (K,)`, with V as `NAME.vocabulary ()`. None keeps all.
    """
    path = Path(path).with_suffix(".safetensors")
    model = clip_or_model if isinstance(clip_or_model, nn.Module) else clip_or_model.model
    text = json.dumps(dataclasses.asdict(meta), indent=2, sort_keys=True)
    tensors = {}
    for name, value in model.state_dict().items():
        value = value.cpu().to(dtype if value.is_floating_point() else None)
        tensors[name] = value.clone(memory_format=torch.contiguous_format)
    if tokens is not None:
        _keep_rows(tensors, tokens.cpu())
    write_atomic(path, save(tensors, {HEADER: text}))
    write_atomic(path.with_suffix(".json"), text + "\n")
    return path


def _keep_rows(tensors: dict[str, Tensor], tokens: Tensor) -> None:
    name = next((name for name in EMBEDDINGS if name in tensors), None)
    if name is None:
        raise CheckpointError(f"no rows to keep: the model has no {' or '.join(EMBEDDINGS)}.")
    weight, ids = tensors.pop(name), tokens.unique()
    if not len(ids) or ids[0] < 0 or ids[-1] >= len(weight):
        raise CheckpointError(
            f"cannot keep the tokens {ids.tolist()}: expected ids from 0 to {len(weight) - 1}."
        )
    parts = (ids, weight[ids], torch.tensor(len(weight)))
    tensors.update({f"{name}.{part}": value for part, value in zip(PARTS, parts, strict=True)})


def _restore_rows(state: dict[str, Tensor], path: Path) -> None:
    """Put the token embedding in the place of `PARTS`; rows left out are the mean of those kept."""
    for name in EMBEDDINGS:
        found = [state.pop(f"{name}.{part}", None) for part in PARTS]
        if all(part is None for part in found):
            continue
        if any(part is None for part in found):
            raise _broken(path, f"of {', '.join(PARTS)} of {name} it holds some only")
        ids, rows, size = found
        if ids.shape != rows.shape[:1] or not len(ids) or ids.min() < 0 or ids.max() >= size:
            shapes = f"{tuple(rows.shape)} for ids {tuple(ids.shape)} below {size.tolist()}"
            raise _broken(path, f"it holds rows of {name} {shapes}")
        mean = rows.mean(dim=0, dtype=torch.promote_types(rows.dtype, torch.float32))
        state[name] = mean.to(rows.dtype).repeat(int(size), 1)
        state[name][ids] = rows


def read_meta(path: str | Path) -> CheckpointMeta | None:
    """Meta data of a checkpoint, None of weights of others; CheckpointError for a broken file."""
    path = _existing(path)
    if path.suffix != ".safetensors":
        return None
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(HEADER)
        return None if header is None else CheckpointMeta(**json.loads(header))
    except (OSError, SafetensorError, TypeError, ValueError) as error:
        raise _broken(path, error) from error


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Weights of a `.safetensors` or pickled file, under open_clip's names; runs no code in it.

    Read are the files of `save_checkpoint`, where rows of the token embedding that were left out
    become the mean of the others, and those that CLIP-CAE, NegCLIP, CE-CLIP and open_clip's own
    trainer publish, see `plain_names`. Anything else is a CheckpointError.
    """
    path = _existing(path)
    state = plain_names(_read(path))
    if state is None:
        raise _broken(path, "it holds no dictionary of tensors")
    _restore_rows(state, path)
    return state


def plain_names(content: Any) -> dict[str, Tensor] | None:
    """Tensors by open_clip's names, of a state dict, alone or `NESTED`, with `COMPILED` in some
    names and `PREFIXES` before all of them but those of a `HEAD`; None if it is none. OpenAI's
    three sizes and the causal mask, which models have by themselves, are left out."""
    for name in NESTED:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        return None
    state = {name.replace(COMPILED, "").removeprefix("module."): value
             for name, value in content.items()
             if name.rpartition(".")[2] not in SIZES and not _is_causal_mask(name, value)}
    while names := [name for name in state if not name.startswith(HEAD)]:
        prefix = next((p for p in PREFIXES if all(name.startswith(p) for name in names)), None)
        if prefix is None:
            break
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _is_causal_mask(name: str, value: Tensor) -> bool:
    return name.endswith("attn_mask") and value.ndim == 2 and torch.equal(
        value.float(), torch.full(value.shape, -torch.inf).triu(1))


def _read(path: Path) -> Any:
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
    """SHA-256 of a file in hexadecimal; CheckpointError if there is none."""
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
