"""Compare the stored tables with those of a commit or of another folder: `cae compare`."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from cae_lib import store
from cae_lib.config import paths
from cae_lib.errors import ConfigError, DataError
from cae_lib.profiles import find_profile

ANSWER_COLUMNS = ("correct", "rank")
"""Columns that hold a model's answer to an item; a difference is reported as a changed answer."""


def compare_tables(profile_name: str, commit_or_folder: str) -> None:
    """Compare all tables of a profile with those of a commit or of another folder.

    Staged rows are first moved into the tables. Then one line is printed for each run of a table
    that differs or exists on one side only, and a line with totals.

    Args:
        profile_name: Name of the profile.
        commit_or_folder: Path of a folder with tables or, if there is no such folder, a commit in
            the notation of git.

    Raises:
        ConfigError: If the profile is unknown. With a commit, also if the tables of the profile are
            in no commit, or if git is missing or cannot read the tables from the commit.
        DataError: If there are no tables to compare with, or a table cannot be read.
        WriteError: If the staged rows cannot be moved.
    """
    store.merge_staged(profile_name)
    profile = find_profile(profile_name)
    if Path(commit_or_folder).is_dir():
        _print_differences(Path(commit_or_folder), profile.records, commit_or_folder)
        return
    if not profile.recorded:
        raise ConfigError(
            f"tables of the profile {profile.name} mean nothing, and are in no commit"
        )
    place = profile.records.relative_to(paths().root)
    archive = io.BytesIO(_git("archive", commit_or_folder, place.as_posix()))
    with TemporaryDirectory() as scratch, tarfile.open(fileobj=archive) as tables:
        for entry in tables:
            if (content := tables.extractfile(entry)) is not None:  # it is a file
                Path(scratch, Path(entry.name).name).write_bytes(content.read())
        _print_differences(Path(scratch), profile.records, commit_or_folder)


def _print_differences(old_folder: Path, new_folder: Path, old_name: str) -> None:
    """Print how the tables in the folder `new_folder` differ from those in the folder `old_folder`.

    Args:
        old_folder: Folder of the tables to compare with.
        new_folder: Folder of the present tables.
        old_name: Name of the commit or folder that the old tables come from, for the messages.

    Raises:
        DataError: If `old_folder` has no tables.
    """
    old_rows, new_rows = _by_run(old_folder), _by_run(new_folder)
    if not old_rows:
        raise DataError(f"{old_name} has no tables of {new_folder.name}: name another --profile")
    lines = [
        f"{name}: {'new' if name in new_rows else 'gone'}"
        for name in sorted(old_rows.keys() ^ new_rows)
    ]
    in_both = sorted(old_rows.keys() & new_rows)
    n_rows = 0
    for name in in_both:
        compared, text = _compare_frames(
            store.read_rows(old_rows[name]).to_pandas(), store.read_rows(new_rows[name]).to_pandas()
        )
        n_rows += compared
        lines += [f"{name}: {text}"] if text else []
    total = f"{len(in_both)} tables of runs, {n_rows:,} rows compared with {old_name}"
    print("\n".join([*lines, f"{len(lines)} differ; {total}"] if lines else [f"same: {total}"]))


def _compare_frames(old: pd.DataFrame, new: pd.DataFrame) -> tuple[int, str]:
    """Compare two tables row by row.

    Returns:
        The number of compared rows, and a description of the differences, which is empty if the
        tables are equal. The description gives the numbers of changed answers, the largest
        difference of a number, the columns in which only one table has a number, and the columns in
        which other values differ. If the tables differ in their columns or numbers of rows, no rows
        are compared, and the description says so.
    """
    if list(old.columns) != list(new.columns):
        changed = sorted(set(old.columns) ^ set(new.columns)) or ["their order"]
        return 0, f"other columns: {', '.join(changed)}"
    if len(old) != len(new):
        return 0, f"{len(old):,} rows then, {len(new):,} now"
    findings: list[str] = []
    distances: dict[str, float] = {}
    for name in old.columns:
        missing = old[name].isna()
        differs = int(((old[name] != new[name]) & ~(missing & new[name].isna())).sum())
        if differs and name in ANSWER_COLUMNS:
            findings.append(
                f"{differs:,} answers changed ({name}, {100 * differs / len(old):.2g} %)"
            )
        elif differs and pd.api.types.is_float_dtype(old[name]):
            distance = (old[name].astype(float) - new[name].astype(float)).abs().max()
            if distance > 0:  # NaN if in every row a side has no number
                distances[name] = distance
            if missing.ne(new[name].isna()).any():
                findings.append(f"{name}: a number here, none there")
        elif differs:
            findings.append(f"other items: {name} differs in {differs:,} rows")
    if distances:
        column = max(distances, key=lambda name: distances[name])
        findings.append(f"largest difference {distances[column]:.2g} ({column})")
    return len(old), f"{len(old):,} rows, " + "; ".join(findings) if findings else ""


def _git(*arguments: str) -> bytes:
    root = paths().root
    try:
        return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True).stdout
    except OSError as error:
        raise ConfigError(f"`cae compare` needs git ({error.strerror})") from error
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode().strip()
        raise ConfigError(f"git {' '.join(arguments[:2])} in {root}: {reason}") from error


def _by_run(place: Path) -> dict[str, list[store.StoredRows]]:
    """Return where the rows of the tables in a folder are stored, by TABLE/RUN."""
    held: dict[str, list[store.StoredRows]] = {}
    for path in place.glob("*.parquet"):
        for (run, _), rows in store.read_index(path).items():
            held.setdefault(f"{path.stem}/{run}", []).append(rows)
    return held
