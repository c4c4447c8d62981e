"""Read weight files of this project and of others as state dicts with open_clip's names.

No code in a file is run: unpickling imports only functions and classes that build tensors.
"""

from __future__ import annotations

import io
import pickle
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from cae_lib.errors import CheckpointError
from cae_lib.models.checkpoint import (
    CheckpointMeta,
    require_file,
    require_finite,
    restore_embedding_rows,
    restore_trunk,
    save_checkpoint,
    unreadable_checkpoint_error,
)

STATE_DICT_KEYS = ("state_dict", "model", "model_state_dict")
"""Keys under which a file may hold its state dict."""

OPENAI_SIZE_ENTRIES = {"input_resolution": 224, "context_length": 77, "vocab_size": 49408}
"""Entries beside the weights in OpenAI's files, with their values for ViT-B/32."""

WRAPPER_PREFIXES = ("module.", "model.", "clip.", "clip_model.")
"""Prefixes that all names have in the file of a model that was saved as part of another module."""

TORCH_COMPILE_PREFIX = "_orig_mod."
"""What `torch.compile` puts before the names of tensors in modules that it compiles."""

CS_CLIP_HEAD_PREFIX = "head."
"""Prefix of the names of a head that CS-CLIP trains beside the model and does not use."""

STORAGE_DTYPES = {
    "HalfStorage": torch.float16,
    "FloatStorage": torch.float32,
    "LongStorage": torch.int64,
    "DoubleStorage": torch.float64,
    "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
}
"""Dtype of each type of storage that a pickle may name."""

# All that unpickling may import: it builds tensors and dictionaries of them, and does nothing else.
SAFE_GLOBALS = {("collections", "OrderedDict"), ("torch", "Size")} | {
    ("torch._utils", f"_rebuild_{kind}") for kind in ("tensor", "tensor_v2", "parameter")
}


def read_state_dict(path: str | Path, lora_alpha: float | None = None) -> dict[str, Tensor]:
    """Read a `.safetensors` file, a pickled file or a TorchScript archive as tensors on the CPU.

    Rows and trunks that `save_checkpoint` left out are filled in, names are translated to
    open_clip's, and LoRA adapters are merged if `lora_alpha` is given (see `merge_lora`).
    """
    path = require_file(path)
    try:
        state = extract_state_dict(_read(path))
    # torch.load raises errors of many types on a damaged file.
    except Exception as error:
        raise unreadable_checkpoint_error(path, error) from error
    if not state:
        raise unreadable_checkpoint_error(path, "it holds no dictionary of tensors")
    # Before missing rows are filled in by a mean, where a NaN would spread.
    require_finite(state, path)
    restore_embedding_rows(state, path)
    restore_trunk(state, path)
    return state if lora_alpha is None else merge_lora(state, lora_alpha)


class _Other:
    """Stands for an object that is not built, and accepts all operations of a pickle on it."""

    def __init__(self, *_: Any, **__: Any) -> None: ...
    def __setitem__(self, *_: Any) -> None: ...
    def append(self, _: Any) -> None: ...
    def extend(self, _: Any) -> None: ...
    def __call__(self, *_: Any, **__: Any) -> _Other:
        return self

    def __setstate__(self, state: Any) -> None:
        vars(self).update(state if isinstance(state, dict) else {})


class _Unpickler(pickle.Unpickler):
    """Builds tensors, and `_Other` in place of everything else that would be imported."""

    def find_class(self, module: str, name: str) -> Any:
        # Only the dtype of a storage is needed, not its class.
        if module == "torch" and name in STORAGE_DTYPES:
            return STORAGE_DTYPES[name]
        return super().find_class(module, name) if (module, name) in SAFE_GLOBALS else _Other


class _ArchiveReader(_Unpickler):
    """Reads the modules of a TorchScript archive, each as an `_Other` with its attributes."""

    def __init__(self, file: Any) -> None:
        super().__init__(io.BytesIO(file.get_record("data.pkl")))
        self.file = file

    def persistent_load(self, saved: tuple[Any, ...]) -> torch.TypedStorage:
        # ("storage", its type, key, device, number of elements), where `find_class` has made a
        # dtype of the type
        _, dtype, key, _, n = saved
        storage = self.file.get_storage_from_record(f"data/{key}", n, dtype).untyped_storage()
        return torch.TypedStorage(wrap_storage=storage, dtype=dtype, _internal=True)


SAFE_PICKLE = types.SimpleNamespace(
    Unpickler=_Unpickler,
    __name__="pickle",
    load=lambda file, **options: _Unpickler(file, **options).load(),
)
"""Replaces the module `pickle` in `torch.load`, and imports nothing but `SAFE_GLOBALS`."""


def _read(path: Path) -> Any:
    """Return the object that a file holds; for a TorchScript archive, its tensors by name."""
    if path.suffix == ".safetensors":
        return load_file(path)
    if zipfile.is_zipfile(path):
        # `torch.jit.load` would also load the program of the archive.
        file = torch._C.PyTorchFileReader(str(path))
        # TorchScript, a program with its weights.
        if "constants.pkl" in file.get_all_records():
            return dict(_tensors(_ArchiveReader(file).load()))
    # `weights_only` would refuse a file that holds other objects beside its weights; the replaced
    # pickle skips them.
    return torch.load(path, map_location="cpu", pickle_module=SAFE_PICKLE, weights_only=False)


def _tensors(module: _Other, name: str = "") -> Iterator[tuple[str, Tensor]]:
    for key, value in vars(module).items():
        if isinstance(value, Tensor):
            yield f"{name}{key}", value
        elif isinstance(value, _Other):
            yield from _tensors(value, f"{name}{key}.")


def extract_state_dict(content: Any) -> dict[str, Tensor] | None:
    """Return the tensors of a state dict by open_clip's names; None if `content` holds none."""
    # A training script stores the state dict beside its settings and the optimiser.
    for name in STATE_DICT_KEYS:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        return None
    # open_clip's models have no entries for sizes, and make the causal mask themselves.
    state = {
        name.replace(TORCH_COMPILE_PREFIX, "").removeprefix("module."): value
        for name, value in content.items()
        if name.rpartition(".")[2] not in OPENAI_SIZE_ENTRIES and not _is_causal_mask(name, value)
    }
    # A model may be wrapped more than once. Only a prefix of all names belongs to a wrapper.
    while names := [name for name in state if not name.startswith(CS_CLIP_HEAD_PREFIX)]:
        prefix = next(
            (p for p in WRAPPER_PREFIXES if all(name.startswith(p) for name in names)), None
        )
        if prefix is None:
            break
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    # The head of CS-CLIP is left out, since `names` lacks it.
    return {name: state[name] for name in names}


def _is_causal_mask(name: str, value: Tensor) -> bool:
    return (
        name.endswith("attn_mask")
        and value.ndim == 2
        and torch.equal(value.float(), torch.full(value.shape, -torch.inf).triu(1))
    )


def merge_lora(state: dict[str, Tensor], alpha: float = 1.0) -> dict[str, Tensor]:
    """Merge loralib's adapters into the weights, as `alpha / rank * lora_B @ lora_A`.

    An adapter is `lora_A` and `lora_B` beside `weight`, or `NAME_lora_A` and `NAME_lora_B` beside
    `NAME`. DAC, TSVLC and FSC-CLIP train them.
    """
    merged = {name: value for name, value in state.items() if "lora_" not in name}
    for stem in sorted({name[:-1] for name in state if name.endswith(("lora_A", "lora_B"))}):
        prefix = stem.removesuffix("lora_")
        target = f"{prefix}weight" if prefix.endswith(".") else prefix.removesuffix("_")
        if missing := {f"{stem}A", f"{stem}B", target} - {*merged, *state}:
            names = sorted(missing)
            raise CheckpointError(f"the adapter {stem}A, {stem}B of {target} lacks {names}")
        weight, down, up = merged[target], state[f"{stem}A"], state[f"{stem}B"]
        # An adapter of a k x k convolution has k times the rank: `down` has k * rank rows.
        kernel = weight.shape[-1] if weight.ndim == 4 else 1
        try:
            product = up.float() @ down.float()
            # The adapter of an embedding table is transposed.
            if product.shape == weight.shape[::-1] != weight.shape:
                product = product.T
            change = product.reshape(weight.shape) * alpha * kernel / len(down)
        except RuntimeError as error:
            raise CheckpointError(f"the adapter of {target} does not fit it: {error}") from error
        # The sum of half-precision weights is rounded once.
        merged[target] = (weight.float() + change).to(weight.dtype)
    return merged


def convert_openai_archive(path: Path, model: str, target: Path) -> Path:
    """Convert OpenAI's archive to a checkpoint, unless `target` is not older than the archive."""
    if not target.is_file() or target.stat().st_mtime < path.stat().st_mtime:
        # OpenAI trained with QuickGELU, which the archive does not say.
        save_checkpoint(target, read_state_dict(path), CheckpointMeta(model, "quickgelu"))
    return target
