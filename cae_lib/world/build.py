"""Build the small world: all sets in their official layouts, with a manifest written last."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import (
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    as_completed,
)
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from cae_lib.config import paths
from cae_lib.data.similarity import FOLDER as SENTENCES
from cae_lib.errors import DataError
from cae_lib.runtime import Progress, end_with_parent, write_atomic
from cae_lib.world import benchmarks
from cae_lib.world.config import PRETRAIN, SIMILARITY, VERSION, WORLD, WorldConfig, world_config
from cae_lib.world.corpora import export_coco, export_flickr30k, export_pretrain
from cae_lib.world.draw import IMAGE_SIZE, render
from cae_lib.world.export import Export, Picture
from cae_lib.world.grammar import captions
from cae_lib.world.scenes import scenes, text_generator
from cae_lib.world.similarity import export_similarity

MANIFEST = "manifest.json"
FOLDERS = {WORLD: "", SIMILARITY: SENTENCES, PRETRAIN: "pretrain"}
"""Folder of each part in the world's folder."""

FEW = 1000
"""Below so many training pictures it does not pay to start further processes."""

BATCH = 64
"""Pictures that one process draws at a time."""


def world_root(profile: str, root: str | Path | None = None) -> Path:
    """Folder of a profile's small world, built or not.

    Args:
        profile: Name of a profile that has a small world.
        root: Folder that holds it; by default the project's `data/raw`.

    Raises:
        ConfigError: The profile has no small world.
    """
    world_config(profile)
    return Path(paths().raw if root is None else root) / f"world-{profile}"


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
    for part, name in FOLDERS.items():
        place = target / name
        asked = pretrain or part != PRETRAIN
        if not asked or _stored_key(place) == config.key(part):
            continue
        with replacing(place) as folder:
            _write(folder, config, part, f"{target.name}/{name}".rstrip("/"), workers)
            corpus = target / FOLDERS[PRETRAIN]
            if part == WORLD and _stored_key(corpus) == config.key(PRETRAIN):
                os.replace(corpus, folder / corpus.name)
    return target


def exports(config: WorldConfig, part: str = WORLD) -> Iterator[Export]:
    """The sets of a part, one at a time, those quickly prepared first."""
    if part != WORLD:
        yield export_pretrain(config) if part == PRETRAIN else export_similarity(config)
        return
    yield benchmarks.export_winoground(config)
    yield benchmarks.export_svo_probes(config)
    yield benchmarks.export_vl_checklist(config)
    yield benchmarks.export_sugarcrepe(config)
    yield benchmarks.export_aro(config)
    yield benchmarks.export_crepe(config)
    flickr30k = export_flickr30k(config)
    yield flickr30k
    coco, test = export_coco(config)
    yield coco
    yield benchmarks.export_valse(config, test)
    order = {each.name: each.counts["test"]["captions"] for each in (coco, flickr30k)}
    yield Export("order", counts=order)


def manifest(root: str | Path) -> dict[str, Any]:
    """The manifest of a built world (or of its `pretrain/`): configuration, counts, digests.

    `counts` has for each benchmark the number of items of each part, as its loader expects them.

    Raises:
        DataError: There is none, or it cannot be read; the message names the command to build it.
    """
    path = Path(root) / MANIFEST
    command = f"cae world build --profile {Path(root).name.removeprefix('world-')}"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path}: the small world is not built here; run `{command}`") from error
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read ({error}). Remove the folder and run `{command}`"
        ) from error


def contact_sheet(profile: str, path: str | Path, n: int = 24, columns: int = 6) -> Path:
    """Write a sheet of `n` pictures of the test split, each with two captions.

    The world need not be built.

    Raises:
        ConfigError: The profile has no small world.
        DataError: The file cannot be written.
    """
    config = world_config(profile)
    side, height = 2 * IMAGE_SIZE + 10, 2 * IMAGE_SIZE + 150
    sheet = Image.new("RGB", (min(columns, n) * side + 10, -(-n // columns) * height), "white")
    draw = ImageDraw.Draw(sheet)
    for index, scene in enumerate(islice(scenes(config.scenes, "test"), n)):
        x, y = 10 + index % columns * side, 10 + index // columns * height
        enlarged = render(scene).resize((2 * IMAGE_SIZE,) * 2, Image.Resampling.BICUBIC)
        sheet.paste(enlarged, (x, y))
        rng = text_generator(config.scenes, "test", index)
        texts = [textwrap.fill(c.text, 38) for c in captions(scene, config.coco, rng, 2)]
        place = (x, y + 2 * IMAGE_SIZE + 2)
        draw.multiline_text(place, "\n".join(texts), "black", ImageFont.load_default(12))
    try:
        sheet.save(path)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be written ({error}). Name a .png file in a folder that you can write"
        ) from error
    return Path(path)


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A new folder that takes the place of `target` when the block ends without an error.

    After an error or an interrupt the new folder is removed and `target` is as before.

    Raises:
        DataError: The folder cannot be written; the message says what to do.
    """
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


def _stored_key(root: Path) -> str | None:
    """Key of the configuration that a folder was built with; None when it is not complete."""
    try:
        return manifest(root).get("key")
    except (DataError, AttributeError):
        return None


def _write(folder: Path, config: WorldConfig, part: str, label: str, workers: int) -> None:
    """Write a part into an empty folder, the manifest last, whose presence says it is complete."""
    found: dict[str, Any] = {"key": config.key(part), "version": VERSION}
    found["config"] = config.content(part)
    found |= {"counts": {}, "left_out": {}, "sha256": {}, "pictures": 0}
    with Progress(0, label) as progress, _executor(folder, workers) as executor:
        running: list[Future[int]] = []

        def count(futures: Iterable[Future[int]]) -> None:
            for future in futures:
                progress.update(future.result())
                running.remove(future)

        for export in exports(config, part):
            progress.total += len(export.pictures) + len(export.texts)
            paths = (*export.texts, *(picture.path for picture in export.pictures))
            for place in {(folder / path).parent for path in paths}:
                place.mkdir(parents=True, exist_ok=True)
            for start in range(0, len(export.pictures), BATCH):
                batch = export.pictures[start : start + BATCH]
                running.append(executor.submit(_draw, folder, batch))
            for path, text in export.texts.items():
                (folder / path).write_text(text, encoding="utf-8", newline="")
                found["sha256"][path] = hashlib.sha256(text.encode()).hexdigest()
            progress.update(len(export.texts))
            found["counts"][export.name] = export.counts
            found["pictures"] += len(export.pictures)
            if export.left_out:
                found["left_out"][export.name] = export.left_out
            count([future for future in running if future.done()])
        count(as_completed(list(running)))
    text = json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    write_atomic(folder / MANIFEST, text)


@contextmanager
def _executor(root: Path, workers: int) -> Iterator[Executor]:
    """Draws while the next set is prepared: in a thread, or in several processes.

    Raises:
        DataError: A process that draws was killed.
    """
    if workers == 1:
        executor: Executor = ThreadPoolExecutor(1)
    else:
        method = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
        context = multiprocessing.get_context(method)
        executor = ProcessPoolExecutor(workers, context, initializer=_follow_parent)
    try:
        yield executor
    except BrokenProcessPool as error:
        raise DataError(
            f"{root}: a process that draws was killed, perhaps for want of memory. "
            "Run the same command again, in one process with workers=1"
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


def _draw(root: Path, pictures: Sequence[Picture]) -> int:
    for picture in pictures:
        picture.write(root)
    return len(pictures)


def _follow_parent() -> None:
    """Leave interrupts to the parent, and end with it even if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
