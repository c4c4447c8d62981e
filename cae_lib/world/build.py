"""Build the synthetic scenes: all datasets in their official layouts, then the manifest."""

from __future__ import annotations

import hashlib
import json
import os
import textwrap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from cae_lib.config import paths
from cae_lib.data.similarity import FOLDER as SENTENCES
from cae_lib.errors import DataError
from cae_lib.runtime import Progress
from cae_lib.world import corpora
from cae_lib.world.benchmarks import BENCHMARKS, LEFT_OUT
from cae_lib.world.config import PRETRAIN, SIMILARITY, VERSION, WORLD, WorldConfig, world_config
from cae_lib.world.draw import IMAGE_SIZE, render
from cae_lib.world.grammar import describe
from cae_lib.world.layouts import Export
from cae_lib.world.scenes import scenes, text_generator

MANIFEST = "manifest.json"
FOLDERS = {WORLD: "", SIMILARITY: SENTENCES, PRETRAIN: "pretrain"}  # of each part


def build(profile: str, *, root: str | Path | None = None, pretrain: bool = False) -> Path:
    """Write the synthetic scenes of a profile to `world-<profile>`.

    A complete folder of the same configuration is kept; another one is replaced once the new one is
    complete.

    Args:
        profile: Name of the profile.
        root: Folder that the datasets go into; None stands for `data/raw`.
        pretrain: Whether to write the pretraining corpus, too, into the subfolder `pretrain/`.

    Returns:
        The folder of the datasets.
    """
    folder = Path(paths().raw if root is None else root) / f"world-{profile}"
    return build_world(world_config(profile), folder, pretrain)


def build_world(config: WorldConfig, target: Path, pretrain: bool = False) -> Path:
    """Write the synthetic scenes of a configuration into a folder; see `build`."""
    for part, name in FOLDERS.items():
        place = target / name
        if stored_key(place) == config.key(part) or (part == PRETRAIN and not pretrain):
            continue
        with replacing(place) as folder:
            _write(folder, config, part, f"{target.name}/{name}".rstrip("/"))
            corpus = target / FOLDERS[PRETRAIN]
            if part == WORLD and stored_key(corpus) == config.key(PRETRAIN):
                os.replace(corpus, folder / corpus.name)
    return target


def exports(config: WorldConfig, part: str = WORLD) -> Iterator[Export]:
    """Yield the datasets of a part, one at a time."""
    if part != WORLD:
        small = corpora.export_pretrain if part == PRETRAIN else corpora.export_similarity
        yield small(config)
        return
    for name, ask in BENCHMARKS.items():
        export = Export(name, left_out=LEFT_OUT.get(name, {}))
        ask(config, export)
        yield export.serialize()
    yield corpora.export_flickr30k(config)
    yield corpora.export_coco(config)
    n = {"coco": config.sizes.test, "flickr30k": config.sizes.flickr_test}
    yield Export("order", counts={name: size * config.sizes.captions for name, size in n.items()})


def contact_sheet(profile: str, path: str | Path, n: int = 24, columns: int = 6) -> None:
    """Write a sheet of `n` images of the test split, each with two captions."""
    config, font = world_config(profile), ImageFont.load_default(12)
    size = 2 * IMAGE_SIZE
    side, height = size + 10, size + 150
    sheet = Image.new("RGB", (min(columns, n) * side + 10, -(-n // columns) * height), "white")
    draw = ImageDraw.Draw(sheet)
    for index, scene in enumerate(scenes(config.scenes, "test", n)):
        x, y = 10 + index % columns * side, 10 + index // columns * height
        sheet.paste(render(scene).resize((size, size), Image.Resampling.BICUBIC), (x, y))
        rng = text_generator(config.scenes, "test", index)
        captions = (describe(scene, config.coco, rng).text for _ in range(2))
        texts = [textwrap.fill(text, 38) for text in captions]
        draw.multiline_text((x, y + size + 2), "\n".join(texts), "black", font)
    try:
        sheet.save(path)
    except (OSError, ValueError) as error:
        advice = "Name a .png file in a folder that you can write"
        raise DataError(f"{path}: cannot be written ({error}). {advice}") from error


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a new folder that replaces `target` when the block ends without an error."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as place:
            new, old = Path(place, "new"), Path(place, "old")
            new.mkdir()
            yield new
            if target.exists():
                os.replace(target, old)
            os.replace(new, target)
    except OSError as error:
        raise DataError(
            f"{error.filename or target}: cannot be written ({error.strerror or error}). Free some "
            "disk space (a world takes up to 200 MB) or make the folder writable, or set CAE_HOME "
            "to another folder, and run the same command again"
        ) from error


def stored_key(root: Path) -> str | None:
    """Return the key of the configuration that a folder was built with, None if incomplete."""
    try:
        return json.loads((root / MANIFEST).read_text(encoding="utf-8"))["key"]
    except (OSError, ValueError, LookupError, TypeError):
        return None


def write_sets(folder: Path, exports: Iterable[Export], label: str) -> Iterator[Export]:
    """Write datasets into a folder one by one, and yield each once it is written."""
    with Progress(0, label) as progress:
        for export in exports:
            progress.total += len(export.pictures) + len(export.texts)
            for path, content in (export.pictures | export.texts).items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                if isinstance(content, str):
                    (folder / path).write_text(content, encoding="utf-8", newline="")
                else:
                    content.write(folder / path)
                progress.update()
            yield export


def _write(folder: Path, config: WorldConfig, part: str, label: str) -> None:
    """Write a part into an empty folder; the manifest comes last and marks it as complete."""
    content: dict[str, Any] = {
        "key": config.key(part),
        "version": VERSION,
        "config": config.content(part),
        "counts": {},
        "left_out": {},
        "sha256": {},
        "pictures": 0,
    }
    for export in write_sets(folder, exports(config, part), label):
        content["pictures"] += len(export.pictures)
        content["counts"][export.name] = export.counts
        content["left_out"] |= {export.name: export.left_out} if export.left_out else {}
        content["sha256"] |= {
            path: hashlib.sha256(text.encode()).hexdigest() for path, text in export.texts.items()
        }
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8", newline="")
