"""Store results as files.

Each measurement gives tidy tables. A profile keeps one Parquet file for each table, which pandas
can read as well. New rows are first staged in one file for each run and seed, so that many
processes can measure at once. Readers see the staged rows, and `collect` moves them into the table.
Each run and seed is stored with its provenance (see `cae_lib.runtime.current_provenance`) and with
a key, which changes whenever something that the numbers depend on changes.

Tables that `cae_lib.results.load` computes on request are stored apart (`own`), also in one file
for each run and seed. They are never collected, and only callers that pass `own` see them.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from cae_lib.config import paths
from cae_lib.errors import DataError
from cae_lib.keys import SUITE_VERSIONS, TRAINING_VERSION
from cae_lib.profiles import find_profile
from cae_lib.runtime import whole_file, write_atomic
from cae_lib.variants import DATA as DATA

ANSWERS = ("family", "subset", "item")
"""Columns that name an item of a benchmark."""

WITHOUT_SEEDS = ("base", DATA, "tuning")
"""Prefixes of the names of runs that are not trained and therefore have one seed."""

META = b"cae"
GONE = ".gone"
"""Suffix of a staged file which marks that the table no longer has rows of this run and seed."""

Tables = Mapping[str, pd.DataFrame]
"""What a measurement returns: tables by name, without the columns run and seed."""


class Rows(NamedTuple):
    """Location and provenance of the rows of one run and seed."""

    path: Path
    group: int  # number of the row group in the file
    columns: list[str]
    key: str
    provenance: dict[str, Any]


Index = dict[tuple[str, int], Rows]
"""The rows of a table by run and seed."""


def file_of(table: str, profile_name: str) -> Path:
    """Return the path of the file that holds all runs and seeds of a table."""
    return find_profile(profile_name).records / f"{table}.parquet"


def save(
    table: str,
    run: str,
    seed: int,
    frame: pd.DataFrame,
    profile_name: str,
    *,
    key: str,
    provenance: Mapping[str, Any],
    own: bool = False,
) -> Path:
    """Stage the rows of one run and seed, and return the path of the staged file.

    Args:
        table: Name of the table.
        run: Name of the run.
        seed: Seed of the run.
        frame: The rows, without the columns run and seed.
        profile_name: Name of the profile.
        key: Hash of everything that the numbers depend on.
        provenance: See `cae_lib.runtime.current_provenance`.
        own: Store the rows apart from the profile's tables.

    Raises:
        DataError: If the frame has no rows, or a column that cannot be stored.
        WriteError: If the file cannot be written; see `whole_file`.
    """
    path = _folder(profile_name, own) / table / run / f"{seed}.parquet"
    if frame.empty:
        raise DataError(f"{path}: there is no row to store; measure something, or store nothing")
    frame = frame.assign(run=run, seed=np.int8(seed) if -128 <= seed < 128 else np.int32(seed))
    frame = frame[["run", "seed", *frame.columns.difference(["run", "seed"], sort=False)]]
    rows = Rows(path, 0, list(frame), key, dict(provenance))
    _write({(run, seed): rows}, pa.Table.from_pandas(frame, preserve_index=False), path)
    path.with_suffix(GONE).unlink(missing_ok=True)
    return path


def discard(table: str, run: str, seed: int, profile_name: str, own: bool = False) -> None:
    """Remove the rows of one run and seed from a table."""
    path = _folder(profile_name, own) / table / run / f"{seed}{GONE}"
    write_atomic(path, "")
    path.with_suffix(".parquet").unlink(missing_ok=True)


def collect(profile_name: str) -> None:
    """Move the staged rows of a profile into its tables.

    One process does this at a time. Others may measure meanwhile; the rows that they stage are
    moved by the next call.
    """
    for place in sorted(_folder(profile_name).glob("*/")):
        lock = paths().cache / "locks" / f"{profile_name}-{place.name}.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            staged = {
                path: path.stat().st_mtime_ns
                for path in place.glob("*/*")
                if not path.name.startswith(".")
            }
            if staged:
                index = index_of(place.name, profile_name)
                content = read([*index.values()])
                _write(index, content, file_of(place.name, profile_name))
            for path, changed in staged.items():
                if path.is_file() and path.stat().st_mtime_ns == changed:
                    path.unlink()


def _folder(profile_name: str, own: bool = False) -> Path:
    return paths().cache / ("own" if own else "staged") / profile_name


def _write(index: Index, content: pa.Table | None, path: Path) -> None:
    """Write the rows of runs and seeds one after another, each as a row group.

    The chosen encodings are lossless and halve the usual size. The file is removed if there are no
    rows.
    """
    if content is None:
        path.unlink(missing_ok=True)
        return
    made = [
        [run, seed, rows.columns, rows.key, rows.provenance] for (run, seed), rows in index.items()
    ]
    content = content.replace_schema_metadata({META: json.dumps(made)}).unify_dictionaries()
    encodings = {}
    for field in content.schema:
        if pa.types.is_floating(field.type):
            encodings[field.name] = "BYTE_STREAM_SPLIT"
        elif pa.types.is_integer(field.type) and field.type.bit_width >= 32:
            encodings[field.name] = "DELTA_BINARY_PACKED"
    others = [name for name in content.column_names if name not in encodings]
    whose = content.select(["run", "seed"]).to_pandas()
    starts = np.flatnonzero((whose != whose.shift()).any(axis=1))
    with (
        whole_file(path) as temporary,
        pq.ParquetWriter(
            temporary,
            content.schema,
            compression="zstd",
            compression_level=19,
            use_dictionary=others,
            column_encoding=encodings,
        ) as writer,
    ):
        for start, end in zip(starts, [*starts[1:], len(whose)], strict=True):
            writer.write_table(content.slice(start, end - start))


def read(chosen: list[Rows]) -> pa.Table | None:
    """Read the rows of some runs and seeds, with all columns that occur in any of them.

    The rows are concatenated in the order of `chosen`. The result is None if `chosen` is empty.

    Raises:
        DataError: If a file cannot be read.
    """
    parts, path = [], None
    try:
        files = {path: pq.ParquetFile(path) for path in {rows.path for rows in chosen}}
        for rows in chosen:
            path = rows.path
            parts.append(files[path].read_row_group(rows.group).select(rows.columns))
    except (OSError, pa.ArrowInvalid) as error:
        raise _broken(path, error) from error
    return pa.concat_tables(parts, promote_options="permissive") if parts else None


def index_of(table: str, profile_name: str, own: bool = False) -> Index:
    """Return where the rows of a table are stored, sorted by run and seed.

    Staged rows take precedence over collected ones. With `own`, the index covers only rows that are
    stored apart.
    """
    path = file_of(table, profile_name)
    index = entries(path) if path.is_file() and not own else {}
    for staged in (_folder(profile_name, own) / table).glob("*/[0-9]*"):
        if staged.suffix == GONE:
            index.pop((staged.parent.name, int(staged.stem)), None)
        else:
            index |= entries(staged)
    return dict(sorted(index.items()))


def entries(path: Path) -> Index:
    """Return the rows of a file by run and seed; empty if the file was not written by this module.

    Raises:
        DataError: If the file cannot be read.
    """
    try:
        content = (pq.read_schema(path).metadata or {}).get(META)
    except (OSError, pa.ArrowInvalid) as error:
        raise _broken(path, error) from error
    return {
        (run, seed): Rows(path, group, *rest)
        for group, (run, seed, *rest) in enumerate(json.loads(content or "[]"))
    }


def _broken(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path} cannot be read ({error}): restore it from version control, or delete "
        "it and measure its runs again"
    )


def load(
    table: str,
    profile_name: str = "mini",
    runs: Iterable[str] | None = None,
    seeds: int | Collection[int] | None = None,
) -> pd.DataFrame:
    """Read a table of several runs as one frame; see `cae_lib.results.load`."""
    index, chosen = index_of(table, profile_name), []
    for run in dict.fromkeys(run for run, _ in index) if runs is None else runs:
        rows, absent = select(index, run, seeds)
        if absent and runs is not None:
            raise not_stored(table, run, profile_name, rows, seeds)
        chosen += rows.values()
    if not chosen:
        raise not_stored(table, "base", profile_name)
    return read(chosen).to_pandas()


def select(
    index: Index, run: str, seeds: int | Collection[int] | None
) -> tuple[dict[int, Rows], list[int]]:
    """Return the rows of a run by seed, and which of the requested seeds are missing.

    Args:
        index: Index of the stored rows.
        run: Name of the run. The base model and other runs that are not trained have one seed, and
            `seeds` is ignored for them.
        seeds: Number of seeds, or the seeds themselves. With None, all stored seeds are returned,
            and seed 0 is reported as missing if there are none.
    """
    stored = {seed: rows for (name, seed), rows in index.items() if name == run}
    if seeds is None or run.startswith(WITHOUT_SEEDS):
        return stored, [] if stored else [0]
    if isinstance(seeds, int):
        new = [seed for seed in range(seeds + len(stored)) if seed not in stored]
        return dict([*stored.items()][:seeds]), new[: max(0, seeds - len(stored))]
    rows = {seed: stored[seed] for seed in seeds if seed in stored}
    return rows, [seed for seed in seeds if seed not in stored]


def not_stored(
    table: str,
    run: str,
    profile_name: str,
    rows: Collection[int] = (),
    seeds: int | Collection[int] | None = None,
) -> DataError:
    """Return the error that names the command which measures a run.

    Args:
        table: Name of the table.
        run: Name of the run.
        profile_name: Name of the profile.
        rows: The seeds that are stored.
        seeds: The number of seeds that were requested, or the seeds themselves; None if any would
            do.
    """
    few = (
        ""
        if seeds is None or not rows
        else (
            f"{len(rows)} of {seeds} seeds. "
            if isinstance(seeds, int)
            else f"seeds {[seed for seed in seeds if seed not in rows]} are missing. "
        )
    )
    return DataError(f"{few}{_advice(table, run, profile_name)}")


def missing(table: str, runs: Iterable[str], profile_name: str) -> list[str]:
    """Return the runs for which a profile has no stored rows of a table."""
    stored = {run for run, _ in index_of(table, profile_name)}
    return [run for run in runs if run not in stored]


def _advice(table: str, run: str, profile_name: str) -> str:
    where = f"{file_of(table, profile_name)}: nothing is stored for {run!r}"
    if find_profile(profile_name).base is not None:
        return f"{where}. `cae reproduce --profile {profile_name}` measures everything"
    train = "" if run in ("base", DATA) else f"`cae train {run} --profile {profile_name}`, then "
    return f"{where}. Run {train}`cae evaluate {run} --profile {profile_name}`"


def tables(profile_name: str, own: bool = False) -> dict[str, Index]:
    """Return the index of every table of a profile.

    With `own`, these are the tables that are stored apart, and no others.
    """
    names = {path.name for path in _folder(profile_name, own).glob("*/")}
    if not own:
        names |= {path.stem for path in find_profile(profile_name).records.glob("*.parquet")}
    return {name: index_of(name, profile_name, own) for name in sorted(names)}


def made(profile_name: str) -> pd.DataFrame:
    """Return the provenance of every stored table, one row for each table, run and seed.

    The columns are `table`, `run`, `seed`, `key`, `suite`, `device`, `wall_seconds` and `current`.
    The last one says whether the versions of training and of the suite are the present ones; it is
    None for tables that are made by a command of their own.
    """
    columns = ("suite", "device", "wall_seconds")
    rows = [
        (
            table,
            run,
            seed,
            rows.key,
            *map(rows.provenance.get, columns),
            _is_current(rows.provenance),
        )
        for table, index in tables(profile_name).items()
        for (run, seed), rows in index.items()
    ]
    return pd.DataFrame(rows, columns=["table", "run", "seed", "key", *columns, "current"])


def _is_current(provenance: Mapping[str, Any]) -> bool | None:
    if "version" not in provenance:
        return None
    known = SUITE_VERSIONS.get(provenance["suite"]), TRAINING_VERSION
    return (provenance["version"], provenance["training"]) == known
