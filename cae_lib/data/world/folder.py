"""The world's folder: where it lies, its manifest, and how a new one takes the place of an old."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cae_lib.config import paths
from cae_lib.data.world.config import world_config
from cae_lib.errors import DataError
from cae_lib.runtime import write_atomic

MANIFEST = "manifest.json"


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


def stored_key(root: Path) -> str | None:
    """Key of the configuration that a folder was built with; None when it is not complete."""
    try:
        return json.loads((root / MANIFEST).read_text(encoding="utf-8")).get("key")
    except (OSError, ValueError, AttributeError):
        return None


def write_manifest(root: Path, content: dict[str, Any]) -> None:
    """Write the manifest, whose presence says that the folder is complete."""
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    write_atomic(root / MANIFEST, text)


def digest(text: str) -> str:
    """SHA-256 of a text file's content."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A new folder that takes the place of `target` when the block ends without an error.

    After an error or an interrupt the new folder is removed and `target` is as before. Folders
    that killed processes left behind are removed, too.

    Raises:
        DataError: The folder cannot be written; the message says what to do.
    """
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(target)
        partial.mkdir()
        yield partial
        _exchange(partial, target)
    except OSError as error:
        raise DataError(_advice(error, target)) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _exchange(partial: Path, target: Path) -> None:
    old = partial.with_name(f"{partial.name}.old")
    if target.exists():
        os.replace(target, old)
    os.replace(partial, target)
    shutil.rmtree(old, ignore_errors=True)


def _remove_leftovers(target: Path) -> None:
    for path in target.parent.glob(f".{target.name}.*"):
        number = path.name.removeprefix(f".{target.name}.").partition(".")[0]
        if number.isdigit() and not _is_running(int(number)):
            shutil.rmtree(path, ignore_errors=True)


def _is_running(process: int) -> bool:
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _advice(error: OSError, target: Path) -> str:
    """What happened and what to do about it."""
    place = error.filename or target
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        todo = "free some disk space (a world takes up to 200 MB)"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        todo = "make the folder writable for you"
    else:
        todo = "check the folder and the disk"
    return (
        f"{place}: cannot be written ({error.strerror or error}). {todo[:1].upper()}{todo[1:]}, "
        "or set CAE_HOME to another folder, and run the same command again"
    )
