"""Unpack archives from the internet safely.

Nothing is written outside of the target folder. An archive that unpacks to more than a gigabyte
and to far more than its own size is refused.
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

# Text shrinks about tenfold; an archive made to fill the disk, a thousandfold.
MAX_UNPACK_RATIO = 20
"""Largest ratio of unpacked size to archive size."""

ALWAYS_ALLOWED_BYTES = 1_000_000_000
"""Unpacked size in bytes that is allowed for any archive, whatever its ratio."""

# zipfile raises a RuntimeError for an encrypted archive.
_BROKEN = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, RuntimeError)

_Archive = zipfile.ZipFile | tarfile.TarFile
_Member = zipfile.ZipInfo | tarfile.TarInfo


def unpack(archive: Path, root: Path, to: str, only: Sequence[str] = ()) -> None:
    """Unpack a zip or tar archive to the folder `root / to`, and replace existing files.

    Hidden files are left out. If all other files are in one outer folder, its content is moved
    without the folder itself.

    Args:
        archive: The archive.
        root: Folder outside of which nothing is written; it is created if it does not exist.
        to: Folder for the content, relative to `root`.
        only: Prefixes of the paths to keep, without the outer folder; () keeps all.
    """
    root.mkdir(parents=True, exist_ok=True)
    # First to a folder beside the target, so that a damaged archive leaves nothing behind.
    with tempfile.TemporaryDirectory(prefix=f".{archive.name}.", dir=root) as name:
        folder = Path(name)
        try:
            _extract(archive, folder, root / to)
        except _BROKEN as error:
            advice = "Remove it and fetch it again"
            raise DataError(f"{archive}: cannot be unpacked ({error}). {advice}") from error
        # A hidden folder beside the outer one, such as macOS adds, does not make it two.
        tops = [path for path in folder.iterdir() if not _is_hidden(path.relative_to(folder))]
        base = tops[0] if len(tops) == 1 and tops[0].is_dir() else folder
        files = [path.relative_to(base) for path in sorted(base.rglob("*")) if path.is_file()]
        files = [path for path in files if not _is_hidden(path)]
        # An empty prefix, "", fits every path.
        selected = [path for path in files if path.as_posix().startswith(tuple(only) or "")]
        if not selected:
            names = ", ".join(path.as_posix() for path in files[:3]) or "nothing"
            raise DataError(f"{archive}: none of the expected files is in it; it has {names}")
        targets = [root / to / path for path in selected]
        # All targets before the first move, so that a refusal leaves the folder as it was.
        for target in dict.fromkeys([*targets, *(target.parent for target in targets)]):
            check_destination(target, root)
        for path, target in zip(selected, targets, strict=True):
            target.parent.mkdir(parents=True, exist_ok=True)
            (base / path).replace(target)


def _is_hidden(path: Path) -> bool:
    return path.parts[0] == "__MACOSX" or any(part.startswith(".") for part in path.parts)


def _extract(archive: Path, folder: Path, goal: Path) -> None:
    """Unpack an archive to the temporary `folder`; errors name its final folder `goal`."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(folder, _checked_members(archive, opened, goal))
    elif not tarfile.is_tarfile(archive):
        raise tarfile.TarError("it is neither a zip nor a tar archive")
    # Without this filter, a tar archive may write outside of the folder.
    elif not hasattr(tarfile, "data_filter"):
        raise DataError("unpacking a tar archive safely needs Python 3.11.4 or newer")
    else:
        with tarfile.open(archive) as opened:
            opened.extractall(folder, _checked_members(archive, opened, goal), filter="data")


def _checked_members(archive: Path, opened: _Archive, goal: Path) -> list[Any]:
    """Return all members of an archive, or raise a DataError if it must not be unpacked."""
    by_hand = f"If the archive is right all the same, unpack it by hand to {goal}"
    largest = max(MAX_UNPACK_RATIO * archive.stat().st_size, ALWAYS_ALLOWED_BYTES)
    total, members = 0, []
    for member in opened.infolist() if isinstance(opened, zipfile.ZipFile) else opened:
        name, size, is_plain = _describe(member)
        if not is_plain:
            raise DataError(
                f"{archive}: cannot be unpacked: {name!r} in it is a link or a device, "
                f"expected files and folders alone. {by_hand}"
            )
        # Checked member by member: a compressed tar archive has no table of contents, and one that
        # is too large is not read to its end.
        total += size
        if total > largest:
            raise DataError(
                f"{archive}: cannot be unpacked: up to {name!r} it holds {total / 1e9:,.2f} GB, "
                f"more than {MAX_UNPACK_RATIO} times its own size. {by_hand}"
            )
        members.append(member)
    return members


def _describe(member: _Member) -> tuple[str, int, bool]:
    """Return a member's name, its unpacked size, and whether it is a file or a folder."""
    if isinstance(member, zipfile.ZipInfo):
        # The upper half is the mode of Unix; it is 0 in archives from other systems.
        kind = stat.S_IFMT(member.external_attr >> 16)
        return member.filename, member.file_size, kind in (0, stat.S_IFREG, stat.S_IFDIR)
    return member.name, member.size, member.isfile() or member.isdir()


def check_destination(path: Path, base: Path) -> None:
    """Raise a DataError if writing to a path would leave `base` through a symbolic link."""
    # `base` itself may be a link: the user may keep the data on another disk.
    if path.is_symlink() or not path.resolve().is_relative_to(base.resolve()):
        raise DataError(
            f"{path}: a symbolic link leads to {path.resolve()}, and files are written to {base} "
            "only, through no link. Remove the link, or complete by hand what it leads to"
        )
