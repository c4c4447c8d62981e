"""Download of one file over HTTP: resumed where it stopped, complete, and with a known checksum.

`requests` does the transfers. Only bytes of one version of a file are ever joined: what is missing
is asked for with `Range` and `If-Range` (RFC 9110, sections 13.1.5 and 14.2).
"""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import requests
from tqdm import tqdm

from cae_lib.data.disk import require_space
from cae_lib.data.partial import Partial, Version
from cae_lib.errors import DataError

CHUNK = 1 << 14
"""Bytes written at a time; requests drops an unfinished chunk when a connection breaks."""

TIMEOUT = (15, 60)
REFUSED = {400, 401, 403, 404, 405, 410, 451}


class Offline(DataError):
    """The server was not reached at all."""


class _Again(Exception):
    """The transfer ended early, or the server was busy; says why."""


def download(
    url: str,
    target: Path,
    *,
    size: int | None = None,
    sha256: str | None = None,
    tries: int = 6,
    wait: float = 1.0,
    reserve: float = 1.0,
) -> str:
    """Fetch a file and return its SHA-256; what an earlier call left behind is gone on with.

    Args:
        url: Address.
        target: Where the complete file goes.
        size: Expected number of bytes; otherwise the server's own word is taken.
        sha256: Expected checksum.
        tries: Transfers one after another without a new byte before giving up.
        wait: Seconds before the second try, doubled for each further one.
        reserve: Free disk space needed, as a multiple of what is still to come.

    Raises:
        Offline: The server cannot be reached.
        DataError: The file is not there, is a web page in place of the file, is cut short again
            and again, has another size or checksum, or does not fit the disk.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = Partial(target)
    failures, reached = 0, False
    with requests.Session() as session:
        while True:
            before = part.size
            try:
                _transfer(session, url, part, size, reserve)
                break
            except _Again as error:
                reason, reached = str(error), True
            except (
                requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError
            ) as error:
                reason = f"{type(error).__name__}: {error}"
            except requests.RequestException as error:
                raise DataError(f"{url}: {error}") from error
            progressed = part.size > before
            reached = reached or progressed
            failures = 1 if progressed else failures + 1
            if failures >= (tries if reached else min(tries, 3)):
                raise (DataError if reached else Offline)(_gave_up(url, part, reason))
            time.sleep(wait * 2 ** (failures - 1))
    try:
        return part.accept(size, sha256)
    except DataError as error:
        raise DataError(f"{url}: {error}") from error


def _transfer(
    session: requests.Session, url: str, part: Partial, size: int | None, reserve: float
) -> None:
    """Append what is missing to the partial file, or write it anew.

    Raises:
        _Again: The transfer ended before the file's end, or the server was busy.
    """
    have, known = part.size, part.version
    headers = {"Accept-Encoding": "identity"}
    if have and known.validator:
        headers |= {"Range": f"bytes={have}-", "If-Range": known.validator}
    with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        _refuse(url, response)
        if response.status_code == 416 and known.total == have:
            return
        start = _start(response)
        if start not in (0, have):
            part.discard()
            raise _Again("the server does not send what is missing")
        version = _version(response, start)
        if size is not None and version.total not in (None, size):
            raise DataError(f"{url}: has {version.total:,} bytes, {size:,} were expected")
        total = version.total if version.total is not None else size
        require_space(part.path.parent, reserve * ((total or 0) - start), part.target.name)
        part.begin(version, start)
        _receive(response, part, start, total)
    if total is not None and part.size != total:
        written = part.size
        if written > total:
            part.discard()
        raise _Again(f"{written:,} bytes in place of {total:,}")


def _receive(response: requests.Response, part: Partial, start: int, total: int | None) -> None:
    terminal = sys.stderr.isatty()
    bar = tqdm(
        total=total, initial=start, unit="B", unit_scale=True, desc=part.target.name,
        mininterval=0.2 if terminal else 10.0, ascii=not terminal,
    )
    with part.path.open("ab") as file, bar:
        for chunk in response.iter_content(CHUNK):
            file.write(chunk)
            bar.update(len(chunk))


def _refuse(url: str, response: requests.Response) -> None:
    """Stop where another try cannot help; a busy server is asked again."""
    status = f"the server answers {response.status_code} {response.reason}"
    if response.status_code in REFUSED:
        raise DataError(f"{url}: {status}")
    if response.status_code not in (200, 206, 416):
        raise _Again(status)
    if response.ok and response.headers.get("Content-Type", "").startswith("text/html"):
        raise DataError(
            f"{url}: a web page came in place of the file, perhaps to sign in or to confirm"
        )


def _start(response: requests.Response) -> int:
    """Position of the first byte that comes; -1 if that cannot be told."""
    if response.status_code == 200:
        return 0
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else -1


def _version(response: requests.Response, start: int) -> Version:
    headers = response.headers
    etag = headers.get("ETag", "")
    validator = etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")
    whole = headers.get("Content-Range", "").rpartition("/")[2]
    length = headers.get("Content-Length", "")
    if headers.get("Content-Encoding", "identity") != "identity":
        return Version(None, None)
    if whole.isdigit():
        return Version(validator, int(whole))
    return Version(validator, start + int(length) if length.isdigit() else None)


def _gave_up(url: str, part: Partial, reason: str) -> str:
    kept = f"; {part.size:,} bytes are kept, and the next call goes on from there"
    return f"{url}: the download does not get on ({reason}){kept if part.size else ''}"
