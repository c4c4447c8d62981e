"""Weights that something is measured on: a checkpoint, a tag of open_clip, or random ones."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from open_clip.pretrained import download_pretrained, get_pretrained_cfg

from cae_lib.data.completeness import open_clip_file
from cae_lib.errors import CheckpointError
from cae_lib.models.checkpoint import file_digest, read_meta
from cae_lib.models.clip import Clip, load_clip


@dataclass(frozen=True)
class Weights:
    """Where weights come from.

    Attributes:
        source: A checkpoint of `save_checkpoint`, a tag of open_clip, or None for random weights.
        model: open_clip model name; a checkpoint names its own.
        activation: "quickgelu" or "gelu"; that of a checkpoint is its own.
    """

    source: Path | str | None
    model: str = ""
    activation: str = ""

    def digest(self) -> str:
        """SHA-256 of the weight file; of random weights that of what decides them.

        Raises:
            CheckpointError: The file is missing, or cannot be downloaded.
        """
        if isinstance(self.source, Path):
            return file_digest(self.source)
        known = "random" if self.source is None else file_digest(tag_file(self.model, self.source))
        text = f"{self.model} {self.activation} {known}"
        return hashlib.sha256(text.encode()).hexdigest()

    def load(self, device: str | torch.device = "cpu") -> Clip:
        """The model with these weights.

        Raises:
            CheckpointError: The weights are missing, broken, or do not say what they are.
        """
        if not isinstance(self.source, Path):
            return load_clip(self.model, self.source, self.activation, device)
        meta = read_meta(self.source)
        if meta is None:
            raise CheckpointError(f"{self.source} holds no meta data: write it with `cae train`")
        return load_clip(meta.model, self.source, device=device)


def tag_file(model: str, tag: str) -> Path:
    """The file of a tag in open_clip's cache, downloaded if it is not there.

    Raises:
        CheckpointError: It cannot be had.
    """
    config = get_pretrained_cfg(model, tag)
    repository = str(config.get("hf_hub", "")).rpartition("/")[0]
    found = open_clip_file(repository)
    if found is not None:
        return found
    try:
        return Path(download_pretrained(config))
    except Exception as error:  # whatever the hub's and urllib's errors are
        raise CheckpointError(
            f"cannot get the weights {tag!r} of {model} ({error}). Fetch them where there is a "
            "network, and copy ~/.cache/huggingface/hub to this machine"
        ) from error
