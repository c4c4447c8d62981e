"""`cae data get`: fetch what belongs to a source, check it, unpack it, and put it into place.

What was fetched is noted in `data/raw/fetched.json` with its SHA-256. Where `sources.yml` knows no
checksum, the one noted at the first download holds for later ones.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cae_lib.config import paths
from cae_lib.data import services
from cae_lib.data.archives import unpack
from cae_lib.data.disk import require_space
from cae_lib.data.download import Offline, download
from cae_lib.data.partial import file_sha256
from cae_lib.data.sources import Item, Source
from cae_lib.errors import DataError
from cae_lib.runtime import write_atomic

LEDGER = "fetched.json"


def get(source: Source) -> list[str]:
    """Fetch all files of a source that are not here yet.

    Archives are removed once they are unpacked. A file that somebody put among the downloads, or
    at its place, is taken as if it had been fetched.

    Returns:
        What a person still has to do, one sentence an item; empty if nothing.

    Raises:
        DataError: Something cannot be fetched, checked or unpacked. The message says what to fetch
            by hand, whence, and where to put it.
    """
    source.downloads.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(source.downloads / ".lock", timeout=0):
            here = sum(p.stat().st_size for p in source.downloads.rglob("*") if p.is_file())
            require_space(paths().raw, (source.gb or 0) * 1e9 - here, source.title)
            todo = _get_items(source)
            _link(source)
            return todo
    except Timeout as error:
        raise DataError(f"another `cae data get {source.name}` is at work; wait for it") from error


def instruction(source: Source, item: Item) -> str:
    """One sentence that tells a person what to fetch, from where, and where to put it."""
    if item.open_clip:
        return (
            f"On a machine with a network run `cae data get {source.name}` and copy its folder "
            "~/.cache/huggingface/hub to this one."
        )
    place = _place(source, item)
    if item.how:
        return f"{item.how} Put it at {place}." if item.name else item.how
    if item.hub and not item.path:
        return f"Fetch all files at {item.address} on another machine, and put them into {place}."
    return (
        f"Fetch the file at {item.address} with a browser or on another machine, put it at "
        f"{place}, and run `cae data get {source.name}` again."
    )


def _get_items(source: Source) -> list[str]:
    """All items, one after another; one that fails does not keep the others back."""
    todo, failed = [], []
    for item in source.get:
        try:
            line = _get_item(source, item)
        except Offline:
            raise
        except DataError as error:
            failed.append(str(error))
        else:
            todo += [line] if line else []
    if failed:
        raise DataError("\n".join(failed))
    return todo


def _get_item(source: Source, item: Item) -> str | None:
    """Fetch and place one item; returns what is left to a person."""
    if item.how and not item.name:
        return item.how
    place = _place(source, item)
    key = f"{source.name}/{item.name}"
    if _is_done(source, item, key):
        return None
    if item.how and not place.exists():
        return instruction(source, item)
    try:
        if not place.is_file():
            _fetch(source, item, place)
        digest = _checked(item, place, key)
        if item.unpack:
            require_space(place.parent, place.stat().st_size, f"unpacking {item.name}")
            unpack(place, source.root, item.unpack)
            place.unlink()
    except Offline as error:
        raise Offline(f"{error}. {instruction(source, item)}") from error
    except DataError as error:
        raise DataError(f"{source.title}: {error}. By hand: {instruction(source, item)}") from error
    except OSError as error:
        if isinstance(error, PermissionError):
            raise
        raise DataError(f"{place}: {error}. Free some space or check the disk.") from error
    _note(key, {"sha256": digest, "fetched": time.strftime("%Y-%m-%d"), "from": item.address})
    return None


def _place(source: Source, item: Item) -> Path:
    """Where the download goes: among the downloads if it is unpacked, else to its own place."""
    if item.unpack or not (item.to or item.hub):
        return source.downloads / item.name
    return source.root / (item.to or item.path or ".")


def _is_done(source: Source, item: Item, key: str) -> bool:
    if item.open_clip:
        return services.open_clip_file(item) is not None
    if key not in _ledger():
        return False
    if item.unpack:
        return all((source.root / part.to).is_dir() for part in item.unpack)
    return _place(source, item).exists()


def _fetch(source: Source, item: Item, place: Path) -> None:
    print(f"{source.title}: fetching {item.name} from {item.address or 'open_clip'}", flush=True)
    if item.open_clip:
        services.from_open_clip(item)
    elif item.hub:
        services.from_hub(item, place, source.gated)
    elif item.drive:
        services.from_drive(item, place)
    else:
        assert item.url is not None
        known = item.sha256 or _ledger().get(f"{source.name}/{item.name}", {}).get("sha256")
        reserve = 2.2 if item.unpack else 1.0
        download(item.url, place, size=item.bytes, sha256=known, reserve=reserve)


def _checked(item: Item, place: Path, key: str) -> str | None:
    """SHA-256 of a file that is in place, after comparing it with the one that is known.

    Raises:
        DataError: It is another one.
    """
    if item.open_clip or place.is_dir():
        return None
    found = file_sha256(place)
    known = item.sha256 or _ledger().get(key, {}).get("sha256")
    if known is not None and found != known:
        raise DataError(
            f"{place}: SHA-256 is {found}, {known} was expected. Remove the file, or, if its "
            f"source has a new version, the entry {key!r} of {paths().raw / LEDGER}"
        )
    return found


def _link(source: Source) -> None:
    """Show folders of other sets where this set's loader looks for them."""
    for name, shown in source.links.items():
        link, target = source.root / name, source.root / shown
        if link.is_symlink() or link.exists():
            continue
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(target, link.parent), target_is_directory=True)


def _ledger() -> dict[str, dict[str, Any]]:
    try:
        return json.loads((paths().raw / LEDGER).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(f"{paths().raw / LEDGER}: cannot be read ({error}). Remove it.") from error


def _note(key: str, entry: dict[str, Any]) -> None:
    with FileLock(paths().raw / f".{LEDGER}.lock"):
        content = _ledger() | {key: entry}
        write_atomic(paths().raw / LEDGER, json.dumps(content, indent=1, sort_keys=True) + "\n")
