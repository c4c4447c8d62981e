"""Load models that this project did not train.

These are tags and folders of open_clip, weight files, and CLIP or SigLIP of Hugging Face.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor, nn

from cae_lib.config import install_command
from cae_lib.errors import CheckpointError, ConfigError
from cae_lib.models.checkpoint import read_meta, require_finite
from cae_lib.models.clip import (
    ACTIVATIONS,
    WEIGHT_SUFFIXES,
    Clip,
    build_with_state_dict,
    image_height,
    load_clip,
    model_config,
)
from cae_lib.models.weight_files import read_state_dict
from cae_lib.words.alignment import CLIP_VOCABULARY_SIZE

# Prefixes of a source in open_clip's format, and of a model of transformers.
OPEN_CLIP_PREFIXES, TRANSFORMERS_PREFIX = ("hf-hub:", "local-dir:"), "hf:"
OPENAI_WEIGHTS = ("ViT-B-32", "openai")
"""Architecture and tag of the weights with which `ExternalModel.weights_share` averages a file."""

UNREADABLE_ERRORS = (OSError, RuntimeError, ValueError, KeyError, SafetensorError)
"""Errors that other libraries raise if the files of a model are missing, damaged or do not fit."""

PROCESSOR_FILES = {
    "tokenizer": ("tokenizer.json", "vocab.json", "tokenizer_config.json"),
    "preprocessing": ("preprocessor_config.json", "processor_config.json"),
}
"""Files of transformers that define a tokenizer or a preprocessing; any one of a kind suffices."""

# DAC and TSVLC train with this alpha; adapters are merged as W + alpha / rank * B A.
LORA_ALPHA = 1.0

INTERPOLATION_NAMES: dict[int, str] = {
    Image.Resampling.BILINEAR: "bilinear",
    Image.Resampling.BICUBIC: "bicubic",
}
"""open_clip's names of the resampling filters of Pillow that are supported."""

MODEL_SOURCE_HELP = (
    "MODEL:TAG of open_clip, such as ViT-B-32-quickgelu:openai; hf-hub:OWNER/NAME or local-dir:"
    "FOLDER in open_clip's format; hf:OWNER/NAME or a folder of a CLIP or SigLIP of transformers; "
    f"a weight file ({', '.join(WEIGHT_SUFFIXES)})"
)
"""The forms that `ExternalModel.source` may have, as an error message lists them."""


@dataclass(frozen=True)
class ExternalModel:
    """A model that this project did not train, and how to load it.

    Attributes:
        source: The model, in a form that `MODEL_SOURCE_HELP` describes.
        architecture: open_clip's name of the architecture of a weight file. Checkpoints of
            `save_checkpoint` store it and do not need this.
        activation: "quickgelu" or "gelu"; None for the one that the source states. Weight files
            state none, except checkpoints of `save_checkpoint`, where another one is an error.
        weights_share: Share of a weight file in a mean with `OPENAI_WEIGHTS`; 1 is the file alone.
            Any other share needs an architecture and an activation.
        processor: For a model of transformers, the folder or hub repository of its tokenizer and
            preprocessing. None for the model's own; a CLIP with OpenAI's vocabulary that lacks one
            of the two gets OpenAI's.
    """

    source: str
    architecture: str | None = None
    activation: str | None = None
    weights_share: float = 1.0
    processor: str | None = None


def load_external(external: ExternalModel, device: str | torch.device = "cpu") -> Clip:
    """Load a model, and print its name, activation and number of tensors.

    Missing and unexpected weights are errors.
    """
    return model_loader(external, device)()


def model_loader(external: ExternalModel, device: str | torch.device = "cpu") -> Callable[[], Clip]:
    """Check the settings, and return a function that does what `load_external` does."""
    # A wrong source or setting and a missing file are errors here, before any weights are loaded.
    load = _loader(external, device)

    def load_and_tell() -> Clip:
        clip = load()
        n_tensors = len(clip.model.state_dict())
        print(
            f"{Path(external.source).name}: {clip.name}, activation {clip.activation}, "
            f"{n_tensors} tensors, none missing or left over",
            flush=True,
        )
        return clip

    return load_and_tell


def _loader(external: ExternalModel, device: str | torch.device) -> Callable[[], Clip]:
    source, activation = external.source, external.activation
    if activation not in (None, *ACTIVATIONS):
        raise ConfigError(f"unknown activation {activation!r}: expected one of {ACTIVATIONS}.")
    if external.weights_share != 1 and Path(source).suffix not in WEIGHT_SUFFIXES:
        raise ConfigError(
            f"weights_share={external.weights_share}: only a weight file is averaged, not {source}."
        )
    # Only a folder in open_clip's format has this file; any other is one of transformers.
    if Path(source).is_dir():
        kind = (
            "local-dir:" if Path(source, "open_clip_config.json").is_file() else TRANSFORMERS_PREFIX
        )
        source = f"{kind}{source}"
    if source.startswith(TRANSFORMERS_PREFIX):
        return partial(
            _load_from_transformers, source.removeprefix(TRANSFORMERS_PREFIX), external, device
        )
    if external.processor:
        raise ConfigError(f"{source} is no model of transformers: it takes no other processor.")
    if source.startswith(OPEN_CLIP_PREFIXES):
        return partial(_load_from_folder, source, activation, device)
    if Path(source).suffix in WEIGHT_SUFFIXES:
        meta, architecture = read_meta(source), external.architecture
        # A checkpoint of `save_checkpoint` states its architecture and activation.
        if meta is not None and external.weights_share == 1:
            return partial(load_clip, architecture or meta.model, source, activation, device)
        options = {
            "its architecture (--model, a name of open_clip such as ViT-B-32)": architecture,
            "its activation (--activation quickgelu for OpenAI's weights and their descendants, "
            "--activation gelu for others)": activation,
        }
        missing = [text for text, value in options.items() if value is None]
        if missing:
            raise ConfigError(
                f"{source} is a weight file that does not say {' and '.join(missing)}"
                f": give {'both' if len(missing) > 1 else 'it as well'}."
            )
        # Raises for an unknown architecture, before the file is read.
        model_config(architecture or "")
        return partial(_load_from_file, external, Path(source), device)
    name, colon, tag = source.rpartition(":")
    if not colon:
        raise ConfigError(f"no model {source!r}: expected {MODEL_SOURCE_HELP}.")
    model_config(name)
    # An activation that was asked for is meant, even if the weights had another one.
    return partial(
        load_clip, name, tag, activation, device, allow_activation_mismatch=activation is not None
    )


def _load_from_file(external: ExternalModel, path: Path, device: str | torch.device) -> Clip:
    state = read_state_dict(path, LORA_ALPHA)
    if external.weights_share != 1:
        # The authors of CLoVe evaluate a mean of OpenAI's weights and of those that they publish.
        start = load_clip(*OPENAI_WEIGHTS).model.state_dict()
        try:
            state = {
                name: value.float().lerp(
                    _truncate_like(start[name].float(), value), 1 - external.weights_share
                )
                for name, value in state.items()
            }
        except (KeyError, RuntimeError) as error:
            raise CheckpointError(
                f"{path} cannot be averaged with {OPENAI_WEIGHTS[0]}, OpenAI's weights: {error}"
            ) from error
    # `_loader` has checked that both are given.
    model, activation = external.architecture or "", external.activation or ""
    return build_with_state_dict(model, state, path, activation, device)


def _truncate_like(start: Tensor, like: Tensor) -> Tensor:
    """Cut a tensor of OpenAI's weights to the length of the file's, which may be shorter."""
    return start[: len(like)] if start.ndim and start.ndim == like.ndim else start


def _load_from_folder(source: str, activation: str | None, device: str | torch.device) -> Clip:
    """Load a folder or repository in open_clip's format; with GELU if it states no activation."""
    try:
        stated = open_clip.get_model_config(source).get("quick_gelu")
        quick = bool(stated) if activation is None else activation == "quickgelu"
        # Both arguments are needed to switch QuickGELU on and off (see `clip._build`). Without
        # `require_pretrained`, a folder without weights would give a random model.
        model, _, preprocess = open_clip.create_model_and_transforms(
            source,
            device=device,
            force_quick_gelu=quick,
            quick_gelu=quick,
            require_pretrained=True,
        )
        tokenizer = open_clip.get_tokenizer(source)
    except (*UNREADABLE_ERRORS, AttributeError) as error:
        raise CheckpointError(
            f"cannot read {source} as open_clip's: {error}. A model of transformers is given as "
            f"hf:OWNER/NAME or as its folder."
        ) from error
    require_finite(model.state_dict(), source)
    vocabulary = getattr(model, "text", model).vocab_size
    # The table of a model of open_clip may have more rows than its tokenizer has tokens.
    _check_vocabulary(tokenizer, vocabulary, source, spare=vocabulary // 2)
    read_with = "quickgelu" if quick else "gelu"
    if stated is not quick:
        print(f"{source}: its configuration has quick_gelu: {stated}; read with {read_with}")
    name = source.partition(":")[2].rstrip("/").rpartition("/")[2]
    return Clip(
        model.eval(),
        preprocess,
        tokenizer,
        name,
        read_with,
        image_height(model),
        state_digest(model),
    )


def _check_vocabulary(tokenizer: Any, vocabulary: int, source: str, spare: int = 0) -> None:
    """Raise CheckpointError unless a tokenizer has `vocabulary - spare` to `vocabulary` tokens."""
    simple = isinstance(tokenizer, SimpleTokenizer)
    n_tokens = tokenizer.vocab_size if simple else len(tokenizer.tokenizer)
    # Another tokenizer's ids would be valid, and stand for other words.
    if not vocabulary - spare <= n_tokens <= vocabulary:
        raise CheckpointError(
            f"{source}: the tokenizer has {n_tokens:,} tokens and the model {vocabulary:,}: texts "
            "would be read as others. Complete its files, or name, for a model of transformers, a "
            "folder or hub repository that has the right ones: --processor"
        )


def _load_from_transformers(
    source: str, external: ExternalModel, device: str | torch.device
) -> Clip:
    """Load a CLIP or SigLIP of transformers with its own modules, without conversion."""
    try:
        from transformers import AutoConfig, AutoModel
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{source} needs {error.name}, which is not installed: {install_command('hf')}"
        ) from error
    try:
        config = AutoConfig.from_pretrained(source)
        if not hasattr(config, "vision_config") or not hasattr(config, "text_config"):
            raise ValueError(f"it is a {config.model_type}, not a CLIP or SigLIP")
        if not hasattr(config.vision_config, "image_size"):
            raise ValueError(f"it is a {config.model_type}, whose images have no fixed size")
        stated = "quickgelu" if config.text_config.hidden_act == "quick_gelu" else "gelu"
        activation = external.activation or stated
        if activation != stated:
            for tower in (config.vision_config, config.text_config):
                tower.hidden_act = {"quickgelu": "quick_gelu"}.get(activation, activation)
        # Fused attention kernels have no second derivatives, so attention is "eager". Of missing
        # weights transformers only warns; the report lists them.
        model, report = AutoModel.from_pretrained(
            source, config=config, attn_implementation="eager", output_loading_info=True
        )
        tokenizer, preprocess = _processors(source, external.processor, config)
    except (*UNREADABLE_ERRORS, ImportError) as error:
        raise CheckpointError(
            f"cannot read {source} as a model of transformers: {error}. Expected config.json, "
            "weights, tokenizer and preprocessor_config.json of a CLIP or SigLIP."
        ) from error
    wrong = sorted([*report["missing_keys"], *report["unexpected_keys"]])
    if wrong:
        raise CheckpointError(
            f"{source} does not fit its configuration: {len(wrong)} tensors are missing or left "
            f"over, such as {wrong[0]}. Download it again."
        )
    require_finite(model.state_dict(), source)
    return Clip(
        model.eval().to(device),
        preprocess,
        tokenizer,
        Path(source).name,
        activation,
        config.vision_config.image_size,
        state_digest(model),
    )


def _processors(source: str, other: str | None, config: Any) -> tuple[Any, Callable[[Any], Tensor]]:
    """Return the tokenizer and preprocessing of `other`, or of the source if `other` is None.

    The preprocessing is open_clip's transforms with the settings in the files of transformers.
    """
    from transformers import AutoImageProcessor
    from transformers.utils.hub import has_file

    folder, text, size = other or source, config.text_config, config.vision_config.image_size
    # Only a CLIP with OpenAI's vocabulary can be read with OpenAI's tokenizer and preprocessing.
    openai = config.model_type == "clip" and text.vocab_size == CLIP_VOCABULARY_SIZE and not other
    lacks = [
        kind
        for kind, names in PROCESSOR_FILES.items()
        if openai and not any(has_file(source, name) for name in names)
    ]
    tokens = SimpleTokenizer if "tokenizer" in lacks else partial(HFTokenizer, folder)
    tokenizer = tokens(context_length=text.max_position_embeddings)
    _check_vocabulary(tokenizer, text.vocab_size, folder)
    settings = {}
    if "preprocessing" not in lacks:
        # Any: transformers types it by its backend, and not every version by the same.
        processor: Any = AutoImageProcessor.from_pretrained(folder, use_fast=False)
        mode = INTERPOLATION_NAMES.get(int(processor.resample))
        if mode is None:
            raise CheckpointError(
                f"the preprocessing resamples by {processor.resample!r}: "
                "expected bilinear or bicubic"
            )
        # CLIP scales the shorter side and crops the rest; SigLIP distorts an image to a square.
        crops = getattr(processor, "do_center_crop", False)
        settings = {
            "mean": tuple(processor.image_mean),
            "std": tuple(processor.image_std),
            "interpolation": mode,
            "resize_mode": "shortest" if crops else "squash",
        }
    if lacks:
        print(f"{source} has no {' and no '.join(lacks)}: OpenAI's is taken", flush=True)
    return tokenizer, image_transform_v2(PreprocessCfg(size=size, **settings), is_train=False)


def state_digest(model: nn.Module) -> str:
    """Return the SHA-256 of a model's state dict: name, dtype, shape and values of each tensor."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        # As bytes, since NumPy has no bfloat16. A 0-dimensional tensor cannot be viewed as bytes.
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
