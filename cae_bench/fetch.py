"""Fetch the files of a source for `cae data get`: download, check, unpack, and put into place.

The extra `data` installs the downloading libraries. Nothing is written outside of `data/raw`,
except weights that open_clip looks for in the hub's own cache, and gdown's cookies.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cae_bench.sources import Download, Source
from cae_bench.unpack import check_destination, unpack
from cae_lib.config import cached_open_clip_weights, install_command, paths
from cae_lib.errors import DataError

# Names, because the classes belong to several libraries that may not be installed.
_OFFLINE = {
    *("ConnectionError", "ConnectError", "TimeoutError", "TimeoutException", "gaierror"),
    "LocalEntryNotFoundError",
}
"""Names of the exceptions that the downloading libraries raise if a host does not answer."""


class UnreachableError(DataError):
    """A download failed because its host cannot be reached."""


def fetch_source(source: Source) -> list[str]:
    """Fetch the files of a source that are not on this machine yet, and unpack its archives.

    A file or archive that the user has already put into place is checked and used. If one file
    fails, the others are still fetched, and the DataError names each failed one with its address.

    Returns:
        Instructions for files that have to be fetched by hand.
    """
    by_hand, failures = [], []
    unreached: dict[str, UnreachableError] = {}
    for item in source.files:
        try:
            by_hand += _fetch_file(source, item, unreached)
        except DataError as error:
            if isinstance(error, UnreachableError):
                unreached[item.host] = error
            destination = "~/.cache/huggingface/hub" if item.open_clip else source.local_path(item)
            failures.append(f"{item.browser_url or item.name} -> {destination} ({error})")
    if failures:
        raise DataError(
            f"{source.title}: {len(failures)} of {len(source.files)} files could not be fetched. "
            f"Run `cae data get {source.name}` again; or fetch these on another machine or with a "
            "browser, put them where the arrow points, and run it then\n  " + "\n  ".join(failures)
        )
    # Benchmarks look for shared images, such as Visual Genome's, in folders of their own.
    for name, folder in source.links.items():
        link, target = source.root / name, source.root / folder
        if not link.is_symlink() and not link.exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            # Relative, so that `data/raw` can be moved.
            link.symlink_to(os.path.relpath(target, link.parent), target_is_directory=True)
    return by_hand


def _fetch_file(
    source: Source, item: Download, unreached: dict[str, UnreachableError]
) -> list[str]:
    """Fetch one file or repository of a source and move it to its place, or unpack it there.

    The result is as in `fetch_source`. A host in `unreached` raises its error without being asked.
    """
    destination = source.local_path(item)
    # The archive is removed once it is unpacked; this empty file says that it was.
    marker = source.root / item.unpack / f".{item.name}.unpacked"
    if item.open_clip:
        is_present = cached_open_clip_weights(item.hub or "") is not None
    else:
        is_present = bool(item.unpack) and marker.is_file()
    if is_present:
        return []
    # An archive that was fetched by hand is unpacked like any other.
    if item.how and not (item.unpack and destination.is_file()):
        return [f"{item.how} Put it at {destination}." if item.unpack else item.how]
    if not item.open_clip:
        # A link inside `data/raw` must not lead a download out of it.
        for path in (destination, marker):
            check_destination(path, paths().raw)
        destination.parent.mkdir(parents=True, exist_ok=True)
    if destination.is_file():
        _verify_checksum(destination, item.checksum)
    elif item.host in unreached:
        raise unreached[item.host]
    else:
        print(f"{source.title}: fetching {item.name} from {item.browser_url}", flush=True)
        with _translated_errors(item, source.gated):
            _download(item, destination)
    if item.unpack:
        unpack(destination, source.root, item.unpack, item.only)
        marker.touch()
        destination.unlink()
    return []


def _download(item: Download, destination: Path) -> None:
    """Download an item to `destination`; weights of open_clip go to the hub's cache instead."""
    # The libraries are imported where they are used: they belong to the extra `data`.
    from huggingface_hub import hf_hub_download, snapshot_download

    name = (item.hub or "").removeprefix("datasets/")
    kind = "model" if name == item.hub else "dataset"
    file = item.path or ""
    if item.open_clip:
        # Without a revision, as open_clip asks: it would not find the file under another one.
        path = Path(hf_hub_download(name, file))
        try:
            _verify_checksum(path, item.checksum)
        except DataError:
            # Both the blob and the link to it in the hub's cache, else open_clip would use them.
            path.resolve().unlink()
            path.unlink(missing_ok=True)
            raise
        return
    if item.hub and not item.path:
        snapshot_download(name, repo_type=kind, revision=item.revision, local_dir=destination)
        return
    # On the disk of `destination`, so that only a complete, checked file gets there, in one step.
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=destination.parent) as folder:
        path = Path(folder, "file")
        if item.hub:
            options: dict[str, Any] = {
                "repo_type": kind,
                "revision": item.revision,
                "local_dir": folder,
            }
            path = Path(hf_hub_download(name, file, **options))
        elif item.drive:
            import gdown

            gdown.download(id=item.drive, output=str(path), quiet=not sys.stderr.isatty())
        else:
            import pooch

            pooch.get_logger().setLevel("WARNING")
            bar = sys.stderr.isatty()
            http = pooch.HTTPDownloader(progressbar=bar, chunk_size=1 << 20, timeout=60)
            # No hash for pooch: it knows no git ids, and `_verify_checksum` checks all kinds.
            pooch.retrieve(item.url, None, path.name, folder, downloader=http)
        _verify_checksum(path, item.checksum)
        path.replace(destination)


def checksum_of(path: Path, algorithm: str) -> str:
    """Return the checksum of a file in hexadecimal, by an algorithm of `hashlib` or "git"."""
    digest = hashlib.new("sha1" if algorithm == "git" else algorithm)
    if algorithm == "git":
        # The id of a git blob is the SHA-1 of this header and the content.
        digest.update(f"blob {path.stat().st_size}\0".encode())
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _verify_checksum(path: Path, checksum: str | None) -> None:
    """Raise a DataError if a file has another checksum than "KIND:DIGEST"; None skips the check."""
    kind, _, expected = (checksum or "").partition(":")
    if checksum and (digest := checksum_of(path, kind)) != expected:
        raise DataError(
            f"{path}: its {kind} checksum is {digest}, {expected} was expected: it is damaged, or "
            "has changed at its source. Remove it if it is still there"
        )


@contextmanager
def _translated_errors(item: Download, gated: str | None) -> Iterator[None]:
    """Turn errors of the downloading libraries into DataErrors that say what to do, where known."""
    try:
        yield
    except DataError:
        raise
    except ModuleNotFoundError as error:
        raise DataError(f"{error.name} is not installed: {install_command('data')}") from error
    # There are several HTTP libraries, with errors of their own, one wrapped in another.
    except Exception as error:
        causes: list[BaseException] = [error]
        while below := causes[-1].__cause__ or causes[-1].__context__:
            causes.append(below)
        kinds = {kind.__name__ for cause in causes for kind in type(cause).__mro__}
        if kinds & {"GatedRepoError", "LocalTokenNotFoundError"}:
            page = gated or f"https://huggingface.co/{item.hub}"
            raise DataError(
                f"open only to those who accepted its terms: accept them at {page}, then sign in "
                "with `hf auth login`"
            ) from error
        if kinds & _OFFLINE:
            raise UnreachableError(f"{item.host} cannot be reached") from error
        raise DataError(str(error) or type(error).__name__) from error
