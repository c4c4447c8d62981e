"""The list of data sets and weight files, `data/sources.yml`, read and checked."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from cae_lib.config import paths
from cae_lib.data.sources import KINDS, WAYS, Item, Pictures, Rows, Source, Unpack
from cae_lib.errors import ConfigError, DataError


def sources_path() -> Path:
    """The list in the repository that holds this package, else below the data folder."""
    own = Path(__file__).resolve().parents[2] / "data" / "sources.yml"
    return own if own.is_file() else paths().data / "sources.yml"


def load_sources(path: str | Path | None = None) -> dict[str, Source]:
    """All sources by name, in the order of the file.

    Raises:
        DataError: The file is missing or an entry is malformed; names the entry and the field.
    """
    return dict(_load(Path(path) if path is not None else sources_path()))


def source(name: str) -> Source:
    """The source of that name.

    Raises:
        ConfigError: There is none; the message lists the known ones.
    """
    known = load_sources()
    if name not in known:
        raise ConfigError(f"no data set or weights {name!r}. Known: {', '.join(known)}.")
    return known[name]


def expand(pattern: str) -> list[str]:
    """All paths that a pattern with `{a,b}` stands for.

    >>> expand("{a,b}/{1,2}.csv")
    ['a/1.csv', 'a/2.csv', 'b/1.csv', 'b/2.csv']
    """
    parts = re.split(r"\{([^}]*)\}", pattern)
    options = [part.split(",") if i % 2 else [part] for i, part in enumerate(parts)]
    return ["".join(choice) for choice in itertools.product(*options)]


@lru_cache(maxsize=4)
def _load(path: Path) -> dict[str, Source]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{path}: cannot be read ({error}). Restore it from the repository.") from (
            error
        )
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a mapping of names to entries.")
    return {name: _source(f"{path}, {name}", name, entry) for name, entry in content.items()}


def _source(where: str, name: str, entry: Any) -> Source:
    entry = dict(entry) if isinstance(entry, Mapping) else {}
    parts = {
        "get": tuple(_item(where, item) for item in entry.pop("get", ())),
        "rows": tuple(_build(where, Rows, row) for row in entry.pop("rows", ())),
        "pictures": tuple(_build(where, Pictures, row) for row in entry.pop("pictures", ())),
    }
    found = _build(where, Source, {"name": name} | entry | parts)
    if found.kind not in KINDS:
        raise DataError(f"{where}: kind is {found.kind!r}; expected one of {', '.join(KINDS)}.")
    return found


def _item(where: str, entry: Any) -> Item:
    entry = dict(entry) if isinstance(entry, Mapping) else {}
    unpack = tuple(_build(where, Unpack, part) for part in entry.pop("unpack", ()))
    item = _build(where, Item, entry | {"unpack": unpack})
    ways = [way for way in WAYS if getattr(item, way)]
    if not ways or (len(ways) > 1 and "how" not in ways):
        raise DataError(f"{where}: an item gives {ways or 'no way'}; expected one of {WAYS}.")
    if item.sha256 is not None and not re.fullmatch("[0-9a-f]{64}", item.sha256):
        raise DataError(f"{where}: sha256 {item.sha256!r} is not 64 hexadecimal digits.")
    if not item.file and item.url:
        item = dataclasses.replace(item, file=item.url.partition("?")[0].rsplit("/", 1)[-1])
    return item


def _build(where: str, kind: type, entry: Any) -> Any:
    """A dataclass from a mapping whose lists become tuples."""
    if not isinstance(entry, Mapping):
        raise DataError(f"{where}: {entry!r} is no mapping of the fields of {kind.__name__}.")
    known = {field.name for field in dataclasses.fields(kind)}
    needed = {
        field.name
        for field in dataclasses.fields(kind)
        if field.default is field.default_factory is dataclasses.MISSING
    }
    if unknown := set(entry) - known:
        raise DataError(f"{where}: {kind.__name__} has no field {', '.join(sorted(unknown))}.")
    if absent := needed - set(entry):
        raise DataError(f"{where}: {kind.__name__} lacks {', '.join(sorted(absent))}.")
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()})
