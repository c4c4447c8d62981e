"""Results as JSON records: small, committed, and computed again only when their key changes."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cae_lib.config import paths
from cae_lib.errors import DataError
from cae_lib.files import write_atomic
from cae_lib.provenance import stamp

FIELDS = ("name", "key", "config", "results", "provenance")


@dataclasses.dataclass(frozen=True)
class Record:
    """One stored result.

    Attributes:
        name: what it is, for example ``"cae-attention/aro/relation/0"``.
        key: hash of everything the result depends on; another key means another result.
        config: the settings, for the reader.
        results: the numbers; fractions, not percent, each with n used and n expected.
        provenance: see `cae_lib.provenance.stamp`.
    """

    name: str
    key: str
    config: dict[str, Any]
    results: dict[str, Any]
    provenance: dict[str, Any]


def record_path(name: str, profile: str) -> Path:
    """Return where a record lies; those of the smoke profile mean nothing and stay in the cache."""
    if profile == "smoke":
        return paths().cache / "smoke-records" / f"{name}.json"
    return paths().records / profile / f"{name}.json"


def save_record(record: Record, profile: str) -> Path:
    """Write a record as JSON with sorted keys, whole or not at all.

    Raises:
        DataError: a value is not plain data or not finite, or the file cannot be written.
    """
    content = _plain(dataclasses.asdict(record), f"record {record.name}")
    path = record_path(record.name, profile)
    write_atomic(path, json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    return path


def load_record(name: str, profile: str) -> Record:
    """Read a record.

    Raises:
        DataError: it is missing or malformed; the message names the file.
    """
    path = record_path(name, profile)
    advice = "restore it from version control, or delete it and run `make reproduce` again"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"no record {path}: `make reproduce` computes it") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not valid JSON ({error}): {advice}") from error
    if not isinstance(content, dict) or sorted(content) != sorted(FIELDS):
        found = sorted(content) if isinstance(content, dict) else type(content).__name__
        raise DataError(f"{path} holds {found}, expected {sorted(FIELDS)}: {advice}")
    return Record(**content)


def load_or_run(
    name: str,
    profile: str,
    key: str,
    compute: Callable[[], Mapping[str, Any]],
    *,
    config: Mapping[str, Any] | None = None,
    seed: int | None = None,
    fresh: bool = False,
) -> Record:
    """Return the stored record when its key still holds, else compute and store it.

    Args:
        name: the record's name; may contain "/".
        profile: the profile it belongs to.
        key: hash of all that the result depends on.
        compute: returns the results.
        config: settings to store beside them.
        seed: seed to store in the provenance.
        fresh: compute even when a stored record fits, unless this clone has computed it itself.
    """
    marker = paths().cache / profile / "done" / f"{name}.key"
    if record_path(name, profile).exists() and (not fresh or _marked(marker, key)):
        record = load_record(name, profile)
        if record.key == key:
            return record
    start = time.monotonic()
    results = dict(compute())
    provenance = stamp(profile, seed, wall_seconds=round(time.monotonic() - start, 1))
    save_record(Record(name, key, dict(config or {}), results, provenance), profile)
    write_atomic(marker, key)
    return load_record(name, profile)


def _marked(marker: Path, key: str) -> bool:
    return marker.is_file() and marker.read_text(encoding="utf-8") == key


def _plain(value: Any, place: str) -> Any:
    """Turn NumPy and PyTorch scalars and arrays into plain JSON values."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{place}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{place}[{index}]") for index, item in enumerate(value)]
    if hasattr(value, "tolist"):
        return _plain(value.tolist(), place)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, Path):
        raise DataError(f"{place}: {value} is a path, and records hold no paths of one machine")
    if isinstance(value, float):
        if not math.isfinite(value):
            raise DataError(f"{place} is {value}: store None where there is no number")
        return value
    raise DataError(f"{place} is a {type(value).__name__}, which JSON cannot hold")
