"""`cae data get`: fetch what belongs to a source, check it, unpack it, and put it into place.

A file is at its place only if it is whole and right. `data/raw/fetched.json` notes what was got:
checksum, date, address, and of a repository the commit. Nothing is written outside of `data/raw`.
"""

from __future__ import annotations

import json
import lzma
import os
import shutil
import stat
import tarfile
import time
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock, Timeout
from tqdm import tqdm

from cae_lib.config import paths
from cae_lib.data.completeness import file_digest, open_clip_file
from cae_lib.data.download import (
    UnreachableError,
    download,
    from_drive,
    from_hub,
    hub_folder,
    require_space,
    version_note,
)
from cae_lib.data.sources import Item, Source
from cae_lib.errors import DataError
from cae_lib.runtime import write_atomic

LEDGER = "fetched.json"
MAX_RATIO = 20
"""How many times its own size an archive may unpack to; text shrinks about tenfold."""

SMALL = 1_000_000_000
"""Bytes that any archive may unpack to, however small it is."""

BROKEN = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, RuntimeError)


def get(source: Source) -> list[str]:
    """Fetch all files of a source that are not here yet; archives are removed once unpacked.

    A file that somebody put among the downloads, or at its place, is taken as if it had been
    fetched. A file that fails does not keep the others back, but a host that does not answer is
    asked once; the DataError at the end says what to fetch by hand, whence, and where to put it.

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
    todo, failed, unreached = [], [], []
    unreachable: dict[str, UnreachableError] = {}
    for item in source.get:
        try:
            todo += _get_item(source, item, unreachable)
        except UnreachableError as error:
            unreachable[error.host] = error
            unreached.append(item)
        except DataError as error:
            failed.append(f"{source.title}: {error}. By hand: {instruction(source, item)}")
    if unreached:
        failed.append(_offline_message(source, unreached, unreachable))
    if failed:
        raise DataError("\n".join(failed))
    for name, shown in source.links.items():  # where this set's loader looks for pictures
        link, target = source.root / name, source.root / shown
        if not link.is_symlink() and not link.exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(target, link.parent), target_is_directory=True)
    return todo


def _offline_message(
    source: Source, items: Sequence[Item], unreachable: Mapping[str, UnreachableError]
) -> str:
    """Say which hosts do not answer, what to do, and where the files come from and go to."""
    reasons = ", ".join(dict.fromkeys(error.reason for error in unreachable.values()))
    lines = [
        f"{source.title}: {', '.join(unreachable)} cannot be reached: this machine has no network, "
        f"or the host is down. Run `cae data get {source.name}` again when it answers; or fetch "
        "these files with a browser or on another machine, put them where the arrow points, and "
        f"run it again ({reasons})"
    ]
    lines += [
        instruction(source, item) if item.open_clip else f"{item.address} -> {source.place(item)}"
        for item in items
    ]
    return "\n  ".join(lines)


def _get_item(source: Source, item: Item, unreachable: Mapping[str, UnreachableError]) -> list[str]:
    """Fetch and place one item; returns what is left to a person."""
    key, place = f"{source.name}/{item.name}", source.place(item)
    goal = source.root / item.unpack if item.unpack else place
    if open_clip_file(item.hub) if item.open_clip else key in _ledger() and goal.exists():
        return []
    if item.how and not (item.unpack and place.exists()):
        return [instruction(source, item)]
    before = _ledger().get(key, {})
    if before.get("from") != item.address:  # the list has another address, or commit, since
        before = {}
    known, commit = item.checksum or before.get("sha256"), before.get("revision")
    if item.unpack:
        _check_destination(goal, paths().raw)
    if place.is_file():
        digest = _verified(place, known)
    else:
        part = _part_of(place)
        for path in () if item.open_clip else (place, part, version_note(part), hub_folder(part)):
            _check_destination(path, paths().raw)
            path.parent.mkdir(parents=True, exist_ok=True)
        if error := unreachable.get(urlsplit(item.address).hostname):
            raise error
        digest, commit = _fetch(source, item, place, known, commit or item.revision)
    if item.unpack:
        unpack(place, source.root, item.unpack, item.only)
        place.unlink()
    entry = {"sha256": digest, "fetched": time.strftime("%Y-%m-%d"), "from": item.address}
    if commit:
        entry["revision"] = commit
    with FileLock(paths().raw / f".{LEDGER}.lock"):
        content = json.dumps(_ledger() | {key: entry}, indent=1, sort_keys=True)
        write_atomic(paths().raw / LEDGER, content + "\n")
    return []


def _fetch(
    source: Source, item: Item, place: Path, known: str | None, revision: str | None
) -> tuple[str | None, str | None]:
    """Fetch a file beside its place, and put it there if it is the right one.

    Returns:
        Its SHA-256, None for a whole repository, and the commit if it comes from the hub.
    """
    print(f"{source.title}: fetching {item.name} from {item.address}", flush=True)
    if item.open_clip:
        return _fetch_to_cache(item, source.gated, known, revision)
    part, commit = _part_of(place), None
    if item.hub and not item.path:
        return None, from_hub(item, place, source.gated, revision)[1]
    if item.hub:
        _, commit = from_hub(item, part, source.gated, revision)
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
    return digest, commit


def _part_of(place: Path) -> Path:
    """Return the file beside a place that is written until the download is whole."""
    return place.with_name(f"{place.name}.part")


def _fetch_to_cache(
    item: Item, gated: str | None, known: str | None, revision: str
) -> tuple[str, str]:
    """Fetch weights of open_clip into the hub's cache; those with a wrong checksum are removed."""
    path, commit = from_hub(item, Path(), gated, revision)
    try:
        return _verified(path, known), commit
    except DataError:
        path.resolve().unlink()
        path.unlink(missing_ok=True)  # the link to it
        raise


def _check_destination(path: Path, base: Path) -> None:
    """Raise a DataError if a path is a symbolic link, or if one leads it out of the folder `base`.

    `base` itself may be a link: whoever made it chose where the data are to be.
    """
    if path.is_symlink() or not path.resolve().is_relative_to(base.resolve()):
        raise DataError(
            f"{path}: a symbolic link leads to {path.resolve()}, and files are written to {base} "
            "only, through no link. Remove the link, or complete by hand what it leads to"
        )


def _verified(path: Path, known: str | None) -> str:
    """SHA-256 of a file; a DataError if it has not the checksum that is known."""
    sha256 = file_digest(path)
    kind, _, expected = (known or sha256).rpartition(":")
    found = sha256 if kind in ("", "sha256") else file_digest(path, kind)
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
    return (
        f"Fetch {what} at {item.address} with a browser or on another machine, put it at "
        f"{source.place(item)}, and run `cae data get {source.name}` again."
    )


def unpack(archive: Path, root: Path, to: str, only: Sequence[str] = ()) -> None:
    """Unpack a zip or tar archive to the folder `to` below `root`; same names are replaced.

    The files move to their places when all of them are whole. Hidden files are left out, and so is
    the one folder that holds everything else, if there is one. What is left of a path has to begin
    with one of `only`, if there are any. A DataError says what is wrong with an archive: links and
    devices in it, more than `MAX_RATIO` times its size (and more than `SMALL`), or a place that a
    symbolic link leads out of `root`.
    """
    partial = root / f".{archive.name}.unpacking"
    _check_destination(partial, root)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        _extract(archive, partial, root / to)
        tops = [path for path in partial.iterdir() if not path.name.startswith((".", "__MACOSX"))]
        base = tops[0] if len(tops) == 1 and tops[0].is_dir() else partial
        files = {
            path.relative_to(base).as_posix(): path
            for path in sorted(base.rglob("*"))
            if path.is_file()
        }
        wanted = {name: path for name, path in files.items() if name.startswith(tuple(only) or "")}
        if not wanted:
            names = ", ".join([*files][:3]) or "nothing"
            raise DataError(f"{archive}: none of the expected files is in it; it has {names}")
        targets = {
            root / to / name: path
            for name, path in wanted.items()
            if not name.startswith("__MACOSX") and "/." not in f"/{name}"
        }
        for place in [*targets, *{target.parent for target in targets}]:
            _check_destination(place, root)
        for target, path in targets.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
    except BROKEN as error:
        advice = "Remove it and fetch it again"
        raise DataError(f"{archive}: cannot be unpacked ({error}). {advice}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _extract(archive: Path, folder: Path, goal: Path) -> None:
    """Unpack all of it by the standard library, which lets nothing out of the folder. `goal` is
    where the files go at last."""
    zipped = zipfile.is_zipfile(archive)
    if not zipped and not tarfile.is_tarfile(archive):
        raise tarfile.TarError("is neither a zip nor a tar archive")
    if not zipped and not hasattr(tarfile, "data_filter"):
        raise DataError("to unpack a tar archive safely takes Python 3.11.4 or newer")
    with zipfile.ZipFile(archive) if zipped else tarfile.open(archive) as opened:
        members = _checked_members(archive, opened, goal)
        require_space(folder, sum(map(_size, members)), archive.name)
        shown = tqdm(members, archive.name, disable=None)
        opened.extractall(folder, shown, **({} if zipped else {"filter": "data"}))


def _checked_members(
    archive: Path, opened: zipfile.ZipFile | tarfile.TarFile, goal: Path
) -> list[Any]:
    """Return all members of an archive; a DataError for a link or device, or for too much."""
    by_hand = f"If the archive is right all the same, unpack it by hand to {goal}"
    most, total, members = max(MAX_RATIO * archive.stat().st_size, SMALL), 0, []
    for member in opened.infolist() if isinstance(opened, zipfile.ZipFile) else opened:
        name = getattr(member, "filename", None) or member.name
        if not _is_plain(member):
            raise DataError(
                f"{archive}: cannot be unpacked: {name!r} in it is a link or a device, "
                f"expected files and folders alone. {by_hand}"
            )
        total += _size(member)
        if total > most:
            raise DataError(
                f"{archive}: cannot be unpacked: up to {name!r} it holds "
                f"{total / 1e9:,.2f} GB, more than {MAX_RATIO} times its own size. "
                f"{by_hand}"
            )
        members.append(member)
    return members


def _is_plain(member: zipfile.ZipInfo | tarfile.TarInfo) -> bool:
    """Return whether a member of an archive is a file or a folder, no link and no device."""
    if isinstance(member, zipfile.ZipInfo):
        return stat.S_IFMT(member.external_attr >> 16) in (0, stat.S_IFREG, stat.S_IFDIR)
    return member.isfile() or member.isdir()


def _size(member: zipfile.ZipInfo | tarfile.TarInfo) -> int:
    """Return how many bytes a member takes once it is unpacked."""
    return member.file_size if isinstance(member, zipfile.ZipInfo) else member.size
