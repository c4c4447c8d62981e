"""Unpacking of zip and tar archives that nobody has to trust.

All members are looked at before the first one is written: an archive with a path that leads out of
its folder, an absolute path, a link or a device, or with far more content than its own size, is
refused as a whole. Members are written as plain bytes to the checked paths, so neither links nor
permissions of an archive ever take effect. What is unpacked appears at its place only when all of
it is there.
"""

from __future__ import annotations

import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from cae_lib.data.disk import format_size, require_space
from cae_lib.data.sources import Unpack
from cae_lib.errors import DataError
from cae_lib.runtime import Progress

MAX_RATIO = 50
FREE_SIZE = 64_000_000
MAX_MEMBERS = 2_000_000
CHUNK = 1 << 20
BROKEN = (
    zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, RuntimeError,
    NotImplementedError,
)

Info = zipfile.ZipInfo | tarfile.TarInfo
Archive = zipfile.ZipFile | tarfile.TarFile


@dataclass(frozen=True)
class _Member:
    """A file of an archive: its path in there, and its size in bytes."""

    path: PurePosixPath
    size: int
    info: Info


def unpack(archive: Path, root: Path, parts: Sequence[Unpack], limit: int | None = None) -> int:
    """Unpack the wanted files of an archive and return their number.

    Args:
        archive: A zip file, or a tar file with any of Python's compressions.
        root: Folder that the places of `parts` are relative to; files of the same names are
            replaced.
        parts: Which files are wanted, and where they go.
        limit: Largest size of the content in bytes; by default 50 times that of the archive, or
            64 MB for small ones.

    Raises:
        DataError: The archive is damaged, hostile, too large for the limit or the disk, or holds
            nothing that is wanted.
    """
    if limit is None:
        limit = max(MAX_RATIO * archive.stat().st_size, FREE_SIZE)
    root.mkdir(parents=True, exist_ok=True)
    try:
        with _open(archive) as opened:
            members = list(_members(archive, opened, limit))
            wanted = [pair for part in parts for pair in _wanted(members, part)]
            if not wanted:
                names = ", ".join(str(member.path) for member in members[:3]) or "nothing"
                raise DataError(f"{archive}: none of the expected files is in it; it has {names}")
            require_space(root, sum(member.size for member, _ in wanted), archive.name)
            _write(archive, opened, wanted, root)
    except BROKEN as error:
        raise DataError(
            f"{archive}: cannot be unpacked ({error}). Remove it and fetch it again"
        ) from error
    return len(wanted)


def _open(archive: Path) -> Archive:
    if zipfile.is_zipfile(archive):
        return zipfile.ZipFile(archive)
    if tarfile.is_tarfile(archive):
        return tarfile.open(archive)
    raise DataError(f"{archive}: is neither a zip nor a tar archive. Remove it and fetch it again")


def _members(archive: Path, opened: Archive, limit: int) -> Iterator[_Member]:
    """The files of an archive, each checked when its header is read.

    Raises:
        DataError: A member is not a plain file or folder in the archive's own folder, or all of
            them together are too large or too many.
    """
    total = 0
    infos = opened.infolist() if isinstance(opened, zipfile.ZipFile) else opened
    for number, info in enumerate(infos):
        is_file, size = _kind(archive, info)
        total += size
        if total > limit or number >= MAX_MEMBERS:
            raise DataError(
                f"{archive}: refused, since it unpacks to more than {format_size(limit)} or "
                f"{MAX_MEMBERS:,} files, from {format_size(archive.stat().st_size)}"
            )
        path = _safe_path(archive, info)
        if is_file and path.parts[0] != "__MACOSX" and not path.name.startswith("._"):
            yield _Member(path, size, info)


def _kind(archive: Path, info: Info) -> tuple[bool, int]:
    """Whether a member is a file, and its size; anything but files and folders is refused."""
    if isinstance(info, tarfile.TarInfo):
        plain, is_file, size = info.isreg() or info.isdir(), info.isreg(), info.size
    else:
        kind = stat.S_IFMT(info.external_attr >> 16)
        plain = kind in (0, stat.S_IFREG, stat.S_IFDIR)
        is_file, size = not info.is_dir(), info.file_size
    if not plain:
        raise DataError(f"{archive}: refused, since {_name(info)!r} is a link or a device")
    return is_file, size


def _name(info: Info) -> str:
    return info.name if isinstance(info, tarfile.TarInfo) else info.orig_filename


def _safe_path(archive: Path, info: Info) -> PurePosixPath:
    name = _name(info)
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    outside = posix.is_absolute() or windows.anchor or ".." in posix.parts + windows.parts
    if outside or "\0" in name or (not posix.parts and not isinstance(info, tarfile.TarInfo)):
        raise DataError(f"{archive}: refused, since {name!r} leads out of its folder")
    return posix


def _wanted(members: Sequence[_Member], part: Unpack) -> Iterator[tuple[_Member, PurePosixPath]]:
    """Members that a part takes, with their places below the root."""
    tops = {member.path.parts[:-1][:1] for member in members}
    drop = part.drop_top and len(tops) == 1 and () not in tops
    for member in members:
        path = PurePosixPath(*member.path.parts[drop:])
        if not part.only or str(path).startswith(part.only):
            yield member, PurePosixPath(part.to) / path


def _write(
    archive: Path, opened: Archive, wanted: Sequence[tuple[_Member, PurePosixPath]], root: Path
) -> None:
    """Write all files beside their places, then move them there."""
    partial = root / f".{archive.name}.unpacking"
    shutil.rmtree(partial, ignore_errors=True)
    if isinstance(opened, tarfile.TarFile):
        wanted = sorted(wanted, key=lambda pair: pair[0].info.offset)
    try:
        with Progress(len(wanted), f"unpack {archive.name}") as progress:
            for member, place in wanted:
                target = partial / place
                target.parent.mkdir(parents=True, exist_ok=True)
                with _reader(opened, member.info) as source, target.open("wb") as file:
                    shutil.copyfileobj(source, file, CHUNK)
                if target.stat().st_size != member.size:
                    raise EOFError(f"{member.path} is cut short")
                progress.update()
        for _, place in wanted:
            target = root / place
            target.parent.mkdir(parents=True, exist_ok=True)
            (partial / place).replace(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _reader(opened: Archive, info: Info) -> IO[bytes]:
    if isinstance(opened, zipfile.ZipFile):
        return opened.open(info)
    reader = opened.extractfile(info)
    assert reader is not None  # only folders and links have none
    return reader
