"""Files that a library of their host fetches: Hugging Face's hub, Google Drive, open_clip's cache.

These libraries resume, check and show progress themselves.
"""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path

from cae_lib.data.download import Offline
from cae_lib.data.sources import Item
from cae_lib.errors import DataError

WEIGHT_NAMES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def from_hub(item: Item, target: Path, gated: str | None) -> None:
    """Fetch a file of a hub repository to `target`, or a whole repository into it.

    Raises:
        Offline: The hub cannot be reached.
        DataError: The terms are not accepted yet, or there is no such repository or file.
    """
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    assert item.hub is not None
    name = item.hub.removeprefix("datasets/")
    kind = "dataset" if name != item.hub else "model"
    try:
        if item.path is None:
            snapshot_download(name, repo_type=kind, local_dir=target)
            return
        folder = target.with_name(f".{target.name}.hub")
        found = hf_hub_download(name, item.path, repo_type=kind, local_dir=folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        Path(found).replace(target)
        shutil.rmtree(folder, ignore_errors=True)
    except (GatedRepoError, LocalTokenNotFoundError) as error:
        page = gated or f"https://huggingface.co/{item.hub}"
        raise DataError(
            f"{item.hub}: open to those only who accepted its terms. Accept them at {page}, then "
            "sign in with `hf auth login` (or set HF_TOKEN)"
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise Offline(f"{item.hub}: the hub cannot be reached ({error})") from error
    except (RepositoryNotFoundError, EntryNotFoundError) as error:
        raise DataError(f"{item.hub}: not there, or not open to you ({error})") from error
    except HfHubHTTPError as error:
        raise DataError(f"{item.hub}: {error}") from error
    except OSError as error:
        raise Offline(f"{item.hub}: the hub cannot be reached ({error})") from error


def from_drive(item: Item, target: Path) -> None:
    """Fetch a file of Google Drive with gdown, which the extra `data` installs.

    Raises:
        DataError: gdown is not installed, or the file cannot be fetched.
    """
    try:
        gdown = importlib.import_module("gdown")
    except ImportError as error:
        raise DataError(
            "files at Google Drive need gdown, which is not installed here "
            "(pip install 'cae-lib[data]')"
        ) from error
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        gdown.download(id=item.drive, output=str(target), resume=True)
    except OSError as error:
        raise Offline(f"Google Drive cannot be reached ({error})") from error
    except Exception as error:  # gdown's own errors have no common base across its versions
        raise DataError(f"Google Drive does not give the file ({error})") from error
    if not target.is_file():
        raise DataError("Google Drive does not give the file")


def from_open_clip(item: Item) -> None:
    """Let open_clip download a model's weights into its cache.

    Raises:
        Offline: They cannot be fetched.
    """
    from open_clip.pretrained import download_pretrained, get_pretrained_cfg

    try:
        download_pretrained(get_pretrained_cfg(*item.open_clip))
    except Exception as error:  # whatever the hub's and urllib's errors are
        raise Offline(f"open_clip cannot fetch {' '.join(item.open_clip)} ({error})") from error


def open_clip_file(item: Item) -> Path | None:
    """The weights in open_clip's cache; None if they are not there. Asks no server."""
    from huggingface_hub import try_to_load_from_cache

    for name in WEIGHT_NAMES:
        found = try_to_load_from_cache(item.cache, name) if item.cache else None
        if isinstance(found, str):
            return Path(found)
    return None
