"""Write the datasets of a profile of photographs, made from Flickr8k, in official layouts.

python -m data.recipes.photographs.build --profile paired
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cae_lab.cli import run_reporting_errors
from cae_lab.profiles import load_profile
from cae_lib.config import paths
from cae_lib.data.captions import ImageCaptionPairs, load_negclip_tsv
from cae_lib.models.clip import load_clip
from cae_lib.runtime import pick_device
from data.recipes import layouts
from data.recipes.datasets import MANIFEST, replacing, stored_key, write_datasets
from data.recipes.photographs import flickr8k
from data.recipes.photographs.paired import Paired, Redrawn
from data.recipes.photographs.single import Single
from data.recipes.photographs.trunk import fill_trunk, trunk_features

MODEL = "clip-photo"
N_SIMILAR = 3
RECIPES: Mapping[str, type[Single | Paired]] = {
    "photo": Single,
    "paired": Paired,
    "redrawn": Redrawn,
}
"""What makes the datasets of each profile of photographs."""


def build(profile: str) -> Path:
    """Write the datasets of a profile of photographs unless they exist; return their folder."""
    target, source, recipe = load_profile(profile).root, paths().raw / "flickr8k", RECIPES[profile]
    splits = flickr8k.load(source)
    # The captions are the key, and not the images, which are large and do not change.
    content = [recipe.VERSION, [[p.path, *p.captions] for s in splits.values() for p in s]]
    key = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]
    if stored_key(target) == key:
        return target
    with replacing(target) as folder:
        photographs = recipe(splits, source / flickr8k.IMAGES)
        # The number of repeated phrases in the manifest is known once all is written.
        written = write_datasets(folder, photographs.datasets(), profile)
        counts = {dataset.name: dataset.counts for dataset in written}
        add_similar_images(folder)
        manifest = photographs.manifest(key, counts) + "\n"
        (folder / MANIFEST).write_text(manifest, encoding="utf-8", newline="")
    return target


def add_similar_images(folder: Path) -> None:
    """Add to NegCLIP's training file the images that look alike to the image network."""
    # Last, because the images have to be in the folder.
    path = folder / "coco" / "train_neg_clip.tsv"
    pairs = load_negclip_tsv(path, folder)
    clip = load_clip(MODEL, device=pick_device())
    fill_trunk(clip.model)
    similar = similar_rows(pairs, trunk_features(clip, pairs.image_paths))
    names = [pairs.image_paths[i].relative_to(folder).as_posix() for i in pairs.image_index]
    rows = list(zip(pairs.captions, names, pairs.negatives or [], similar, strict=True))
    path.write_text(layouts.negclip(rows), encoding="utf-8", newline="")


def similar_rows(pairs: ImageCaptionPairs, features: Tensor) -> list[list[int]]:
    """Return rows with the `N_SIMILAR` images most similar to that of each row, as in NegCLIP.

    `features` are the normalised ones of `pairs.image_paths` `(N, E)`.
    """
    rows_of: list[list[int]] = [[] for _ in pairs.image_paths]
    for row, image in enumerate(pairs.image_index.tolist()):
        rows_of[image].append(row)
    nearest = nearest_rows(features, min(N_SIMILAR, len(features) - 1))
    # Selects a caption of each similar image.
    rng = np.random.default_rng([0, len(features)])
    return [
        [rows_of[other][rng.integers(len(rows_of[other]))] for other in nearest[image]]
        for image in pairs.image_index.tolist()
    ]


def nearest_rows(features: Tensor, count: int, chunk: int = 1024) -> list[list[int]]:
    """Return the `count` rows most similar to each row, the row itself left out."""
    nearest: list[list[int]] = []
    for start in range(0, len(features), chunk):
        # (chunk, N), since N x N need not fit into memory
        similarity = features[start : start + chunk] @ features.T
        rows = torch.arange(len(similarity))
        similarity[rows, start + rows] = -torch.inf
        nearest += similarity.topk(count).indices.tolist()
    return nearest


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the datasets of a profile and return the exit code."""
    parser = argparse.ArgumentParser(description="Make datasets of the photographs of Flickr8k.")
    parser.add_argument("--profile", choices=RECIPES, default="photo")
    parsed = parser.parse_args(arguments)

    def run() -> None:
        print(f"The datasets of photographs are {build(parsed.profile)}")

    command = f"python -m data.recipes.photographs.build --profile {parsed.profile}"
    return run_reporting_errors(run, command)


if __name__ == "__main__":
    sys.exit(main())
