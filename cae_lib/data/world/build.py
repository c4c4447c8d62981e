"""Build the small world: all sets in their official layouts, with a manifest written last."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from cae_lib.data.similarity import FOLDER as SIMILARITY
from cae_lib.data.world.config import VERSION, WorldConfig, world_config
from cae_lib.data.world.export.aro import export_aro
from cae_lib.data.world.export.coco import export_coco
from cae_lib.data.world.export.crepe import export_crepe
from cae_lib.data.world.export.files import Export
from cae_lib.data.world.export.flickr30k import export_flickr30k
from cae_lib.data.world.export.pretrain import export_pretrain
from cae_lib.data.world.export.similarity import export_similarity
from cae_lib.data.world.export.sugarcrepe import export_sugarcrepe
from cae_lib.data.world.export.svo_probes import export_svo_probes
from cae_lib.data.world.export.valse import export_valse
from cae_lib.data.world.export.vl_checklist import export_vl_checklist
from cae_lib.data.world.export.winoground import export_winoground
from cae_lib.data.world.folder import (
    digest,
    manifest,
    replacing,
    stored_key,
    world_root,
    write_manifest,
)
from cae_lib.data.world.pool import picture_writer
from cae_lib.data.world.sheet import contact_sheet, relation_sheet

__all__ = ["build", "contact_sheet", "manifest", "relation_sheet", "world_root"]

PRETRAIN = "pretrain"
FEW = 1000
"""Below so many training pictures it does not pay to start further processes."""


def build(
    profile: str,
    *,
    root: str | Path | None = None,
    pretrain: bool = False,
    workers: int | None = None,
) -> Path:
    """Write the small world of a profile, unless it is there already.

    A folder of another configuration is replaced when the new one is complete; an interrupted
    build leaves the old folder and starts again. The files do not depend on `workers`.

    Args:
        profile: Name of a profile that has a small world.
        root: Folder to hold `world-<profile>`; by default the project's `data/raw`.
        pretrain: Also write the pretraining corpus, into the world's folder `pretrain/`.
        workers: Processes that draw; by default one a core, and one in all for small worlds.

    Returns:
        The world's folder.

    Raises:
        ConfigError: The profile has no small world.
        DataError: The folder cannot be written.
    """
    return build_world(world_config(profile), world_root(profile, root), pretrain, workers)


def build_world(
    config: WorldConfig, target: Path, pretrain: bool = False, workers: int | None = None
) -> Path:
    """Write the world of a configuration into a folder; see `build`."""
    if workers is None:
        workers = 1 if config.sizes.train < FEW else os.cpu_count() or 1
    if stored_key(target) != config.key():
        with replacing(target) as folder:
            _write(folder, _exports(config), target.name, workers, config.key(), config.content())
            if stored_key(target / PRETRAIN) == config.pretrain_key():
                os.replace(target / PRETRAIN, folder / PRETRAIN)
    sentences = target / SIMILARITY
    if stored_key(sentences) != config.similarity_key():
        with replacing(sentences) as folder:
            label = f"{target.name}/{SIMILARITY}"
            key, content = config.similarity_key(), config.similarity_content()
            _write(folder, iter([export_similarity(config)]), label, 0, key, content)
    corpus = target / PRETRAIN
    if pretrain and stored_key(corpus) != config.pretrain_key():
        with replacing(corpus) as folder:
            label = f"{target.name}/{PRETRAIN}"
            key, content = config.pretrain_key(), config.pretrain_content()
            _write(folder, iter([export_pretrain(config)]), label, workers, key, content)
    return target


def _exports(config: WorldConfig) -> Iterator[Export]:
    """All sets but the pretraining corpus, one at a time, those quickly prepared first."""
    for export in (export_winoground, export_svo_probes, export_vl_checklist, export_sugarcrepe,
                   export_aro, export_crepe):  # fmt: skip
        yield export(config)
    flickr30k = export_flickr30k(config)
    yield flickr30k
    coco, test = export_coco(config)
    yield coco
    yield export_valse(config, test)
    corpora = {"coco": coco, "flickr30k": flickr30k}
    order = {name: export.counts["test"]["captions"] for name, export in corpora.items()}
    yield Export("order", counts=order)


def _write(
    folder: Path,
    exports: Iterator[Export],
    label: str,
    workers: int,
    key: str,
    config: dict[str, Any],
) -> None:
    """Write sets into an empty folder, the manifest last; with 0 workers they have no pictures."""
    found: dict[str, Any] = {"counts": {}, "left_out": {}, "sha256": {}, "pictures": 0}
    drawing = picture_writer(folder, label, workers) if workers else nullcontext()
    with drawing as writer:
        for export in exports:
            if writer is not None:
                writer.add(export.pictures)
            for path, text in export.texts.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_text(text, encoding="utf-8", newline="")
                found["sha256"][path] = digest(text)
            found["counts"][export.name] = export.counts
            found["pictures"] += len(export.pictures)
            if export.left_out:
                found["left_out"][export.name] = export.left_out
        if writer is not None:
            writer.finish()
    write_manifest(folder, {"key": key, "version": VERSION, "config": config, **found})
