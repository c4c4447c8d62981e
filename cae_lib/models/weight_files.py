"""Weight files of others and our own, read without running what a pickle may hold."""

from __future__ import annotations

import hashlib
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from cae_lib.errors import CheckpointError

NESTED = ("state_dict", "model")
SIZES = ("input_resolution", "context_length", "vocab_size")
_SCALAR = np.float64(0).__reduce__()[0]
NUMBERS = [
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "?")),
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]
"""What NumPy needs to read back a number, such as the loss that trainers store with the weights."""


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
    path = existing(path)
    content = _read(path)
    for name in NESTED:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise broken(path, "it holds no dictionary of tensors")
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
        raise broken(path, error) from error


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file in hexadecimal."""
    with existing(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def existing(path: str | Path) -> Path:
    """The path of a weight file; CheckpointError if there is none."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}: check the path, or train the model first.")
    return path


def broken(path: Path, reason: object) -> CheckpointError:
    """The error to raise for a file that cannot be read."""
    first_sentence = str(reason).split(". ")[0].splitlines()[0] if str(reason) else "it is empty"
    return CheckpointError(
        f"{path} cannot be read as a checkpoint ({first_sentence}). Expected a .safetensors file "
        "or a .pt state dict; download or write it again."
    )
