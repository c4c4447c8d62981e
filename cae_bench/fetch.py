"""Fetch the files of a source for `cae data get`: download, check, unpack, and put into place.

pooch downloads from plain addresses, huggingface_hub from the Hugging Face hub, and gdown from
Google Drive; the extra `data` installs them. A file is moved to its place once it is complete.
Nothing is written outside of `data/raw`, except weights that open_clip looks for in the hub's own
cache, and gdown's cookies in `~/.cache/gdown`.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cae_bench.completeness import checksum_of
from cae_bench.sources import Download, Source
from cae_bench.unpack import check_destination, unpack
from cae_lib.config import cached_open_clip_weights, install_command, paths
from cae_lib.errors import DataError

_OFFLINE = {
    *("ConnectionError", "ConnectError", "TimeoutError", "TimeoutException", "gaierror"),
    "LocalEntryNotFoundError",
}
"""Names of the exceptions that the downloading libraries raise if a host does not answer."""


class UnreachableError(DataError):
    """A download failed because its host cannot be reached."""


def fetch_source(source: Source) -> list[str]:
    """Fetch the files of a source that are not on this machine yet, and unpack its archives.

    An archive is removed once it is unpacked. A file that the user has already put at its path, or
    an archive in the source's download folder, is checked (if a checksum is published) and used
    instead of a download. If one file fails, the others are still fetched. A host that does not
    answer is asked only once. If no file fails, the symbolic links in `source.links` are created
    where there is nothing yet.

    Args:
        source: The source.

    Returns:
        Instructions for the files that have to be fetched by hand. They are also returned if such a
        file is already there, unless it is an archive.

    Raises:
        DataError: If files could not be fetched, checked or unpacked; the message names each file
            with its address and says what to do.
    """
    by_hand, failures = [], []
    unreached: dict[str, UnreachableError] = {}
    for item in source.files:
        try:
            by_hand += _fetch_file(source, item, unreached)
        except DataError as error:
            if isinstance(error, UnreachableError):
                unreached[item.host] = error
            place = "~/.cache/huggingface/hub" if item.open_clip else source.local_path(item)
            failures.append(f"{item.browser_url or item.name} -> {place} ({error})")
    if failures:
        raise DataError(
            f"{source.title}: {len(failures)} of {len(source.files)} files could not be fetched. "
            f"Run `cae data get {source.name}` again; or fetch these on another machine or with a "
            "browser, put them where the arrow points, and run it then\n  " + "\n  ".join(failures)
        )
    for name, folder in source.links.items():  # where the reader of this source looks for images
        link, target = source.root / name, source.root / folder
        if not link.is_symlink() and not link.exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(target, link.parent), target_is_directory=True)
    return by_hand


def _fetch_file(
    source: Source, item: Download, unreached: dict[str, UnreachableError]
) -> list[str]:
    """Fetch one file or repository of a source and move it to its place, or unpack it there.

    Args:
        source: The source that the item belongs to.
        item: The file or repository. A file that is already in its place is not fetched again. For
            a whole repository, the hub is asked each time for files that are missing or changed.
        unreached: Errors of the hosts that did not answer, by host; such a host is not asked again.

    Returns:
        Instructions if the user has to fetch the item by hand, as in `fetch_source`; otherwise [].

    Raises:
        UnreachableError: If the host cannot be reached.
        DataError: If the item cannot be downloaded or unpacked, its checksum is wrong, or its place
            is a symbolic link or lies behind one that leads out of `data/raw`.
    """
    place = source.local_path(item)
    marker = source.root / item.unpack / f".{item.name}.unpacked"
    if item.open_clip:
        is_present = cached_open_clip_weights(item.hub or "") is not None
    else:
        is_present = bool(item.unpack) and marker.is_file()
    if is_present:
        return []
    if item.how and not (item.unpack and place.is_file()):
        return [f"{item.how} Put it at {place}." if item.unpack else item.how]
    if not item.open_clip:
        for path in (place, marker):
            check_destination(path, paths().raw)
        place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_file():
        _verify_checksum(place, item.checksum)
    elif item.host in unreached:
        raise unreached[item.host]
    else:
        print(f"{source.title}: fetching {item.name} from {item.browser_url}", flush=True)
        with _translated_errors(item, source.gated):
            _download(item, place)
    if item.unpack:
        unpack(place, source.root, item.unpack, item.only)
        marker.touch()
        place.unlink()
    return []


def _download(item: Download, place: Path) -> None:
    """Download an item to `place`; weights of open_clip go to the hub's cache instead.

    Errors of the downloading libraries pass through; see `_translated_errors`.

    Raises:
        DataError: If the file has another checksum than the published one; it is then removed.
    """
    from huggingface_hub import hf_hub_download, snapshot_download

    name = (item.hub or "").removeprefix("datasets/")
    kind = "model" if name == item.hub else "dataset"
    file = item.path or ""
    if item.open_clip:
        path = Path(hf_hub_download(name, file))  # without a revision, as open_clip asks
        try:
            _verify_checksum(path, item.checksum)
        except DataError:  # else open_clip would use it
            path.resolve().unlink()
            path.unlink(missing_ok=True)
            raise
        return
    if item.hub and not item.path:
        snapshot_download(name, repo_type=kind, revision=item.revision, local_dir=place)
        return
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=place.parent) as folder:
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
            pooch.retrieve(item.url, None, path.name, folder, downloader=http)
        _verify_checksum(path, item.checksum)
        path.replace(place)


def _verify_checksum(path: Path, checksum: str | None) -> None:
    """Check that a file has a published checksum.

    Args:
        path: The file.
        checksum: "sha256:...", "md5:..." or "git:..." (the id of a git blob), in hexadecimal; None
            skips the check.

    Raises:
        DataError: If the file has another checksum.
    """
    kind, _, expected = (checksum or "").partition(":")
    if checksum and (digest := checksum_of(path, kind)) != expected:
        raise DataError(
            f"{path}: its {kind} checksum is {digest}, {expected} was expected: it is damaged, or "
            "has changed at its source. Remove it if it is still there"
        )


@contextmanager
def _translated_errors(item: Download, gated: str | None) -> Iterator[None]:
    """Turn errors of the downloading libraries into DataErrors.

    Args:
        item: The file or repository that is downloaded.
        gated: Page where the user has to accept the terms; None for the page of `item` on the hub.

    Raises:
        UnreachableError: If the host does not answer.
        DataError: If the body raises any other exception; the message says what to do where that
            is known.
    """
    try:
        yield
    except DataError:
        raise
    except ModuleNotFoundError as error:
        raise DataError(f"{error.name} is not installed: {install_command('data')}") from error
    except Exception as error:  # there are several HTTP libraries, with errors of their own
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
