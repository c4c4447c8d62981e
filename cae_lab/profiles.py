"""Profiles and runs, as described by the files in `configs`.

A profile is one YAML file with the settings that all runs share, and an entry for each run with
those that differ. In an entry, `label` is the run's name in tables and figures, `look` its marker
and colour there, `like` names runs whose settings are applied first, and `study: true` marks a run
of the studies beside the paper. If the profile has the key `main_runs`, all other runs are such.
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

# Keys of a run's entry that are no settings of `Experiment`, with their types.
RUN_KEYS: Mapping[str, Any] = {
    "label": str,
    "look": str,
    "like": str | list,
    "study": bool,
}

# Fields of `Profile` that no file states as such.
_NO_KEYS = frozenset(("name", "runs", "labels", "looks", "studies"))
_FIXED = ("name", "profile", "seed")  # fields of `Experiment` that no file may set

# In C if PyYAML has it, because all profiles are read at each start.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _config_folder() -> Path:
    home = repository_root()
    return home / "configs" if home else Path(__file__).parent / "configs"


def read_profile(path: Path) -> Profile:
    """Read a profile, named like its file; errors name the file, the key and what is allowed."""
    content = _load(path)
    entries = content.pop("runs", None)
    if not isinstance(entries, dict):
        raise ConfigError(f"{path}: runs: expected a mapping from names of runs to their settings")
    # Postponed annotations make each type a text, such as "int".
    types: dict[str, Any] = {field.name: field.type for field in dataclasses.fields(Profile)}
    _check_keys(f"{path}", content, types.keys() - _NO_KEYS | {"main_runs"})
    for key in ("base", "training", "short"):
        # `base: null` says that the base model is downloaded.
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
    if (main_runs := content.pop("main_runs", None)) is not None:
        main_runs = _tuple(f"{path}: main_runs", main_runs)
        if unknown := [name for name in main_runs if name not in entries]:
            raise ConfigError(f"{path}: main_runs: no runs: {', '.join(map(str, unknown))}")
        studies = frozenset(entries) - {*main_runs}
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
    """Read a file and merge it over the file that its key `like` names, and so on.

    In the result, `like` names the last of these files. `below` are the files that led to this one.
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
    # A circle of files would be read for ever.
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
    """Return the settings of a run: those of the runs that it is `like`, updated with its own."""
    settings: dict[str, Any] = {}
    for other in entries[name].get("like", ()):
        if other not in entries or other in (*seen, name):
            raise ConfigError(f"{path}: runs: {name}: like: {other!r} is no other run of this file")
        settings |= _resolved(path, other, entries, (*seen, name))
    return settings | {key: value for key, value in entries[name].items() if key not in RUN_KEYS}


PROFILES: dict[str, Profile] = {
    path.stem: read_profile(path) for path in sorted(_config_folder().glob("*.yaml"))
}


def load_profile(name: str) -> Profile:
    """Return the profile with this name.

    Raises:
        ConfigError: If there is no such profile; the message lists the known ones.
    """
    if name not in PROFILES:
        raise ConfigError(f"unknown profile {name!r}: expected one of {', '.join(PROFILES)}")
    return PROFILES[name]


def use_profile_home(profile: Profile) -> None:
    """Set `CAE_HOME` of this process and its children to `build/NAME` if this is a rehearsal."""
    # There, invented datasets and results never mix with real ones. A child process of a rehearsal
    # is in this folder already.
    if profile.is_rehearsal and paths().root.name != profile.name:
        os.environ["CAE_HOME"] = str(paths().build / profile.name)
