"""Data of a rehearsal: a few drawn scenes in official layouts, and random weights as OpenAI's."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from cae_lab.names import CLIP_FT
from cae_lab.runs import Profile
from cae_lib.config import paths
from cae_lib.errors import DataError
from cae_lib.models.clip import load_clip
from cae_lib.models.weight_files import OPENAI_SIZE_ENTRIES
from data.recipes.datasets import MANIFEST
from data.recipes.synthetic_scenes.build import build_world
from data.recipes.synthetic_scenes.config import Sizes, WorldConfig

SETS = WorldConfig(
    sizes=Sizes(
        train=24,
        val=8,
        test=4,
        flickr_test=4,
        captions=2,
        aro_relation=6,
        aro_attribution=6,
        winoground=3,
        sugarcrepe=3,
        vl_checklist=2,
        valse=3,
        svo_probes=2,
        half_truths=3,
        crepe=6,
        similarity=8,
    )
)
"""So few items of each dataset that a ViT-B/32 measures all of them on a CPU in seconds."""

SEED = 7
"""Of the random weights."""


def lay_out(profile: Profile, real: Path | None = None) -> None:
    """Write datasets and weights into `data/raw`, unless they are there.

    Links to the files of `real`, a folder laid out as `data/raw`, take the place of drawn ones.
    """
    if real and not real.is_dir():
        raise DataError(f"real={real}: no such folder; expected one laid out as data/raw")
    raw = paths().raw
    if not raw.is_dir():
        made = build_world(SETS, paths().root / "sets")
        # A manifest would say that these are synthetic scenes.
        for manifest in made.rglob(MANIFEST):
            manifest.unlink()
        raw.parent.mkdir(parents=True, exist_ok=True)
        # last, so that an interrupted call begins anew
        made.rename(raw)
    model = profile.experiment(CLIP_FT).model
    archive = raw / "weights" / "openai" / f"{model}.pt"
    if not archive.is_file():
        write_archive(load_clip(model, activation="quickgelu", seed=SEED).model, archive)
    if real:
        link(real.resolve(), raw)


def write_archive(model: nn.Module, path: Path) -> None:
    """Write a model as OpenAI's files are: TorchScript, float16, with `OPENAI_SIZE_ENTRIES`."""

    # TorchScript wants a module for each part of a parameter's name, and a forward to trace.
    class Holder(nn.Module):
        def forward(self, values: Tensor) -> Tensor:
            return values

    root = Holder()
    for name, value in model.state_dict().items():
        *parents, last = name.split(".")
        module: nn.Module = root
        for parent in parents:
            if parent not in dict(module.named_children()):
                module.add_module(parent, Holder())
            module = getattr(module, parent)
        half = value.half() if value.is_floating_point() else value
        module.register_parameter(last, nn.Parameter(half, requires_grad=False))
    for name, size in OPENAI_SIZE_ENTRIES.items():
        root.register_buffer(name, torch.tensor(size))
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.jit.save(torch.jit.trace(root, torch.zeros(1)), str(path))


def link(source: Path, target: Path) -> None:
    """Put links to the files of a folder in the place of those of the same names in another."""
    for path in sorted(source.iterdir()):
        place = target / path.name
        # Where both are folders, the drawn files that `source` does not have stay.
        if path.is_dir() and place.is_dir() and not place.is_symlink():
            link(path, place)
            continue
        if place.is_symlink() or place.is_file():
            place.unlink()
        place.symlink_to(path, target_is_directory=path.is_dir())
