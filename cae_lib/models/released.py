"""Models of others, in the formats that they are published in: tags and folders of open_clip, state
dicts with LoRA, prefixes or a head beside the model, and CLIP or SigLIP of Hugging Face."""

from __future__ import annotations

import hashlib
import math
import pickle
import types
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from open_clip.transform import PreprocessCfg, image_transform_v2
from torch import Tensor, nn

from cae_lib.errors import CheckpointError, ConfigError
from cae_lib.models.checkpoint import HEAD, file_digest, plain_names, read_meta, read_state_dict
from cae_lib.models.clip import WEIGHT_SUFFIXES, Clip, fill, load_clip, model_config
from cae_lib.models.text_tower import CLIP_VOCABULARY

OPEN_CLIP, HUGGING_FACE = ("hf-hub:", "local-dir:"), "hf:"
START = ("ViT-B-32", "openai")
"""The weights that most released models start from."""

BUILDERS = {
    ("collections", "OrderedDict"), ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"), ("torch", "Size"),
}
"""What builds tensors and dictionaries of them, and does nothing else."""

FILES = {"tokenizer": ("tokenizer.json", "vocab.json", "tokenizer_config.json"),
         "preprocessing": ("preprocessor_config.json", "processor_config.json")}
"""Files of transformers, one of which a folder has that says how texts or pictures are read."""

FORMS = (
    "MODEL:TAG of open_clip, such as ViT-B-32-quickgelu:openai; hf-hub:OWNER/NAME or local-dir:"
    "FOLDER in open_clip's format; hf:OWNER/NAME or a folder of a CLIP or SigLIP of transformers; "
    f"a weight file ({', '.join(WEIGHT_SUFFIXES)})"
)


@dataclass(frozen=True)
class Released:
    """A model of others and how it is read.

    Attributes:
        source: one of `FORMS`.
        model: open_clip's architecture of a weight file; else None.
        activation: "quickgelu" or "gelu"; None for what the source says, which a file does not.
        alpha: of LoRA: W + alpha / rank * B A.
        share: of a weight file in the mean of its weights and OpenAI's; 1 is the file alone.
        processor: of a model of transformers: folder or hub repository whose tokenizer and
            preprocessing it takes; None for its own, or where a CLIP has none, OpenAI's.
    """

    source: str
    model: str | None = None
    activation: str | None = None
    alpha: float = 1.0
    share: float = 1.0
    processor: str | None = None


def load_released(released: Released, device: str | torch.device = "cpu") -> Clip:
    """Read a model whole: every tensor of the source has its place, and every weight is filled.

    A model of transformers keeps its own modules, in `Clip.model`; its name is its folder's.
    ConfigError if the source is none of `FORMS`, or architecture or activation are not known;
    CheckpointError if the weights are missing, broken or do not fit.
    """
    return reader(released, device)()


def reader(released: Released, device: str | torch.device = "cpu") -> Callable[[], Clip]:
    """What reads a model, for `load_released`; here it is seen whether the form is known and a file
    is there."""
    source = released.source
    if Path(source).is_dir():
        kind = "local-dir:" if Path(source, "open_clip_config.json").is_file() else HUGGING_FACE
        source = f"{kind}{source}"
    if source.startswith(HUGGING_FACE):
        return partial(_hugging_face, source.removeprefix(HUGGING_FACE), released, device)
    if released.processor:
        raise ConfigError(f"{source} is no model of transformers: it takes no other processor.")
    if source.startswith(OPEN_CLIP):
        return partial(_from_folder, source, released.activation, device)
    if Path(source).suffix in WEIGHT_SUFFIXES:
        return _file_reader(released, device)
    name, colon, tag = source.rpartition(":")
    if not colon:
        raise ConfigError(f"no model {source!r}: expected {FORMS}.")
    mismatch = released.activation is not None  # asked for, so meant
    return partial(load_clip, name, tag, released.activation, device,
                   allow_activation_mismatch=mismatch)


def _file_reader(released: Released, device: str | torch.device) -> Callable[[], Clip]:
    path = Path(released.source)
    meta = read_meta(path)
    if meta is not None and released.model is None:  # one of ours
        return partial(load_clip, meta.model, path, released.activation, device)
    if released.model is None or released.activation is None:
        raise ConfigError(
            f"{path} says neither its architecture nor its activation: give both, for example "
            "--model ViT-B-32 --activation quickgelu (OpenAI's weights and their descendants)."
        )
    return partial(_from_file, released, path, device)


def _from_file(released: Released, path: Path, device: str | torch.device) -> Clip:
    state = read_released(path, released.alpha)
    start = load_clip(*START).model.state_dict() if released.share != 1 else {}
    positions = state.get("positional_embedding", torch.empty(0))
    length = model_config(released.model)["text_cfg"].get("context_length", 77)
    context = len(positions) if len(positions) not in (0, length) else None
    if start:
        state = {name: value.float().lerp(_cut(start[name].float(), value), 1 - released.share)
                 for name, value in state.items()}
    clip = load_clip(released.model, None, released.activation)
    if context:
        clip.model = _with_context(released, context)
        clip.tokenizer = open_clip.get_tokenizer(released.model, context_length=context)
    fill(clip.model, state, path, released.model)
    clip.model.eval().to(device)
    clip.weights_id = file_digest(path)
    return clip


def _with_context(released: Released, context: int) -> nn.Module:
    quick = released.activation == "quickgelu"
    return open_clip.create_model(released.model, force_context_length=context,
                                  force_quick_gelu=quick, quick_gelu=quick, pretrained_text=False)


def _cut(start: Tensor, like: Tensor) -> Tensor:
    """OpenAI's tensor, of the positional embedding only those positions that the file has."""
    return start[: len(like)] if start.ndim and start.ndim == like.ndim else start


def read_released(path: str | Path, alpha: float = 1.0) -> dict[str, Tensor]:
    """The state dict of a published file under open_clip's names, as `read_state_dict`, and:
    beside objects that are no tensors, of which nothing is read or run; with `HEAD`, which is left
    out; with LoRA, which is merged as W + alpha / rank * B A. CheckpointError if it cannot be read.
    """
    try:
        state = read_state_dict(path)
    except CheckpointError:
        state = _tensors_alone(Path(path))
        if state is None:
            raise
    state = {name: value for name, value in state.items() if not name.startswith(HEAD)}
    return merge_lora(state, alpha)


class _Nothing:
    """Stands for an object that is not read: it takes whatever a pickle does to it."""

    def __init__(self, *_: Any, **__: Any) -> None: ...
    def __setstate__(self, _: Any) -> None: ...
    def __setitem__(self, *_: Any) -> None: ...
    def append(self, _: Any) -> None: ...
    def extend(self, _: Any) -> None: ...
    def __call__(self, *_: Any, **__: Any) -> _Nothing:
        return self


class _Unpickler(pickle.Unpickler):
    """Builds tensors, and `_Nothing` in place of everything else that would be imported."""

    def find_class(self, module: str, name: str) -> Any:
        allowed = (module, name) in BUILDERS or module == "torch" and name.endswith("Storage")
        return super().find_class(module, name) if allowed else _Nothing


def _tensors_alone(path: Path) -> dict[str, Tensor] | None:
    """The tensors of a pickled file by name, whatever lies beside them; None if there is no state
    dict. No code of the file runs: `_Unpickler` imports what builds tensors and nothing else."""
    safe = types.SimpleNamespace(Unpickler=_Unpickler, load=pickle.load, __name__="pickle")
    try:
        content = torch.load(path, map_location="cpu", pickle_module=safe, weights_only=False)
    except Exception:  # whatever a damaged file raises; the error of `read_state_dict` is shown
        return None
    return plain_names(content) or None


def merge_lora(state: dict[str, Tensor], alpha: float = 1.0) -> dict[str, Tensor]:
    """Merge the adapters of loralib, as DAC, TSVLC and FSC-CLIP train them: tensors `lora_A`,
    `lora_B` beside `weight`, or `NAME_lora_A`, `NAME_lora_B` beside `NAME`; those of a convolution
    with kernels of k x k have k times the rank. CheckpointError for half an adapter, or one without
    its weight."""
    merged = {name: value for name, value in state.items() if "lora_" not in name}
    for name in sorted(name for name in state if name.endswith("lora_A")):
        stem = name.removesuffix("lora_A")
        target = f"{stem}weight" if stem.endswith(".") else stem.removesuffix("_")
        if target not in merged or f"{stem}lora_B" not in state:
            raise CheckpointError(f"the adapter {name} lacks {target} or {stem}lora_B beside it")
        weight, down, up = merged[target], state[name], state[f"{stem}lora_B"]
        kernel = weight.shape[-1] if weight.ndim == 4 else 1
        change = (up.float() @ down.float()).reshape(weight.shape) * alpha * kernel / len(down)
        merged[target] = (weight.float() + change).to(weight.dtype)
    alone = [name for name in state if name.endswith("lora_B")
             and f"{name.removesuffix('B')}A" not in state]
    if alone:
        raise CheckpointError(f"the adapter {alone[0]} has no lora_A beside it")
    return merged


def _from_folder(source: str, activation: str | None, device: str | torch.device) -> Clip:
    """A folder or repository in open_clip's format, whose configuration states the activation."""
    try:
        stated = open_clip.get_model_config(source).get("quick_gelu")
        wanted = bool(stated) if activation is None else activation == "quickgelu"
        model, _, preprocess = open_clip.create_model_and_transforms(
            source, device=device, force_quick_gelu=wanted, quick_gelu=wanted)
        tokenizer = open_clip.get_tokenizer(source)
    except (OSError, RuntimeError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(
            f"cannot read {source} as open_clip's: {error}. A model of transformers is given as "
            f"hf:OWNER/NAME or as its folder."
        ) from error
    text = getattr(model, "text", model)
    _check_vocabulary(tokenizer, text.vocab_size, source, spare=text.vocab_size // 2)
    size = model.visual.image_size
    chosen = "quickgelu" if wanted else "gelu"
    if stated is not wanted:
        print(f"{source}: its configuration has quick_gelu: {stated}; read with {chosen}")
    name = source.partition(":")[2].rstrip("/").rpartition("/")[2]
    return Clip(model.eval(), preprocess, tokenizer, name, chosen,
                size if isinstance(size, int) else size[0], state_digest(model))


def _check_vocabulary(tokenizer: Any, vocabulary: int, source: str, spare: int = 0) -> None:
    """CheckpointError unless a tokenizer has the tokens of the model, or less by up to `spare`."""
    simple = isinstance(tokenizer, SimpleTokenizer)
    own = tokenizer.vocab_size if simple else len(tokenizer.tokenizer)
    if not vocabulary - spare <= own <= vocabulary:
        raise CheckpointError(
            f"{source}: the tokenizer has {own:,} tokens and the model {vocabulary:,}: texts would "
            "be read as others. Complete its files, or name, for a model of transformers, a folder "
            "or hub repository that has the right ones: --processor"
        )


def _hugging_face(source: str, how: Released, device: str | torch.device) -> Clip:
    """CLIP or SigLIP of transformers with its own modules; attention as matrices, so that it can be
    read and differentiated."""
    from transformers import AutoConfig, AutoImageProcessor, AutoModel
    from transformers.utils import has_file

    activation, place = how.activation, how.processor or source
    try:
        config = AutoConfig.from_pretrained(source)
        if not hasattr(config, "vision_config") or not hasattr(config, "text_config"):
            raise ValueError(f"it is a {config.model_type}, not a CLIP or SigLIP")
        own = "quickgelu" if config.text_config.hidden_act == "quick_gelu" else "gelu"
        if activation not in (None, own):
            for part in (config.vision_config, config.text_config):
                part.hidden_act = {"quickgelu": "quick_gelu"}.get(activation, activation)
        model, found = AutoModel.from_pretrained(
            source, config=config, attn_implementation="eager", output_loading_info=True)
        size, text = config.vision_config.image_size, config.text_config
        openai = config.model_type == "clip" and text.vocab_size == CLIP_VOCABULARY
        lacks = [kind for kind, names in FILES.items() if openai and not how.processor
                 and not any(has_file(source, name) for name in names)]
        tokens = SimpleTokenizer if "tokenizer" in lacks else partial(HFTokenizer, place)
        tokenizer = tokens(context_length=text.max_position_embeddings)
        _check_vocabulary(tokenizer, text.vocab_size, place)
        preprocess = image_transform_v2(PreprocessCfg(size=size), is_train=False)
        if "preprocessing" not in lacks:
            processor = AutoImageProcessor.from_pretrained(place, use_fast=False)
            preprocess = _preprocess(processor, size)
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise CheckpointError(
            f"cannot read {source} as a model of transformers: {error}. Expected config.json, "
            "weights, tokenizer and preprocessor_config.json of a CLIP or SigLIP."
        ) from error
    wrong = [*found["missing_keys"], *found["unexpected_keys"]]
    if wrong:
        raise CheckpointError(
            f"{source} does not fit its configuration: {len(wrong)} tensors are missing or left "
            f"over, such as {sorted(wrong)[0]}. Download it again."
        )
    if lacks:
        print(f"{source} has no {' and no '.join(lacks)}: OpenAI's is taken", flush=True)
    return Clip(model.eval().to(device), preprocess, tokenizer,
                Path(source).name, activation or own, size, state_digest(model))


def _preprocess(processor: Any, size: int) -> Callable[[Any], Tensor]:
    """What a processor of transformers does, as open_clip writes it."""
    modes = {2: "bilinear", 3: "bicubic"}
    mode = modes.get(int(processor.resample))
    if mode is None:
        raise CheckpointError(f"the preprocessing resamples by {processor.resample!r}: expected "
                              "bilinear or bicubic")
    squash = not getattr(processor, "do_center_crop", False)
    return image_transform_v2(PreprocessCfg(
        size=size, mean=tuple(processor.image_mean), std=tuple(processor.image_std),
        interpolation=mode, resize_mode="squash" if squash else "shortest"), is_train=False)


def state_digest(model: nn.Module) -> str:
    """SHA-256 of a model's weights by name."""
    known = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        known.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        known.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return known.hexdigest()


def difference(model: nn.Module, start: nn.Module) -> tuple[int, int, float]:
    """How far a model is from the one that it starts from: how many of its tensors differ, of how
    many, and the root mean square of the difference relative to that of the start. Both have the
    same names, else a ConfigError."""
    own, other = model.state_dict(), start.state_dict()
    if own.keys() != other.keys():
        raise ConfigError("the models have tensors of other names: they cannot be compared")
    changed, square, whole = 0, 0.0, 0.0
    for name, value in own.items():
        before = other[name].to(value)
        apart = value.shape != before.shape or not torch.equal(value, before)
        changed += apart
        if apart and value.shape == before.shape and value.is_floating_point():
            square += float((value.double() - before.double()).square().sum())
        whole += float(before.double().square().sum())
    return changed, len(own), math.sqrt(square / whole) if whole else 0.0
