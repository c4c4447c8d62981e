"""Compare the stored tables with those of a commit or of another folder: `cae compare`."""

from __future__ import annotations

import filecmp
import io
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import pyarrow.parquet as pq

from cae_lab import store
from cae_lab.runs import Profile
from cae_lib.config import paths
from cae_lib.errors import ConfigError, DataError
from cae_lib.runtime import Progress

# Columns with a model's answer to an item; a difference is reported as a changed answer.
ANSWER_COLUMNS = ("correct", "rank")


def compare_tables(profile: Profile, commit_or_folder: str) -> None:
    """Print how all tables of a profile differ from those of a folder or, without one, a commit."""
    if Path(commit_or_folder).is_dir():
        _print_differences(Path(commit_or_folder), profile, commit_or_folder)
        return
    if not profile.recorded:
        raise ConfigError(
            f"tables of the profile {profile.name} mean nothing, and are in no commit"
        )
    records = profile.records.relative_to(paths().root)
    # An archive leaves the work tree and the index of the clone as they are.
    archive = io.BytesIO(_git("archive", commit_or_folder, records.as_posix()))
    with TemporaryDirectory() as scratch, tarfile.open(fileobj=archive) as tables:
        for entry in tables:
            if (content := tables.extractfile(entry)) is not None:  # it is a file
                Path(scratch, Path(entry.name).name).write_bytes(content.read())
        _print_differences(Path(scratch), profile, commit_or_folder)


def _print_differences(old_folder: Path, profile: Profile, old_name: str) -> None:
    """Print how the stored tables of a profile differ from those in a folder, `old_name`."""
    old = {path.stem: store.read_index(path) for path in old_folder.glob("*.parquet")}
    new = {table: store.index_of(table, profile) for table in store.table_names(profile)}
    old, new = ({table: rows for table, rows in side.items() if rows} for side in (old, new))
    if not old:
        raise DataError(f"{old_name} has no tables of {profile.name}: name another --profile")
    if not new:
        raise DataError(
            f"{profile.name} has no tables: measure runs by `cae evaluate RUN`, or set CAE_HOME to "
            "the folder that has them below data/records"
        )
    old_runs, new_runs = _runs(old), _runs(new)
    lines = [
        f"{table}/{run}: {'new' if (table, run) in new_runs else 'gone'}"
        for table, run in sorted(old_runs ^ new_runs)
    ]
    in_both, n_rows = old_runs & new_runs, 0
    with Progress(len(in_both), "comparing") as progress:
        for table in sorted(old.keys() & new.keys()):
            shared = {run for name, run in in_both if name == table}
            old_file, new_file = old_folder / f"{table}.parquet", store.packed_path(table, profile)
            is_packed = all(rows.path == new_file for rows in new[table].values())
            # Of equal files, the rows are counted and not read. Results beside the packed table
            # would make a difference that its file does not show.
            if is_packed and filecmp.cmp(old_file, new_file, shallow=False):
                n_rows += pq.read_metadata(old_file).num_rows
                progress.update(len(shared), table=table)
                continue
            # Lazy, and both in the order of the runs, so that each file is read once.
            sides = (
                store.read_runs({key: rows for key, rows in index.items() if key[0] in shared})
                for index in (old[table], new[table])
            )
            for (run, before), (_, after) in zip(*sides, strict=True):
                compared, text = _compare_frames(before.to_pandas(), after.to_pandas())
                n_rows += compared
                lines += [f"{table}/{run}: {text}"] if text else []
                progress.update(1, table=table)
    total = f"{len(in_both)} tables of runs, {n_rows:,} rows compared with {old_name}"
    print("\n".join([*lines, f"{len(lines)} differ; {total}"] if lines else [f"same: {total}"]))


def _compare_frames(old: pd.DataFrame, new: pd.DataFrame) -> tuple[int, str]:
    """Return the number of compared rows, and a description of the differences ("" for none)."""
    if list(old.columns) != list(new.columns):
        changed = sorted(set(old.columns) ^ set(new.columns)) or ["their order"]
        return 0, f"other columns: {', '.join(changed)}"
    if len(old) != len(new):
        return 0, f"{len(old):,} rows then, {len(new):,} now"
    findings: list[str] = []
    distances: dict[str, float] = {}
    for name in old.columns:
        missing = old[name].isna()
        # NaN differs from itself, but two missing values are equal here.
        differs = int(((old[name] != new[name]) & ~(missing & new[name].isna())).sum())
        if differs and name in ANSWER_COLUMNS:
            findings.append(
                f"{differs:,} answers changed ({name}, {100 * differs / len(old):.2g} %)"
            )
        elif differs and pd.api.types.is_float_dtype(old[name]):
            distance = (old[name].astype(float) - new[name].astype(float)).abs().max()
            # The distance is NaN if in every row a side has no number.
            if distance > 0:
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
        raise ConfigError(
            f"git {' '.join(arguments[:2])} in {root}: {reason}. A commit can be named in a clone "
            "of the repository (CAE_HOME may lead there); a folder of tables can be named anywhere"
        ) from error


def _runs(indexes: Mapping[str, store.Index]) -> set[tuple[str, str]]:
    return {(table, run) for table, index in indexes.items() for run, _ in index}
