"""Profiles and runs, as described by the files in `configs`.

A profile is one YAML file. It holds the model, the data, the number of seeds, the settings that all
runs share, and one entry for each run, with only the settings that differ from the shared ones. In
such an entry, `label` is the name of the run in tables and figures, `look` its marker and colour
there, `like` names runs whose
settings are applied first, and `study: true` marks a run of the studies beside the paper.
"""

from __future__ import annotations

import dataclasses
import os
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cae_lab.runs import Profile, SearchSpace
from cae_lib.config import Experiment, paths, repository_root
from cae_lib.errors import ConfigError, check_type, field_types

RUN_KEYS: Mapping[str, Any] = {
    "label": str,
    "look": str,
    "like": str | list,
    "study": bool,
}
"""Keys that the entry of a run may have in addition to the settings of `Experiment`, with their
types."""

_FIXED = ("name", "profile", "seed")
"""Fields of `Experiment` that no file may set."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The YAML loader, in C if PyYAML has it, because all profiles are read at each start."""


def _config_folder() -> Path:
    """Return the folder of the profiles' files, in the repository or in the installed package."""
    home = repository_root()
    return home / "configs" if home else Path(__file__).parent / "configs"


def read_profile(path: Path) -> Profile:
    """Read a profile from its file.

    Args:
        path: A file of `configs`; the profile gets the name of the file. If the file has a key
            `like: OTHER`, the content of `OTHER.yaml` in the same folder is read first and then
            updated, key by key, with the content of this file.

    Raises:
        ConfigError: If the file is not valid YAML, lacks a key, has an unknown key or a value of
            the wrong type, or if a key `like` names no other file or no other run; the message
            names the file, the key and what is allowed.
    """
    content = _load(path)
    entries = content.pop("runs", None)
    if not isinstance(entries, dict):
        raise ConfigError(f"{path}: runs: expected a mapping from names of runs to their settings")
    types: dict[str, Any] = {field.name: field.type for field in dataclasses.fields(Profile)}
    _check_keys(f"{path}", content, types.keys() - {"name", "runs", "labels", "looks", "studies"})
    for key in ("base", "training", "short"):
        if key in content and (key != "base" or content[key] is not None):
            content[key] = _settings(f"{path}: {key}", content[key])
    entries = {name: _entry(f"{path}: runs: {name}", entry) for name, entry in entries.items()}
    if "search" in content:
        search, location = content["search"], f"{path}: search"
        if not isinstance(search, dict):
            raise ConfigError(f"{location}: expected a mapping from settings to lists of values")
        _check_keys(location, search, {field.name for field in dataclasses.fields(SearchSpace)})
        search = {key: _tuple(f"{location}: {key}", value) for key, value in search.items()}
        content["search"] = SearchSpace(**search)
    content["earlier_bases"] = _tuple(f"{path}: earlier_bases", content.get("earlier_bases", []))
    runs = {name: _resolved(path, name, entries) for name in entries}
    labels = {name: entry["label"] for name, entry in entries.items() if "label" in entry}
    looks = {name: _look(path, name, entry) for name, entry in entries.items() if "look" in entry}
    studies = frozenset(name for name, entry in entries.items() if entry.get("study"))
    fields: dict[str, Any] = (
        {"base": None}
        | content
        | {"runs": runs, "labels": labels, "looks": looks, "studies": studies}
    )
    missing = [name for name in ("seeds", "training") if name not in fields]
    if missing:
        raise ConfigError(f"{path}: {', '.join(missing)}: missing, but every profile needs it")
    for name, value in fields.items():
        if types[name] in ("int", "bool"):
            check_type(f"{path}: {name}", value, {"int": int, "bool": bool}[types[name]])
    return Profile(name=path.stem, **fields)


def _look(path: Path, name: str, entry: Mapping[str, Any]) -> tuple[str, str]:
    """Return the marker and the colour that the key `look` of a run states."""
    words = entry["look"].split()
    if len(words) != 2:
        raise ConfigError(
            f"{path}: runs: {name}: look: {entry['look']!r}: expected a marker of matplotlib and a "
            "colour, such as 'o #de8f05'"
        )
    return words[0], words[1]


def _tuple(location: str, value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise ConfigError(f"{location}: expected a list, got {value!r}")
    return tuple(value)


def _load(path: Path, below: tuple[str, ...] = ()) -> dict[str, Any]:
    """Read a file and merge it over the file that its key `like` names.

    That file may have a key `like` as well, and so on. In the result, `like` names the last of
    these files, which has no such key.

    Args:
        path: The file.
        below: Names of the files whose keys `like` led to this one; it must not name any of them.

    Raises:
        ConfigError: If the file is not valid YAML, does not hold a mapping, or has a key `like`
            that names no file or one that is being read already.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: cannot be read as YAML ({error})") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a mapping with the keys seeds, training and runs")
    if "like" not in content:
        return content
    other = path.with_name(f"{content['like']}.yaml")
    if other.stem in (path.stem, *below) or not other.is_file():
        raise ConfigError(f"{path}: like: {content['like']!r} is no other file of {path.parent}")
    below_content = _load(other, (*below, path.stem))
    first = below_content.get("like", other.stem)
    return _merged(below_content, content) | {"like": first}


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return `below` updated with `above`, where nested mappings are merged key by key."""
    nested = {
        key: _merged(below[key], value)
        for key, value in above.items()
        if isinstance(value, dict) and isinstance(below.get(key), dict)
    }
    return {**below, **above, **nested}


def _check_keys(location: str, content: Mapping[str, Any], allowed: typing.Collection[str]) -> None:
    for key in content:
        if key not in allowed:
            raise ConfigError(
                f"{location}: unknown key {key!r}, expected one of {', '.join(sorted(allowed))}"
            )


def _settings(location: str, content: Any) -> dict[str, Any]:
    """Check settings of `Experiment`, and convert YAML's lists and mappings to tuples."""
    hints = field_types(Experiment)
    if not isinstance(content, dict):
        raise ConfigError(
            f"{location}: expected a mapping from settings to values, got {content!r}"
        )
    _check_keys(location, content, hints.keys() - {*_FIXED})
    values = {}
    for key, value in content.items():
        if isinstance(value, dict):
            value = tuple(value.items())
        elif isinstance(value, list):
            value = tuple(value)
        check_type(f"{location}: {key}", value, hints[key])
        values[key] = value
    return values


def _entry(location: str, entry: Any) -> dict[str, Any]:
    """Check the entry of a run, and convert `like` to a list."""
    if not isinstance(entry, dict):
        raise ConfigError(
            f"{location}: expected a mapping such as {{method: gradcam, weight: 0.1}}"
        )
    allowed = field_types(Experiment).keys() - {*_FIXED} | {*RUN_KEYS}
    _check_keys(location, entry, allowed)
    result = _settings(location, {key: entry[key] for key in entry if key not in RUN_KEYS})
    for key, kind in RUN_KEYS.items():
        if key in entry:
            check_type(f"{location}: {key}", entry[key], kind)
            result[key] = entry[key]
    if isinstance(result.get("like"), str):
        result["like"] = [result["like"]]
    return result


def _resolved(
    path: Path, name: str, entries: Mapping[str, dict[str, Any]], seen: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Return the settings of a run: those of the runs that it is `like`, updated with its own.

    Args:
        path: The file of the profile, for error messages.
        name: Name of the run.
        entries: Checked entries of all runs, by name.
        seen: Names of the runs whose keys `like` led to this one.

    Raises:
        ConfigError: If a key `like` names no run of the file, or one that is in `seen`.
    """
    settings: dict[str, Any] = {}
    for other in entries[name].get("like", ()):
        if other not in entries or other in (*seen, name):
            raise ConfigError(f"{path}: runs: {name}: like: {other!r} is no other run of this file")
        settings |= _resolved(path, other, entries, (*seen, name))
    return settings | {key: value for key, value in entries[name].items() if key not in RUN_KEYS}


PROFILES: dict[str, Profile] = {
    path.stem: read_profile(path) for path in sorted(_config_folder().glob("*.yaml"))
}
"""All profiles, by name."""


def load_profile(name: str) -> Profile:
    """Return the profile with this name.

    Raises:
        ConfigError: If there is no such profile; the message lists the known ones.
    """
    if name not in PROFILES:
        raise ConfigError(f"unknown profile {name!r}: expected one of {', '.join(PROFILES)}")
    return PROFILES[name]


def use_profile_home(profile: Profile) -> None:
    """Set `CAE_HOME` to the profile's own folder, for this process and its children.

    Only rehearsals (profiles whose field `is_rehearsal` is true) have such a folder: they write
    invented datasets and results into `build/NAME`, so that these never mix with real ones. Nothing
    is done for other profiles, or if the project's folder already has the profile's name.
    """
    if profile.is_rehearsal and paths().root.name != profile.name:
        os.environ["CAE_HOME"] = str(paths().build / profile.name)
