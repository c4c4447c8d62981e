"""Real captions in batches, with tokens and roles, for what the scripts here measure."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cae_lib.config import paths
from cae_lib.data.captions import load_negclip_tsv
from cae_lib.data.training_set import default_tagger
from cae_lib.errors import DataError
from cae_lib.models.clip import Clip
from cae_lib.words.alignment import align

REAL = "valid_neg_clip.tsv"
WORLD = "world-mini/coco/train_neg_clip.tsv"


@dataclass(frozen=True)
class Batch:
    """Pictures `(B, 3, S, S)` of noise, and tokens and roles `(B, context_length)`."""

    images: Tensor
    tokens: Tensor
    roles: Tensor

    @property
    def lengths(self) -> list[int]:
        """Tokens of each caption, start and end token included."""
        return (self.tokens.argmax(dim=1) + 1).tolist()

    def first(self, n: int) -> Batch:
        """Return the first n pairs."""
        return Batch(self.images[:n], self.tokens[:n], self.roles[:n])


def captions_file(given: str | None) -> Path:
    """Find the named file, else NegCLIP's in `CAE_REAL_DATA`, else the synthetic captions.

    Raises:
        DataError: There is none.
    """
    real = Path(os.environ.get("CAE_REAL_DATA", "")) / REAL
    candidates = [Path(given)] if given else [real, paths().raw / WORLD]
    for path in candidates:
        if path.is_file():
            return path
    raise DataError(
        f"no captions: {' and '.join(map(str, candidates))} not found. Pass --captions FILE, a "
        "tab separated file of NegCLIP, or build the synthetic scenes with `python -m "
        "data.recipes.synthetic_scenes.build`."
    )


def batches(
    path: Path, clip: Clip, n: int, size: int, seed: int, device: torch.device
) -> list[Batch]:
    """Draw n batches of different captions by `seed`; their images are the same noise.

    Raises:
        DataError: the file has too few captions.
    """
    known = list(dict.fromkeys(load_negclip_tsv(path, path.parent, missing="ignore").captions))
    if len(known) < n * size:
        raise DataError(f"{path}: {len(known)} different captions, expected at least {n * size}.")
    generator = torch.Generator().manual_seed(seed)
    chosen = [known[i] for i in torch.randperm(len(known), generator=generator)[: n * size]]
    marked = align(chosen, default_tagger().tag(chosen), clip.tokenizer)
    side = clip.image_size
    images = torch.randn(size, 3, side, side, generator=generator).to(device)
    tokens, roles = marked.tokens.to(device), marked.roles.to(device)
    rows = [slice(i * size, (i + 1) * size) for i in range(n)]
    return [Batch(images, tokens[row], roles[row]) for row in rows]


def digest(path: Path) -> str:
    """First 12 hexadecimal digits of the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
