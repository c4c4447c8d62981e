"""Write the datasets of a profile of photographs, made from Flickr8k, in official layouts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from cae_lib.config import paths
from cae_lib.data.captions import load_negclip_tsv
from cae_lib.data.negatives import similar_rows
from cae_lib.models.clip import load_clip
from cae_lib.photo import flickr8k
from cae_lib.photo.choices import Choices
from cae_lib.photo.paired import Paired
from cae_lib.photo.trunk import fill_trunk, trunk_features
from cae_lib.profiles import find_profile
from cae_lib.runtime import pick_device
from cae_lib.world import layouts
from cae_lib.world.build import MANIFEST, replacing, stored_key, write_sets

MODEL = "clip-photo"
SETS: Mapping[str, type[Choices | Paired]] = {"photo": Choices, "paired": Paired}
"""What makes the sets of each profile of photographs."""


def build(profile: str) -> Path:
    """Write the datasets of a profile of photographs, unless they are there already.

    Returns:
        Their folder.

    Raises:
        DataError: If Flickr8k is not in `data/raw/flickr8k`, or the folder cannot be written.
    """
    target, source, kind = find_profile(profile).root, paths().raw / "flickr8k", SETS[profile]
    splits = flickr8k.load(source)
    content = [kind.VERSION, [[p.path, *p.captions] for s in splits.values() for p in s]]
    key = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]
    if stored_key(target) == key:
        return target
    with replacing(target) as folder:
        sets = kind(splits, source / flickr8k.PICTURES)
        counts = {
            export.name: export.counts
            for export in write_sets(folder, sets.exports(), f"sets of {profile}")
        }
        name_similar(folder)
        manifest = sets.manifest(key, counts) + "\n"
        (folder / MANIFEST).write_text(manifest, encoding="utf-8", newline="")
    return target


def name_similar(folder: Path) -> None:
    """Add to NegCLIP's training file the images that look alike to the image network."""
    path = folder / "coco" / "train_neg_clip.tsv"
    pairs = load_negclip_tsv(path, folder)
    clip = load_clip(MODEL, device=pick_device())
    fill_trunk(clip.model)
    similar = similar_rows(pairs, trunk_features(clip, pairs.image_paths))
    names = [pairs.image_paths[i].relative_to(folder).as_posix() for i in pairs.image_index]
    rows = list(zip(pairs.captions, names, pairs.negatives or [], similar, strict=True))
    path.write_text(layouts.negclip(rows), encoding="utf-8", newline="")
