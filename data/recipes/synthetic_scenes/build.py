"""Build the synthetic scenes: all datasets in their official layouts, then the manifest.

python -m data.recipes.synthetic_scenes.build --profile mini
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from cae_bench.similarity import SENTEVAL_FOLDER
from cae_lab.cli import run_reporting_errors
from cae_lib.config import paths
from data.recipes.datasets import MANIFEST, Dataset, replacing, stored_key, write_datasets
from data.recipes.synthetic_scenes import benchmarks, boxed, corpora
from data.recipes.synthetic_scenes.config import (
    PRETRAIN,
    SIMILARITY,
    VERSION,
    WORLD,
    WorldConfig,
    world_config,
)

FOLDERS = {WORLD: "", SIMILARITY: SENTEVAL_FOLDER, PRETRAIN: "pretrain"}  # of each part
RECIPES: dict[str, tuple[Callable[[WorldConfig], Dataset], ...]] = {
    WORLD: (
        benchmarks.winoground,
        benchmarks.svo_probes,
        benchmarks.vl_checklist,
        benchmarks.sugarcrepe,
        boxed.aro,
        boxed.crepe,
        benchmarks.valse,
        benchmarks.sugarcrepe_pp,
        benchmarks.half_truths,
        corpora.export_flickr30k,
        corpora.export_coco,
        corpora.export_order,
    ),
    SIMILARITY: (corpora.export_similarity,),
    PRETRAIN: (corpora.export_pretrain,),
}


def build(profile: str, *, root: str | Path | None = None, pretrain: bool = False) -> Path:
    """Write the synthetic scenes of a profile into `root`, and return their folder.

    `root` is `data/raw` by default; `pretrain` adds the pretraining corpus.
    """
    folder = Path(paths().raw if root is None else root) / f"world-{profile}"
    return build_world(world_config(profile), folder, pretrain)


def build_world(config: WorldConfig, target: Path, pretrain: bool = False) -> Path:
    """Write the synthetic scenes of a configuration into a folder, and return the folder."""
    for part, name in FOLDERS.items():
        part_folder = target / name
        # A complete part of the same configuration is kept.
        if stored_key(part_folder) == config.key(part) or (part == PRETRAIN and not pretrain):
            continue
        with replacing(part_folder) as folder:
            _write(folder, config, part, f"{target.name}/{name}".rstrip("/"))
            # The corpus lies in the folder that is replaced; if it is current, it moves.
            corpus = target / FOLDERS[PRETRAIN]
            if part == WORLD and stored_key(corpus) == config.key(PRETRAIN):
                os.replace(corpus, folder / corpus.name)
    return target


def make_datasets(config: WorldConfig, part: str = WORLD) -> Iterator[Dataset]:
    """Yield the datasets of a part."""
    return (recipe(config) for recipe in RECIPES[part])


def _write(folder: Path, config: WorldConfig, part: str, label: str) -> None:
    """Write a part into an empty folder; the manifest comes last and marks it as complete."""
    manifest: dict[str, Any] = {
        "key": config.key(part),
        "version": VERSION,
        "config": config.content(part),
        "counts": {},
        "left_out": {},
        "sha256": {},
        "pictures": 0,
    }
    for dataset in write_datasets(folder, make_datasets(config, part), label):
        manifest["pictures"] += len(dataset.images)
        manifest["counts"][dataset.name] = dataset.counts
        manifest["left_out"] |= {dataset.name: dataset.left_out} if dataset.left_out else {}
        for path, text in dataset.texts.items():
            manifest["sha256"][path] = hashlib.sha256(text.encode()).hexdigest()
    text = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8", newline="")


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the datasets of a profile and return the exit code."""
    parser = argparse.ArgumentParser(description="Draw the synthetic scenes of a profile.")
    parser.add_argument("--profile", default="mini")
    parsed = parser.parse_args(arguments)

    def run() -> None:
        print(f"The synthetic scenes are {build(parsed.profile)}")

    command = f"python -m data.recipes.synthetic_scenes.build --profile {parsed.profile}"
    return run_reporting_errors(run, command)


if __name__ == "__main__":
    sys.exit(main())
