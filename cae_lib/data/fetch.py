"""`cae data get`: fetch what belongs to a source, check it, unpack it, and put it into place.

A file is at its place only if it is whole and right. `data/raw/fetched.json` notes what was got.
"""

from __future__ import annotations

import json
import lzma
import os
import shutil
import tarfile
import time
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from tqdm import tqdm

from cae_lib.config import paths
from cae_lib.data.completeness import file_digest, open_clip_file
from cae_lib.data.download import download, from_drive, from_hub, require_space, version_note
from cae_lib.data.sources import Item, Source
from cae_lib.errors import DataError
from cae_lib.runtime import write_atomic

LEDGER = "fetched.json"
BROKEN = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, RuntimeError)


def get(source: Source) -> list[str]:
    """Fetch all files of a source that are not here yet; archives are removed once unpacked.

    A file that somebody put among the downloads, or at its place, is taken as if it had been
    fetched. A file that fails does not keep the others back; the DataError at the end says what to
    fetch by hand, whence, and where to put it.

    Returns:
        What a person still has to do, one sentence an item.
    """
    source.downloads.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(source.downloads / ".lock", timeout=0):
            here = sum(path.stat().st_size for path in source.downloads.iterdir())
            require_space(paths().raw, (source.gb or 0) * 1e9 - here, source.title)
            return _get_items(source)
    except Timeout as error:
        raise DataError(f"another `cae data get {source.name}` is at work; wait for it") from error
    except PermissionError:
        raise
    except OSError as error:
        raise DataError(f"{source.title}: {error}. Free some space or check the disk") from error


def _get_items(source: Source) -> list[str]:
    todo, failed = [], []
    for item in source.get:
        try:
            todo += _get_item(source, item)
        except DataError as error:
            failed.append(f"{source.title}: {error}. By hand: {instruction(source, item)}")
    if failed:
        raise DataError("\n".join(failed))
    for name, shown in source.links.items():  # where this set's loader looks for pictures
        link, target = source.root / name, source.root / shown
        if not link.is_symlink() and not link.exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(target, link.parent), target_is_directory=True)
    return todo


def _get_item(source: Source, item: Item) -> list[str]:
    """Fetch and place one item; returns what is left to a person."""
    key, place = f"{source.name}/{item.name}", source.place(item)
    goal = source.root / item.unpack if item.unpack else place
    if open_clip_file(item.hub) if item.open_clip else key in _ledger() and goal.exists():
        return []
    if item.how and not (item.unpack and place.exists()):
        return [instruction(source, item)]
    known = item.checksum or _ledger().get(key, {}).get("sha256")
    digest = _verified(place, known) if place.is_file() else _fetch(source, item, place, known)
    if item.unpack:
        unpack(place, source.root, item.unpack, item.only)
        place.unlink()
    entry = {"sha256": digest, "fetched": time.strftime("%Y-%m-%d"), "from": item.address}
    with FileLock(paths().raw / f".{LEDGER}.lock"):
        content = json.dumps(_ledger() | {key: entry}, indent=1, sort_keys=True)
        write_atomic(paths().raw / LEDGER, content + "\n")
    return []


def _fetch(source: Source, item: Item, place: Path, known: str | None) -> str | None:
    """Fetch a file beside its place, put it there if it is the right one; returns its SHA-256."""
    print(f"{source.title}: fetching {item.name} from {item.address}", flush=True)
    if item.hub and (item.open_clip or not item.path):
        return from_hub(item, place, source.gated)
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_name(f"{place.name}.part")
    if item.hub:
        from_hub(item, part, source.gated)
    elif item.drive:
        from_drive(item.drive, part)
    else:
        download(item.url, part)
    try:
        digest = _verified(part, known)
    except DataError:
        part.unlink()
        version_note(part).unlink(missing_ok=True)
        raise
    part.replace(place)
    version_note(part).unlink(missing_ok=True)
    return digest


def _verified(path: Path, known: str | None) -> str:
    """SHA-256 of a file; a DataError if it has not the checksum that is known."""
    sha256 = file_digest(path)
    kind, _, expected = (known or sha256).rpartition(":")
    found = file_digest(path, kind) if kind == "md5" else sha256
    if found != expected:
        raise DataError(
            f"{path}: its checksum is {found}, {expected} was expected. If it was damaged on its "
            "way, remove it and fetch it again; if it has changed at its source, remove its entry "
            f"from {paths().raw / LEDGER}"
        )
    return sha256


def _ledger() -> dict[str, dict[str, Any]]:
    try:
        return json.loads((paths().raw / LEDGER).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(f"{paths().raw / LEDGER}: cannot be read ({error}). Remove it") from error


def instruction(source: Source, item: Item) -> str:
    """One sentence that tells a person what to fetch, from where, and where to put it."""
    if item.open_clip:
        command = f"`cae data get {source.name}`"
        return f"Run {command} elsewhere and copy ~/.cache/huggingface/hub to this machine."
    if item.how:
        return f"{item.how} Put it at {source.place(item)}." if item.unpack else item.how
    what = "all files" if item.hub and not item.path else "the file"
    return (f"Fetch {what} at {item.address} with a browser or on another machine, put it at "
            f"{source.place(item)}, and run `cae data get {source.name}` again.")


def unpack(archive: Path, root: Path, to: str, only: Sequence[str] = ()) -> None:
    """Unpack a zip or tar archive to the folder `to` below `root`; same names are replaced.

    The files move to their places when all of them are whole. Links and hidden files are left out,
    and so is the one folder that holds everything else, if there is one. What is left of a path has
    to begin with one of `only`, if there are any. A DataError says what is wrong with an archive.
    """
    partial = root / f".{archive.name}.unpacking"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        _extract(archive, partial)
        tops = [path for path in partial.iterdir() if not path.name.startswith((".", "__MACOSX"))]
        base = tops[0] if len(tops) == 1 and tops[0].is_dir() else partial
        files = {path.relative_to(base).as_posix(): path for path in sorted(base.rglob("*"))
                 if path.is_file() and not path.is_symlink()}
        wanted = {name: path for name, path in files.items() if name.startswith(tuple(only) or "")}
        if not wanted:
            names = ", ".join([*files][:3]) or "nothing"
            raise DataError(f"{archive}: none of the expected files is in it; it has {names}")
        for name, path in wanted.items():
            if not name.startswith("__MACOSX") and "/." not in f"/{name}":
                target = root / to / name
                target.parent.mkdir(parents=True, exist_ok=True)
                path.replace(target)
    except BROKEN as error:
        advice = "Remove it and fetch it again"
        raise DataError(f"{archive}: cannot be unpacked ({error}). {advice}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _extract(archive: Path, folder: Path) -> None:
    """Unpack all of it by the standard library, which lets nothing out of the folder."""
    zipped = zipfile.is_zipfile(archive)
    if not zipped and not tarfile.is_tarfile(archive):
        raise tarfile.TarError("is neither a zip nor a tar archive")
    if not zipped and not hasattr(tarfile, "data_filter"):
        raise DataError("to unpack a tar archive safely takes Python 3.11.4 or newer")
    with zipfile.ZipFile(archive) if zipped else tarfile.open(archive) as opened:
        members = opened.infolist() if zipped else opened.getmembers()
        sizes = (member.file_size if zipped else member.size for member in members)
        require_space(folder, sum(sizes), archive.name)
        shown = tqdm(members, archive.name, disable=None)
        opened.extractall(folder, shown, **({} if zipped else {"filter": "data"}))
