"""OpenAI's own files of CLIP, which are TorchScript archives: a program with its weights. The
weights are taken out, and nothing of the program is run."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cae_lib.errors import CheckpointError
from cae_lib.models.checkpoint import CheckpointMeta, plain_names, save_checkpoint
from cae_lib.models.clip import Clip

TYPES = {"HalfStorage": torch.float16, "FloatStorage": torch.float32, "LongStorage": torch.int64,
         "DoubleStorage": torch.float64, "IntStorage": torch.int32, "BoolStorage": torch.bool}


class _Module:
    """What stands in for a module of the program; its parts are its attributes."""


class _Reader(pickle.Unpickler):
    """Builds tensors, and `_Module` for whatever else there is; knows no function to run."""

    def __init__(self, archive: Any) -> None:
        super().__init__(io.BytesIO(archive.get_record("data.pkl")))
        self.archive = archive

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return type(name, (_Module,), {})
        if module == "torch" and name in TYPES:
            return TYPES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return torch._utils._rebuild_tensor_v2
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if module == "torch.jit._pickle":  # lists of numbers
            return lambda values: values
        raise pickle.UnpicklingError(f"it holds {module}.{name}")

    def persistent_load(self, saved: tuple[Any, ...]) -> torch.TypedStorage:
        _, dtype, key, _, n = saved
        storage = self.archive.get_storage_from_record(f"data/{key}", n, dtype)
        return torch.TypedStorage(wrap_storage=storage.untyped_storage(), dtype=dtype,
                                  _internal=True)


def read_archive(path: Path) -> dict[str, Tensor]:
    """The weights of a TorchScript archive under open_clip's names; CheckpointError if the file is
    none, or holds what is neither tensor nor module."""
    try:
        content = _Reader(torch._C.PyTorchFileReader(str(path))).load()
        state = plain_names(dict(_tensors(content)))
    except (OSError, RuntimeError, pickle.UnpicklingError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{path} cannot be read as OpenAI's archive of a CLIP ({error}): fetch it again"
        ) from error
    if not state:
        raise CheckpointError(f"{path} holds no tensors: fetch OpenAI's archive again")
    return state


def _tensors(part: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    for key, value in vars(part).items():
        if isinstance(value, Tensor):
            yield f"{name}{key}", value
        elif isinstance(value, _Module):
            yield from _tensors(value, f"{name}{key}.")


def unpacked(path: Path, model: str, target: Path) -> Path:
    """The weights of OpenAI's archive as a checkpoint of ours, which says that they were trained
    with QuickGELU; written once."""
    if not target.is_file() or target.stat().st_mtime < path.stat().st_mtime:
        holder = torch.nn.Module()
        holder.state_dict = lambda: read_archive(path)  # type: ignore[method-assign]
        save_checkpoint(target, holder, CheckpointMeta(model, "quickgelu"))
    return target


def write_archive(clip: Clip, path: Path) -> None:
    """Write a model as OpenAI's files are: float16, with the sizes that theirs have."""
    class Holder(torch.nn.Module):
        def forward(self, values: Tensor) -> Tensor:
            return values

    root = Holder()
    for name, value in clip.model.state_dict().items():
        *places, last = name.split(".")
        part: torch.nn.Module = root
        for place in places:
            if place not in dict(part.named_children()):
                part.add_module(place, Holder())
            part = getattr(part, place)
        half = value.half() if value.is_floating_point() else value
        part.register_parameter(last, torch.nn.Parameter(half, requires_grad=False))
    sizes = {"input_resolution": clip.image_size, "context_length": 77, "vocab_size": 49408}
    for name, size in sizes.items():
        root.register_buffer(name, torch.tensor(size))
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.jit.save(torch.jit.trace(root, torch.zeros(1)), str(path))
