"""Unpack archives without trusting them.

Nothing is written outside of the target folder, and archives that unpack to far more than their own
size are refused.
"""

from __future__ import annotations

import lzma
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cae_lib.errors import DataError

MAX_RATIO = 20
"""How many times its own size an archive may unpack to; text shrinks about tenfold."""

ALWAYS_ALLOWED = 1_000_000_000
"""Bytes that any archive may unpack to, however small it is."""

_BROKEN = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, RuntimeError)

_Archive = zipfile.ZipFile | tarfile.TarFile
_Member = zipfile.ZipInfo | tarfile.TarInfo


def unpack(archive: Path, root: Path, to: str, only: Sequence[str] = ()) -> None:
    """Unpack a zip or tar archive to the folder `to` below `root`, and replace existing files.

    The files move to their places once all of them are unpacked. Hidden files are left out, and so
    is the one folder that holds everything else, if there is one.

    Args:
        archive: The archive.
        root: Folder that nothing is written out of.
        to: Folder of the files, relative to `root`.
        only: Prefixes of the paths to keep, without the one outer folder; () keeps all.

    Raises:
        DataError: For a damaged archive, one with links or devices in it, one that holds more than
            `MAX_RATIO` times its size (and more than `ALWAYS_ALLOWED`), and a destination that a
            symbolic link leads out of `root`.
    """
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{archive.name}.", dir=root) as name:
        folder = Path(name)
        try:
            _extract(archive, folder, root / to)
        except _BROKEN as error:
            advice = "Remove it and fetch it again"
            raise DataError(f"{archive}: cannot be unpacked ({error}). {advice}") from error
        tops = [path for path in folder.iterdir() if not _is_hidden(path.relative_to(folder))]
        base = tops[0] if len(tops) == 1 and tops[0].is_dir() else folder
        files = [path.relative_to(base) for path in sorted(base.rglob("*")) if path.is_file()]
        files = [path for path in files if not _is_hidden(path)]
        selected = [path for path in files if path.as_posix().startswith(tuple(only) or "")]
        if not selected:
            names = ", ".join(path.as_posix() for path in files[:3]) or "nothing"
            raise DataError(f"{archive}: none of the expected files is in it; it has {names}")
        targets = [root / to / path for path in selected]
        for target in dict.fromkeys([*targets, *(target.parent for target in targets)]):
            check_destination(target, root)
        for path, target in zip(selected, targets, strict=True):
            target.parent.mkdir(parents=True, exist_ok=True)
            (base / path).replace(target)


def _is_hidden(path: Path) -> bool:
    return path.parts[0] == "__MACOSX" or any(part.startswith(".") for part in path.parts)


def _extract(archive: Path, folder: Path, goal: Path) -> None:
    """Unpack an archive with the standard library, which writes nothing outside of the folder.

    The files are moved to `goal` afterwards.
    """
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(folder, _checked_members(archive, opened, goal))
    elif not tarfile.is_tarfile(archive):
        raise tarfile.TarError("it is neither a zip nor a tar archive")
    elif not hasattr(tarfile, "data_filter"):
        raise DataError("unpacking a tar archive safely needs Python 3.11.4 or newer")
    else:
        with tarfile.open(archive) as opened:
            opened.extractall(folder, _checked_members(archive, opened, goal), filter="data")


def _checked_members(archive: Path, opened: _Archive, goal: Path) -> list[Any]:
    """Return all members of an archive; DataError for a link or device, or for too much."""
    by_hand = f"If the archive is right all the same, unpack it by hand to {goal}"
    largest = max(MAX_RATIO * archive.stat().st_size, ALWAYS_ALLOWED)
    total, members = 0, []
    for member in opened.infolist() if isinstance(opened, zipfile.ZipFile) else opened:
        name, size, is_plain = _describe(member)
        if not is_plain:
            raise DataError(
                f"{archive}: cannot be unpacked: {name!r} in it is a link or a device, "
                f"expected files and folders alone. {by_hand}"
            )
        total += size
        if total > largest:
            raise DataError(
                f"{archive}: cannot be unpacked: up to {name!r} it holds {total / 1e9:,.2f} GB, "
                f"more than {MAX_RATIO} times its own size. {by_hand}"
            )
        members.append(member)
    return members


def _describe(member: _Member) -> tuple[str, int, bool]:
    """Return a member's name, its unpacked size, and whether it is a file or a folder."""
    if isinstance(member, zipfile.ZipInfo):
        kind = stat.S_IFMT(member.external_attr >> 16)
        return member.filename, member.file_size, kind in (0, stat.S_IFREG, stat.S_IFDIR)
    return member.name, member.size, member.isfile() or member.isdir()


def check_destination(path: Path, base: Path) -> None:
    """Raise a DataError if a path is a symbolic link, or if one leads it out of the folder `base`.

    `base` itself may be a link: whoever made it chose where the data are to be.
    """
    if path.is_symlink() or not path.resolve().is_relative_to(base.resolve()):
        raise DataError(
            f"{path}: a symbolic link leads to {path.resolve()}, and files are written to {base} "
            "only, through no link. Remove the link, or complete by hand what it leads to"
        )
