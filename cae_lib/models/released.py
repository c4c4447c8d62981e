"""Models of others, by what people call them: tags and folders of open_clip, weight files, and CLIP
or SigLIP of Hugging Face."""

from __future__ import annotations

import hashlib
import math
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
from cae_lib.models.checkpoint import read_meta
from cae_lib.models.clip import (
    WEIGHT_SUFFIXES,
    Clip,
    build_with_state_dict,
    image_height,
    load_clip,
)
from cae_lib.models.weight_files import read_state_dict
from cae_lib.words.alignment import CLIP_VOCABULARY

OPEN_CLIP, HUGGING_FACE = ("hf-hub:", "local-dir:"), "hf:"
START = ("ViT-B-32", "openai")
"""The weights that most released models start from."""

FILES = {
    "tokenizer": ("tokenizer.json", "vocab.json", "tokenizer_config.json"),
    "preprocessing": ("preprocessor_config.json", "processor_config.json"),
}
"""Files of transformers, one of which a folder has that says how texts or pictures are read."""

RESAMPLING = {2: "bilinear", 3: "bicubic"}
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
    source, activation = released.source, released.activation
    if Path(source).is_dir():
        kind = "local-dir:" if Path(source, "open_clip_config.json").is_file() else HUGGING_FACE
        source = f"{kind}{source}"
    if source.startswith(HUGGING_FACE):
        return partial(_hugging_face, source.removeprefix(HUGGING_FACE), released, device)
    if released.processor:
        raise ConfigError(f"{source} is no model of transformers: it takes no other processor.")
    if source.startswith(OPEN_CLIP):
        return partial(_from_folder, source, activation, device)
    if Path(source).suffix in WEIGHT_SUFFIXES:
        meta = read_meta(source)
        if meta is not None and not (released.model and activation):  # one of ours says the rest
            return partial(load_clip, released.model or meta.model, source, activation, device)
        missing = [
            f"its {what} ({how})"
            for what, how, given in (
                ("architecture", "--model, a name of open_clip such as ViT-B-32", released.model),
                (
                    "activation",
                    "--activation quickgelu for OpenAI's weights and their descendants, "
                    "--activation gelu for others",
                    activation,
                ),
            )
            if given is None
        ]
        if missing:
            raise ConfigError(
                f"{source} is a weight file that does not say {' and '.join(missing)}"
                f": give {'both' if len(missing) > 1 else 'it as well'}."
            )
        return partial(_from_file, released, Path(source), device)
    name, colon, tag = source.rpartition(":")
    if not colon:
        raise ConfigError(f"no model {source!r}: expected {FORMS}.")
    return partial(
        load_clip, name, tag, activation, device, allow_activation_mismatch=activation is not None
    )  # asked for, so meant


def _from_file(released: Released, path: Path, device: str | torch.device) -> Clip:
    state = read_state_dict(path, released.alpha)
    if released.share != 1:
        start = load_clip(*START).model.state_dict()
        state = {
            name: value.float().lerp(_cut(start[name].float(), value), 1 - released.share)
            for name, value in state.items()
        }
    return build_with_state_dict(released.model, state, path, released.activation, device)


def _cut(start: Tensor, like: Tensor) -> Tensor:
    """OpenAI's tensor, of the positional embedding only those positions that the file has."""
    return start[: len(like)] if start.ndim and start.ndim == like.ndim else start


def _from_folder(source: str, activation: str | None, device: str | torch.device) -> Clip:
    """A folder or repository in open_clip's format, whose configuration states the activation."""
    try:
        stated = open_clip.get_model_config(source).get("quick_gelu")
        wanted = bool(stated) if activation is None else activation == "quickgelu"
        model, _, preprocess = open_clip.create_model_and_transforms(
            source, device=device, force_quick_gelu=wanted, quick_gelu=wanted
        )
        tokenizer = open_clip.get_tokenizer(source)
    except (OSError, RuntimeError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(
            f"cannot read {source} as open_clip's: {error}. A model of transformers is given as "
            f"hf:OWNER/NAME or as its folder."
        ) from error
    vocabulary = getattr(model, "text", model).vocab_size
    _check_vocabulary(tokenizer, vocabulary, source, spare=vocabulary // 2)
    chosen = "quickgelu" if wanted else "gelu"
    if stated is not wanted:
        print(f"{source}: its configuration has quick_gelu: {stated}; read with {chosen}")
    name = source.partition(":")[2].rstrip("/").rpartition("/")[2]
    return Clip(
        model.eval(),
        preprocess,
        tokenizer,
        name,
        chosen,
        image_height(model),
        state_digest(model),
    )


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
    from transformers import AutoConfig, AutoModel

    try:
        config = AutoConfig.from_pretrained(source)
        if not hasattr(config, "vision_config") or not hasattr(config, "text_config"):
            raise ValueError(f"it is a {config.model_type}, not a CLIP or SigLIP")
        own = "quickgelu" if config.text_config.hidden_act == "quick_gelu" else "gelu"
        activation = how.activation or own
        if activation != own:
            for tower in (config.vision_config, config.text_config):
                tower.hidden_act = {"quickgelu": "quick_gelu"}.get(activation, activation)
        model, report = AutoModel.from_pretrained(
            source, config=config, attn_implementation="eager", output_loading_info=True
        )
        tokenizer, preprocess = _processors(source, how.processor, config)
    except (OSError, ValueError, ImportError, KeyError) as error:
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
    """Tokenizer and preprocessing of `other` or the source; where a CLIP has none, OpenAI's."""
    from transformers import AutoImageProcessor
    from transformers.utils import has_file

    place, text, size = other or source, config.text_config, config.vision_config.image_size
    openai = config.model_type == "clip" and text.vocab_size == CLIP_VOCABULARY and not other
    lacks = [
        kind
        for kind, names in FILES.items()
        if openai and not any(has_file(source, name) for name in names)
    ]
    tokens = SimpleTokenizer if "tokenizer" in lacks else partial(HFTokenizer, place)
    tokenizer = tokens(context_length=text.max_position_embeddings)
    _check_vocabulary(tokenizer, text.vocab_size, place)
    settings = {}
    if "preprocessing" not in lacks:
        processor = AutoImageProcessor.from_pretrained(place, use_fast=False)
        mode = RESAMPLING.get(int(processor.resample))
        if mode is None:
            raise CheckpointError(
                f"the preprocessing resamples by {processor.resample!r}: "
                "expected bilinear or bicubic"
            )
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
    """SHA-256 of a model's weights by name."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


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
        if value.shape != before.shape:
            changed += 1
        elif not torch.equal(value, before):
            changed += 1
            if value.is_floating_point():
                square += float((value.double() - before.double()).square().sum())
        whole += float(before.double().square().sum())
    return changed, len(own), math.sqrt(square / whole) if whole else 0.0
