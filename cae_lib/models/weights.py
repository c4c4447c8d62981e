"""Where the weights of a model come from, and what identifies them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from open_clip.pretrained import (
    download_pretrained,
    get_pretrained_cfg,
    list_pretrained_tags_by_model,
)

from cae_lib.config import cached_open_clip_weights
from cae_lib.errors import CheckpointError
from cae_lib.models.checkpoint import checkpoint_digest, read_meta
from cae_lib.models.clip import Clip, load_clip


@dataclass(frozen=True)
class Weights:
    """Where the weights of a model come from; they are read by `load`.

    Attributes:
        source: The `Path` of a file, such as a checkpoint of `save_checkpoint`; a `str`, the tag of
            pretrained weights of open_clip; or None for random weights.
        model: Name of the open_clip model; "" for that of a checkpoint.
        activation: "quickgelu" or "gelu"; "" for that of the checkpoint, the pretrained weights or,
            without any, of the model's configuration. Another one than that of the weights is an
            error.
    """

    source: Path | str | None
    model: str = ""
    activation: str = ""

    def digest(self) -> str:
        """Return the SHA-256 of a checkpoint, or of model, activation and weight file."""
        if isinstance(self.source, Path):
            return checkpoint_digest(self.source)
        if self.source is None:
            # The seed is always the same, so model and activation say which weights these are.
            start = "random"
        else:
            start = checkpoint_digest(fetch_pretrained_file(self.model, self.source))
        return hashlib.sha256(f"{self.model} {self.activation} {start}".encode()).hexdigest()

    def load(self, device: str | torch.device = "cpu") -> Clip:
        """Load the model with these weights."""
        model = self.model
        if isinstance(self.source, Path) and not model:
            meta = read_meta(self.source)
            if meta is None:
                raise CheckpointError(
                    f"{self.source} holds no meta data: write it with `cae train`"
                )
            model = meta.model
        return load_clip(model, self.source, self.activation, device)


def fetch_pretrained_file(model: str, tag: str) -> Path:
    """Return the path of pretrained weights of open_clip; download them if they are not cached."""
    config = get_pretrained_cfg(model, tag)
    if not config:
        known_tags = ", ".join(list_pretrained_tags_by_model(model)) or "none"
        raise CheckpointError(f"{model} has no weights {tag!r} in open_clip; it has: {known_tags}")
    repository = str(config.get("hf_hub", "")).rpartition("/")[0]
    try:
        # The cache first, because it needs no network.
        return cached_open_clip_weights(repository) or Path(download_pretrained(config))
    # The hub and urllib raise errors of many types.
    except Exception as error:
        raise CheckpointError(
            f"cannot get the weights {tag!r} of {model} ({error}). Fetch them where there is a "
            "network, and copy ~/.cache/huggingface/hub to this machine"
        ) from error
