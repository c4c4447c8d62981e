"""Pack the stored tables, and compare them with others: `cae pack` and `cae compare`.

`cae pack` writes the stored tables as one file for others. `cae compare` shows how the tables here
differ from those of such a file or of a commit.
"""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from cae_lib import results, runtime
from cae_lib.config import paths
from cae_lib.data.rows import read_json
from cae_lib.data.unpack import unpack
from cae_lib.errors import ConfigError, DataError
from cae_lib.keys import SUITE_VERSIONS, TRAINING_VERSION
from cae_lib.profiles import find_profile

ANSWERS = ("correct", "rank")
"""Columns that contain an answer; a difference in one of them is reported as a changed answer."""

MANIFEST = "manifest.json"


def pack(profile_name: str, output: Path) -> None:
    """Write all tables of a profile and their provenance as one archive.

    Raises:
        DataError: If there are no tables.
        WriteError: If the archive cannot be written; see `whole_file`.
    """
    results.collect(profile_name)
    folder = find_profile(profile_name).records
    files = {path: path.read_bytes() for path in sorted(folder.glob("*.parquet"))}
    if not files:
        raise DataError(f"{folder}: no table is stored")
    files[folder / MANIFEST] = json.dumps(manifest(), indent=2).encode()
    with runtime.whole_file(output) as target, tarfile.open(target, "w:gz") as archive:
        for path, content in files.items():
            entry = tarfile.TarInfo(path.relative_to(paths().root).as_posix())  # names no user
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    size = output.stat().st_size / 1e6
    print(f"{len(files) - 1} tables are in {output}, {size:.1f} MB")


def manifest() -> dict[str, Any]:
    """Return the provenance of the tables.

    It consists of the commit (None if git does not know it), whether there are uncommitted changes,
    the versions of training, of the suites and of the packages, and the device.
    """
    try:
        commit = _git("-C", str(runtime.PACKAGE), "rev-parse", "HEAD").decode().strip()
    except ConfigError:
        commit = None
    return {
        "commit": commit,
        "uncommitted changes": runtime.has_uncommitted_changes(),
        "version of training": TRAINING_VERSION,
        **{f"version of {suite}": version for suite, version in SUITE_VERSIONS.items()},
        "device": runtime.device_name(),
        **runtime.versions(),
    }


def run(profile_name: str, other: str) -> None:
    """Compare all tables of a profile with those of a commit or of an archive made by `pack`.

    The command prints how the provenance of an archive differs from the present one, and a line for
    each table of a run that differs.
    """
    results.collect(profile_name)
    folder = find_profile(profile_name).records
    place = folder.relative_to(paths().root)
    with TemporaryDirectory() as scratch:
        archive = Path(other)
        if not archive.is_file():
            if not find_profile(profile_name).recorded:
                raise ConfigError(
                    f"tables of the profile {profile_name} mean nothing, and are in no commit"
                )
            archive = Path(scratch, "commit.tar")
            archive.write_bytes(_git("archive", other, place.as_posix()))
        unpack(archive, Path(scratch), place.parts[0])  # without the one folder that holds it all
        compare(Path(scratch, place), folder, other)


def compare(before: Path, folder: Path, other: str) -> None:
    """Print how the tables of a folder differ from others.

    Args:
        before: Folder of the tables to compare with.
        folder: Folder of the present tables.
        other: Name of the commit or archive that the tables in `before` are from.

    Raises:
        DataError: If `before` has no tables.
    """
    old, new = (_by_run(place) for place in (before, folder))
    if not old:
        raise DataError(f"{other} has no tables of {folder.name}: name another --profile")
    lines = [f"{name}: {'new' if name in new else 'gone'}" for name in sorted(old.keys() ^ new)]
    rows = 0
    for name in sorted(old.keys() & new):
        compared, text = difference(
            *(results.read(one).to_pandas() for one in (old[name], new[name]))
        )
        rows += compared
        lines += [f"{name}: {text}"] if text else []
    if (before / MANIFEST).is_file():
        there = read_json(before / MANIFEST, dict)
        for name, value in manifest().items():
            if there.get(name) != value:
                print(f"{name}: {there.get(name)} there, {value} here")
    total = f"{len(old.keys() & new)} tables of runs, {rows:,} rows compared with {other}"
    print("\n".join([*lines, f"{len(lines)} differ; {total}"] if lines else [f"same: {total}"]))


def difference(old: pd.DataFrame, new: pd.DataFrame) -> tuple[int, str]:
    """Compare two tables, and return the number of compared rows and a description.

    The description gives the changed answers and the largest difference of a number. It is empty if
    the tables are equal.
    """
    if list(old.columns) != list(new.columns):
        changed = sorted(set(old.columns) ^ set(new.columns)) or ["their order"]
        return 0, f"other columns: {', '.join(changed)}"
    if len(old) != len(new):
        return 0, f"{len(old):,} rows then, {len(new):,} now"
    told, apart = [], pd.Series({"": 0.0})
    for name in old.columns:
        missing = old[name].isna()
        differs = int(((old[name] != new[name]) & ~(missing & new[name].isna())).sum())
        if differs and name in ANSWERS:
            told.append(f"{differs:,} answers changed ({name}, {100 * differs / len(old):.2g} %)")
        elif differs and pd.api.types.is_float_dtype(old[name]):
            apart[name] = (old[name].astype(float) - new[name].astype(float)).abs().max()
            if missing.ne(new[name].isna()).any():
                told.append(f"{name}: a number here, none there")
        elif differs:
            told.append(f"other items: {name} differs in {differs:,} rows")
    if apart.max():
        told.append(f"largest difference {apart.max():.2g} ({apart.idxmax()})")
    return len(old), f"{len(old):,} rows, " + "; ".join(told) if told else ""


def _git(*arguments: str) -> bytes:
    root = paths().root
    try:
        return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True).stdout
    except OSError as error:
        raise ConfigError(f"`cae compare` needs git ({error.strerror})") from error
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode().strip()
        raise ConfigError(f"git {' '.join(arguments[:2])} in {root}: {reason}") from error


def _by_run(place: Path) -> dict[str, list[results.Rows]]:
    """Return where the rows of the tables in a folder are stored, by TABLE/RUN."""
    held: dict[str, list[results.Rows]] = {}
    for path in place.glob("*.parquet"):
        for (run, _), rows in results.entries(path).items():
            held.setdefault(f"{path.stem}/{run}", []).append(rows)
    return held
