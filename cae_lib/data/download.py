"""Getting one file: over HTTP, or by the libraries of the Hugging Face hub or Google Drive."""

from __future__ import annotations

import errno
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import requests
from tqdm import tqdm

from cae_lib.data.sources import Item
from cae_lib.errors import DataError

MARGIN, TIMEOUT = 200e6, (15, 60)
CHUNK = 1 << 14  # bytes written at a time; of a broken connection an unfinished chunk is lost
TRIES = 4  # transfers one after another without a new byte before giving up
NO_ROUTE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN)


class UnreachableError(DataError):
    """A host that cannot be reached: its name, and what the network answered."""

    def __init__(self, address: str, error: BaseException) -> None:
        self.host = urlsplit(address).hostname or address
        self.reason = _reason(error)
        super().__init__(f"{self.host} cannot be reached ({self.reason})")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, and those that led to it, the first one last."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _reason(error: BaseException) -> str:
    """Return what the first error of a chain says, without the texts of libraries around it."""
    *_, first = _causes(error)
    return getattr(first, "strerror", None) or str(first)


def _is_unreachable(error: BaseException) -> bool:
    """Return whether an error is due to a host that does not answer at all."""
    kinds = (ConnectionError, TimeoutError, socket.gaierror, requests.ConnectionError)
    return any(
        isinstance(cause, kinds) or getattr(cause, "errno", None) in NO_ROUTE
        for cause in _causes(error)
    )


def require_space(folder: Path, needed: float, what: str) -> None:
    """Raise a DataError if a disk has no room for so many bytes, and 200 MB to stay free."""
    free = shutil.disk_usage(folder).free
    if needed > 0 and free < needed + MARGIN:
        raise DataError(
            f"{what}: needs {(needed + MARGIN) / 1e9:.2f} GB on the disk of {folder}, "
            f"{free / 1e9:.2f} GB are free. Free some space, or set CAE_HOME to a larger disk"
        )


def download(url: str, path: Path) -> None:
    """Fetch a file over HTTP; one that is here in part is gone on with.

    Only bytes of one version are joined, by `Range` and `If-Range` (RFC 9110, sections 13.1.5 and
    14.2); it is noted beside the file. What another try cannot mend is a DataError, an
    UnreachableError if the host did not answer.
    """
    failures, start = 0, _size(path)
    while True:
        before = _size(path)
        try:
            return _transfer(url, path)
        except requests.RequestException as error:
            have = _size(path)
            failures = 1 if have > before else failures + 1
            unreachable = isinstance(error, requests.ConnectionError) and have == start
            if failures == TRIES or (unreachable and not have):
                if unreachable:
                    raise UnreachableError(url, error) from error
                kept = f"; {have:,} bytes are kept, and the next call goes on from there"
                wrong = f"{url}: the download does not get on ({_reason(error)})"
                raise DataError(wrong + (kept if have else "")) from error
            time.sleep(2 ** (failures - 1))


def _transfer(url: str, path: Path) -> None:
    """Append what is missing to the file, or write it anew; a RequestException if it broke off."""
    note = version_note(path)
    have = _size(path) if note.is_file() else 0
    missing = {"Range": f"bytes={have}-", "If-Range": note.read_text()} if have else {}
    headers = {"Accept-Encoding": "identity", **missing}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        _refuse(url, response)
        span = response.headers.get("Content-Range", "")
        if response.status_code == 416 and span == f"bytes */{have}":
            return
        if response.status_code == 200:
            have = 0
            path.unlink(missing_ok=True)
            note.unlink(missing_ok=True)
            etag = response.headers.get("ETag", "")
            weak = not etag or etag.startswith("W/")
            if version := response.headers.get("Last-Modified") if weak else etag:
                note.write_text(version)
        elif not span.startswith(f"bytes {have}-"):
            path.unlink(missing_ok=True)
            raise requests.RequestException("the server does not send what is missing")
        length = response.headers.get("Content-Length", "")
        total = have + int(length) if length.isdigit() else None
        require_space(path.parent, (total or 0) - have, path.name)
        bar = tqdm(None, path.name, total, initial=have, unit="B", unit_scale=True, disable=None)
        with path.open("ab") as file, bar:
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
    if total not in (None, _size(path)):
        raise requests.RequestException(f"{_size(path):,} bytes in place of {total:,}")


def _refuse(url: str, response: requests.Response) -> None:
    """Stop where another try cannot help."""
    status = response.status_code
    if 400 <= status < 500 and status not in (408, 416, 429):
        raise DataError(f"{url}: the server answers {status} {response.reason}")
    if status != 416:
        response.raise_for_status()
    if response.ok and response.headers.get("Content-Type", "").startswith("text/html"):
        raise DataError(f"{url}: a web page came in place of the file, perhaps to sign in")


def version_note(path: Path) -> Path:
    """The file beside an unfinished one that names its version."""
    return path.with_name(f"{path.name}.version")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def from_hub(item: Item, target: Path, gated: str | None, revision: str) -> tuple[Path, str]:
    """Fetch a file of a hub repository to `target`, a whole one into it, weights to its cache.

    Returns:
        Where it is, and the commit that was fetched.
    """
    from huggingface_hub import HfApi, errors, hf_hub_download, snapshot_download

    name = item.hub.removeprefix("datasets/")
    kind = "dataset" if name != item.hub else "model"
    try:
        commit = HfApi().repo_info(name, repo_type=kind, revision=revision).sha
        if item.open_clip:  # without a revision: so open_clip asks for it, and finds it
            return Path(hf_hub_download(name, item.path)), commit
        if not item.path:
            snapshot_download(name, repo_type=kind, revision=commit, local_dir=target)
            return target, commit
        folder = hub_folder(target)
        found = hf_hub_download(name, item.path, repo_type=kind, revision=commit, local_dir=folder)
        Path(found).replace(target)
        shutil.rmtree(folder)
        return target, commit
    except (errors.GatedRepoError, errors.LocalTokenNotFoundError) as error:
        page = gated or f"https://huggingface.co/{item.hub}"
        raise DataError(
            f"{item.hub}: open to those only who accepted its terms. Accept them at {page}, then "
            "sign in with `hf auth login` (or set HF_TOKEN)"
        ) from error
    except Exception as error:  # the hub's library hands on those of its HTTP library, which varies
        if isinstance(error, errors.LocalEntryNotFoundError) or _is_unreachable(error):
            raise UnreachableError(item.address, error) from error
        raise DataError(f"{item.hub}, {revision}: the hub does not give it ({error})") from error


def hub_folder(target: Path) -> Path:
    """Return the folder beside a file in which the hub's library downloads it."""
    return target.with_name(f".{target.name}.hub")


def from_drive(key: str, target: Path) -> None:
    """Fetch a file of Google Drive with gdown, which the extra `data` installs."""
    try:
        import gdown
    except ImportError as error:
        raise DataError("Google Drive needs gdown: pip install 'cae-lib[data]'") from error
    try:
        gdown.download(id=key, output=str(target), resume=True)
    except Exception as error:  # gdown's own errors have no common base across its versions
        if _is_unreachable(error):
            raise UnreachableError("https://drive.google.com", error) from error
        raise DataError(f"Google Drive does not give the file ({error})") from error
