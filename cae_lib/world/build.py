"""Build the small world: all sets in their official layouts, with a manifest written last.

The manifest holds the configuration and its key, digests, and the counts that loaders expect.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import textwrap
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from cae_lib.config import paths
from cae_lib.data.layouts import Export
from cae_lib.data.similarity import FOLDER as SENTENCES
from cae_lib.errors import DataError
from cae_lib.runtime import Progress, end_with_parent
from cae_lib.world.benchmarks import BENCHMARKS, export_benchmark
from cae_lib.world.config import PRETRAIN, SIMILARITY, VERSION, WORLD, WorldConfig, world_config
from cae_lib.world.corpora import export_coco, export_flickr30k, export_pretrain
from cae_lib.world.draw import IMAGE_SIZE, Picture, render
from cae_lib.world.grammar import captions
from cae_lib.world.scenes import scenes, text_generator
from cae_lib.world.similarity import export_similarity

MANIFEST = "manifest.json"
FOLDERS = {WORLD: "", SIMILARITY: SENTENCES, PRETRAIN: "pretrain"}  # of each part
FEW = 1000  # below so many training pictures it does not pay to start further processes
BATCH = 64  # pictures that one process draws at a time


def build(
    profile: str, *, root: str | Path | None = None, pretrain: bool = False,
    workers: int | None = None,
) -> Path:
    """Write the small world of a profile, unless it is there already, and return its folder.

    A folder of another configuration is replaced when the new one is complete; an interrupted
    build leaves the old folder and starts again. The files do not depend on `workers`.

    Args:
        profile: Name of a profile that has a small world.
        root: Folder to hold `world-<profile>`; by default the project's `data/raw`.
        pretrain: Also write the pretraining corpus, into the world's folder `pretrain/`.
        workers: Processes that draw; by default one a core, and one in all for small worlds.

    Raises:
        ConfigError: The profile has no small world.
        DataError: The folder cannot be written.
    """
    config = world_config(profile)
    folder = Path(paths().raw if root is None else root) / f"world-{profile}"
    return build_world(config, folder, pretrain, workers)


def build_world(
    config: WorldConfig, target: Path, pretrain: bool = False, workers: int | None = None
) -> Path:
    """Write the world of a configuration into a folder; see `build`."""
    if workers is None:
        workers = 1 if config.sizes.train < FEW else os.cpu_count() or 1
    for part, name in FOLDERS.items():
        place = target / name
        if _stored_key(place) == config.key(part) or (part == PRETRAIN and not pretrain):
            continue
        with _replacing(place) as folder:
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
    for name in BENCHMARKS:
        yield export_benchmark(name, config)
    yield export_flickr30k(config)
    yield export_coco(config)
    n = {"coco": config.sizes.test, "flickr30k": config.sizes.flickr_test}
    yield Export("order", counts={name: size * config.sizes.captions for name, size in n.items()})


def contact_sheet(profile: str, path: str | Path, n: int = 24, columns: int = 6) -> Path:
    """Write a sheet of `n` pictures of the test split, each with two captions.

    The world need not be built.

    Raises:
        ConfigError: The profile has no small world.
        DataError: The file cannot be written.
    """
    config, font = world_config(profile), ImageFont.load_default(12)
    size = 2 * IMAGE_SIZE
    side, height = size + 10, size + 150
    sheet = Image.new("RGB", (min(columns, n) * side + 10, -(-n // columns) * height), "white")
    draw = ImageDraw.Draw(sheet)
    for index, scene in enumerate(scenes(config.scenes, "test", n)):
        x, y = 10 + index % columns * side, 10 + index // columns * height
        sheet.paste(render(scene).resize((size, size), Image.Resampling.BICUBIC), (x, y))
        rng = text_generator(config.scenes, "test", index)
        texts = [textwrap.fill(c.text, 38) for c in captions(scene, config.coco, rng, 2)]
        draw.multiline_text((x, y + size + 2), "\n".join(texts), "black", font)
    try:
        sheet.save(path)
    except (OSError, ValueError) as error:
        hint = "Name a .png file in a folder that you can write"
        raise DataError(f"{path}: cannot be written ({error}). {hint}") from error
    return Path(path)


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """A new folder that takes the place of `target` when the block ends without an error."""
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
        return json.loads((root / MANIFEST).read_text(encoding="utf-8"))["key"]
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _write(folder: Path, config: WorldConfig, part: str, label: str, workers: int) -> None:
    """Write a part into an empty folder, the manifest last, whose presence says it is complete."""
    counts, left_out, digests, n_pictures = {}, {}, {}, 0
    with Progress(0, label) as progress, _executor(folder, workers) as executor:

        def draw(batch: Sequence[tuple[Path, Picture]]) -> Future[None]:
            future = executor.submit(_draw, batch)
            future.add_done_callback(lambda _: progress.update(len(batch)))
            return future

        running: list[Future[None]] = []
        for export in exports(config, part):
            progress.total += len(export.pictures) + len(export.texts)
            pictures = [(folder / path, picture) for path, picture in export.pictures.items()]
            running += [draw(pictures[i : i + BATCH]) for i in range(0, len(pictures), BATCH)]
            for path, text in export.texts.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_text(text, encoding="utf-8", newline="")
                digests[path] = hashlib.sha256(text.encode()).hexdigest()
            progress.update(len(export.texts))
            n_pictures += len(pictures)
            counts[export.name] = export.counts
            left_out |= {export.name: export.left_out} if export.left_out else {}
        for future in running:
            future.result()
    found: dict[str, Any] = {
        "key": config.key(part), "version": VERSION, "config": config.content(part),
        "counts": counts, "left_out": left_out, "sha256": digests, "pictures": n_pictures,
    }
    text = json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8", newline="")


@contextmanager
def _executor(root: Path, workers: int) -> Iterator[Executor]:
    """Draws while the next set is prepared: in a thread, or in several processes."""
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


def _draw(pictures: Sequence[tuple[Path, Picture]]) -> None:
    for path, picture in pictures:
        picture.write(path)


def _follow_parent() -> None:
    """Leave interrupts to the parent, and end with it even if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
