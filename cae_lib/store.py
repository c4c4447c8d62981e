"""Store results as files.

Each measurement gives tidy tables. A profile keeps one Parquet file for each table; pandas can read
these files, too. New rows are first staged in one file for each run and seed, so that many
processes can measure at once. Readers see staged rows as well, and `merge_staged` moves them into
the table.

The files are small for two reasons. `save` leaves out columns and rows that no page shows, and
rounds numbers to the precision that pages need (`DROPPED_COLUMNS`, `DROPPED_ROLES`,
`ROUNDED_TABLES`). In addition, the rows of all runs for one item follow each other. Columns that
describe the item then repeat their values, and Parquet stores repeated values in almost no space.

The rows of a run and seed are stored with their provenance (see
`cae_lib.runtime.current_provenance`) and with a key, which changes whenever something that the
numbers depend on changes.

Tables that `cae_lib.results.load` computes on request are stored apart, also in one file for each
run and seed. They are never merged, and only callers that pass `on_request` see them.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import zlib
from base64 import b64decode, b64encode
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock

from cae_lib import keys
from cae_lib.config import Experiment, paths
from cae_lib.errors import ConfigError, DataError
from cae_lib.profiles import experiment, find_profile
from cae_lib.runtime import atomic_file, write_atomic
from cae_lib.variants import DATA_RUN as DATA_RUN
from cae_lib.variants import GELU_CONTROLS, SETTINGS, has_seeds, parse_run_name

ITEM_KEY = ("family", "subset", "item")
"""Columns that together identify an item of a benchmark."""

DEFAULTS = {
    field.name: field.default for field in dataclasses.fields(Experiment) if field.name in SETTINGS
}
"""Settings of a run that states none."""

PARQUET_PAGE_OPTIONS = (
    {"max_rows_per_page": 2**30}
    if "max_rows_per_page" in inspect.signature(pq.ParquetWriter).parameters
    else {}
)
"""Options of `ParquetWriter` that lift the limit on the rows of a Parquet page. Each page is
compressed separately, so short pages double the size of some tables. Empty for old versions of
pyarrow, which do not have the option."""

DROPPED_COLUMNS = {"benchmarks": ("margin", "rank")}
"""Measured columns that are not stored, by table."""

DROPPED_ROLES = {"attribution": ("other",)}
"""Roles of words whose rows are not stored, by table; no loss and no page uses them."""

ROUNDED_TABLES = ("attribution", "bindings", "faithfulness", "heatmaps", "phrases", "sensitivity")
"""Tables whose floats are rounded to `SIGNIFICANT_BITS`; other tables are stored exactly."""

SIGNIFICANT_BITS = 13
"""Binary digits of a rounded number. With 12, one number that a page prints would change."""

METADATA_KEY = b"cae"
"""Key of a Parquet file's metadata that holds its `Index`: compressed JSON in Base64."""

TOMBSTONE = ".gone"
"""Suffix of a staged file that marks the rows of a run and seed as removed from the table."""

Tables = Mapping[str, pd.DataFrame]
"""Tables that a measurement returns, by name; they do not have the columns `run` and `seed` yet."""


class StoredRows(NamedTuple):
    """Location and provenance of the stored rows of one run and seed of a table.

    Attributes:
        path: Parquet file that contains the rows.
        run: Name of the run.
        seed: Seed of the run.
        columns: Names of the columns that these rows have; the file may have more.
        key: Hash of everything that the numbers depend on.
        provenance: See `cae_lib.runtime.current_provenance`.
    """

    path: Path
    run: str
    seed: int
    columns: list[str]
    key: str
    provenance: dict[str, Any]


Index = dict[tuple[str, int], StoredRows]
"""Where the rows of a table are stored, by run name and seed."""


def file_of(table_name: str, profile_name: str) -> Path:
    """Return the path of the file that holds the merged rows of a table."""
    return find_profile(profile_name).records / f"{table_name}.parquet"


def save(
    table_name: str,
    run: str,
    seed: int,
    frame: pd.DataFrame,
    profile_name: str,
    *,
    key: str,
    provenance: Mapping[str, Any],
    on_request: bool = False,
) -> Path:
    """Stage the rows of one run and seed, and return the path of the staged file.

    The rows replace all earlier ones of this run and seed, even if `discard` has removed these.
    Some rows and columns are dropped and some numbers rounded; see `DROPPED_COLUMNS`,
    `DROPPED_ROLES` and `ROUNDED_TABLES`.

    Args:
        table_name: Name of the table.
        run: Name of the run.
        seed: Seed of the run.
        frame: The rows, without the columns run and seed.
        profile_name: Name of the profile.
        key: Hash of everything that the numbers depend on.
        provenance: See `cae_lib.runtime.current_provenance`.
        on_request: Store the rows apart from the profile's tables.

    Raises:
        DataError: If no rows are left to store.
        WriteError: If the file cannot be written.
    """
    path = _folder(profile_name, on_request) / table_name / run / f"{seed}.parquet"
    frame = frame.drop(columns=[*DROPPED_COLUMNS.get(table_name, ())], errors="ignore")
    if table_name in DROPPED_ROLES:
        frame = frame[~frame["role"].isin(DROPPED_ROLES[table_name])]
    if frame.empty:
        raise DataError(f"{path}: there is no row to store; measure something, or store nothing")
    if table_name in ROUNDED_TABLES:
        frame = frame.assign(**_round_numbers(frame.select_dtypes("floating")))
    frame = frame.assign(run=run, seed=np.int8(seed) if -128 <= seed < 128 else np.int32(seed))
    frame = frame[["run", "seed", *frame.columns.difference(["run", "seed"], sort=False)]]
    rows = StoredRows(path, run, seed, list(frame), key, dict(provenance))
    _write({(run, seed): rows}, pa.Table.from_pandas(frame, preserve_index=False), path)
    path.with_suffix(TOMBSTONE).unlink(missing_ok=True)
    return path


def _round_numbers(numbers: pd.DataFrame) -> pd.DataFrame:
    """Round a frame of floats to `SIGNIFICANT_BITS` binary digits; NaN and infinity are kept.

    The relative error is at most `2 ** -SIGNIFICANT_BITS`, and the types of the columns are kept.
    """
    mantissa, exponent = np.frexp(numbers.to_numpy())
    digits = np.round(np.ldexp(mantissa, SIGNIFICANT_BITS))
    rounded = np.ldexp(digits, exponent - SIGNIFICANT_BITS)
    return pd.DataFrame(rounded, numbers.index, numbers.columns).astype(numbers.dtypes)


def discard(
    table_name: str, run: str, seed: int, profile_name: str, on_request: bool = False
) -> None:
    """Remove the rows of one run and seed from a table.

    A staged file of rows is deleted. A file with the suffix `TOMBSTONE` is staged, which hides rows
    of the profile's merged table from readers until `merge_staged` removes them.

    Args:
        table_name: Name of the table.
        run: Name of the run.
        seed: Seed of the run.
        profile_name: Name of the profile.
        on_request: Remove rows that are stored apart from the profile's tables, instead of
            rows of the profile's table.

    Raises:
        WriteError: If the file cannot be written.
    """
    path = _folder(profile_name, on_request) / table_name / run / f"{seed}{TOMBSTONE}"
    write_atomic(path, "")
    path.with_suffix(".parquet").unlink(missing_ok=True)


def merge_staged(profile_name: str) -> None:
    """Move the staged rows of a profile into its tables.

    Merged rows that `discard` has hidden are removed, and so is the file of a table without any
    rows left. Only one process at a time writes a table; a second call waits. Other processes may
    go on measuring; rows that they stage during a call are moved by the next call at the latest.

    Raises:
        DataError: If a file cannot be read.
        WriteError: If a table cannot be written.
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
                index, path = index_of(place.name, profile_name), file_of(place.name, profile_name)
                if index:
                    _write(index, _read([*index.values()]), path)
                else:
                    path.unlink(missing_ok=True)
            for path, changed in staged.items():
                if path.is_file() and path.stat().st_mtime_ns == changed:
                    path.unlink()


def _folder(profile_name: str, on_request: bool = False) -> Path:
    return paths().cache / ("own" if on_request else "staged") / profile_name


def _write(index: Index, content: pa.Table, path: Path) -> None:
    """Write rows and their index to a Parquet file.

    Args:
        index: Location, columns, key and provenance of the rows of each run and seed.
        content: The rows, one run and seed after the other in the order of `index`. In the file,
            `_order_by_item` determines their order.
        path: The file.
    """
    stored = [[*key, rows.columns, rows.key, rows.provenance] for key, rows in index.items()]
    content = content.take(_order_by_item(content))
    for number, field in enumerate(content.schema):
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            encoded = content.column(number).dictionary_encode()
            content = content.set_column(number, field.name, encoded)
    content = content.unify_dictionaries()
    encodings = {}
    for field in content.schema:
        if pa.types.is_floating(field.type):
            encodings[field.name] = "BYTE_STREAM_SPLIT"
        elif pa.types.is_integer(field.type) and field.type.bit_width >= 32:
            encodings[field.name] = "DELTA_BINARY_PACKED"
    with (
        atomic_file(path) as temporary,
        pq.ParquetWriter(
            temporary,
            content.schema,
            compression="zstd",
            compression_level=19,
            use_dictionary=[name for name in content.column_names if name not in encodings],
            column_encoding=encodings,
            store_schema=False,  # else pandas would read texts as categories
            **PARQUET_PAGE_OPTIONS,
        ) as writer,
    ):
        writer.write_table(content, row_group_size=len(content))
        writer.add_key_value_metadata(
            {METADATA_KEY: b64encode(zlib.compress(json.dumps(stored).encode()))}
        )


def _order_by_item(content: pa.Table) -> np.ndarray:
    """Return the order of rows that takes the first row of each run, then the second, and so on.

    Only runs with the same number of rows are mixed in this way, since others have different items.
    Runs with fewer rows precede runs with more rows. Each seed of a run counts as a run here.
    """
    whose = content.select(["run", "seed"]).to_pandas()
    number = (whose != whose.shift()).any(axis=1).cumsum().to_numpy() - 1
    sizes = np.bincount(number)
    starts = np.cumsum(sizes) - sizes
    position = np.arange(len(number)) - starts[number]
    return np.lexsort((number, position, sizes[number]))


def read_rows(stored_rows: list[StoredRows]) -> pa.Table:
    """Read the rows of some runs and seeds, with all columns that occur in any of them.

    The rows are concatenated in the order of `stored_rows`; this list must not be empty. Columns
    that a run does not have are null in its rows.

    Raises:
        DataError: If a file cannot be read.
    """
    return _with_plain_texts(_read(stored_rows))


def read_runs(index: Index) -> Iterator[tuple[str, pa.Table]]:
    """Read each file of an index once, and yield the names of its runs with their rows.

    Runs come in alphabetical order, and the rows of a run in the order of its seeds. A table has
    the columns that occur in any seed of the run. All rows are in memory until the last is yielded.

    Raises:
        DataError: If a file cannot be read.
    """
    columns: dict[str, dict[str, None]] = {}
    for (run, _), rows in sorted(index.items()):
        columns.setdefault(run, {}).update(dict.fromkeys(rows.columns))
    if not columns:
        return
    content, start = _read([rows for _, rows in sorted(index.items())]), 0
    counts = {row["values"]: row["counts"] for row in pc.value_counts(content["run"]).to_pylist()}
    for run, names in columns.items():
        yield run, _with_plain_texts(content.slice(start, counts[run]).select([*names]))
        start += counts[run]


def _with_plain_texts(content: pa.Table) -> pa.Table:
    plain = [
        pa.field(field.name, pa.large_string()) if pa.types.is_dictionary(field.type) else field
        for field in content.schema
    ]
    return content.cast(pa.schema(plain))


def _read(rows_to_read: list[StoredRows]) -> pa.Table:
    """Do the same as `read_rows`, but keep texts encoded by dictionaries, which saves memory."""
    by_path: dict[Path, dict[tuple[str, int], int]] = {}
    for place, rows in enumerate(rows_to_read):
        by_path.setdefault(rows.path, {})[rows.run, rows.seed] = place
    parts, places = [], []
    for path, place_of in by_path.items():
        columns = dict.fromkeys(
            name for row in place_of.values() for name in rows_to_read[row].columns
        )
        try:
            part, place = _read_file(path, place_of, list(columns))
        except (OSError, pa.ArrowInvalid) as error:
            raise _broken(path, error) from error
        parts.append(part)
        places.append(place)
    content = pa.concat_tables(parts, promote_options="permissive").unify_dictionaries()
    return content.take(np.concatenate(places).argsort(kind="stable"))


def _read_file(
    path: Path, place_of: Mapping[tuple[str, int], int], columns: Sequence[str]
) -> tuple[pa.Table, np.ndarray]:
    """Read the rows of some runs and seeds from a file.

    Args:
        path: The file.
        place_of: For each run and seed to read, its position in the final order.
        columns: Names of the columns to read.

    Returns:
        The rows in the order of the file, and for each row the position of its run and seed.
    """
    texts = [field.name for field in pq.read_schema(path) if pa.types.is_string(field.type)]
    file = pq.ParquetFile(path, read_dictionary=texts)
    whose = file.read(["run", "seed"]).to_pandas()
    runs, seeds = whose["run"].cat.categories, pd.Index(whose["seed"].unique())
    place_by_code = np.full((len(runs), len(seeds)), -1)
    for (run, seed), place in place_of.items():
        place_by_code[runs.get_loc(run), seeds.get_loc(seed)] = place
    places = place_by_code[whose["run"].cat.codes, seeds.get_indexer(whose["seed"])]
    rows = np.flatnonzero(places >= 0)
    # one column after the other, since a file has many more rows than are read of it
    part = pa.table({name: file.read([name]).column(0).take(rows) for name in columns})
    return part, places[rows]


def index_of(table_name: str, profile_name: str, on_request: bool = False) -> Index:
    """Return where the rows of a table are stored, sorted by run and seed.

    Staged rows take precedence over merged ones, and discarded rows are left out. With
    `on_request`, the index covers only rows that are stored apart from the profile's tables.

    Raises:
        DataError: If a file cannot be read.
    """
    path = file_of(table_name, profile_name)
    index = read_index(path) if path.is_file() and not on_request else {}
    for staged in (_folder(profile_name, on_request) / table_name).glob("*/[0-9]*"):
        if staged.suffix == TOMBSTONE:
            index.pop((staged.parent.name, int(staged.stem)), None)
        else:
            index |= read_index(staged)
    return dict(sorted(index.items()))


def current_index(table_name: str, profile_name: str) -> Index:
    """Return what `index_of` returns without the rows that are out of date."""
    return {
        key: rows
        for key, rows in index_of(table_name, profile_name).items()
        if not describe_staleness(rows, profile_name)
    }


def read_index(path: Path) -> Index:
    """Return the index of a Parquet file; empty if the file was not written by this module.

    Raises:
        DataError: If the file cannot be read.
    """
    try:
        content = (pq.read_metadata(path).metadata or {}).get(METADATA_KEY)
        stored = json.loads(zlib.decompress(b64decode(content))) if content else []
    except (OSError, ValueError, zlib.error) as error:
        raise _broken(path, error) from error
    return {(run, seed): StoredRows(path, run, seed, *rest) for run, seed, *rest in stored}


def _broken(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path} cannot be read ({error}): restore it from version control, or delete "
        "it and measure its runs again"
    )


def load(
    table_name: str,
    profile_name: str = "mini",
    runs: Iterable[str] | None = None,
    seeds: int | Collection[int] | None = None,
) -> pd.DataFrame:
    """Read a table of several runs as one frame.

    `cae_lib.results.load` explains the arguments; it calls this function unless it computes.

    Raises:
        DataError: If a run in `runs` or one of its requested seeds is not stored, if stored rows
            are out of date (see `describe_staleness`), if there are no rows to return, or if a file
            cannot be read.
    """
    index, rows_to_read = index_of(table_name, profile_name), []
    for run in dict.fromkeys(run for run, _ in index) if runs is None else runs:
        rows, absent = select(index, run, seeds, profile_name)
        if absent and runs is not None:
            raise not_stored_error(table_name, run, profile_name, rows, seeds)
        for row in rows.values():
            if error := stale_error(table_name, row, profile_name):
                raise error
        rows_to_read += rows.values()
    if not rows_to_read:
        raise not_stored_error(table_name, "base", profile_name)
    return read_rows(rows_to_read).to_pandas()


def select(
    index: Index, run: str, seeds: int | Collection[int] | None, profile_name: str
) -> tuple[dict[int, StoredRows], list[int]]:
    """Return the rows of a run by seed, and the requested seeds that are not stored.

    Args:
        index: Index of the stored rows, sorted as `index_of` returns it.
        run: Name of the run. If it is not trained here (see `variants.has_seeds`) and at most one
            seed is stored, `seeds` is treated as None.
        seeds: The requested seeds. A number n stands for the n smallest stored seeds; if fewer are
            stored, the smallest other seeds are returned as missing. None stands for all stored
            seeds; if there are none, seed 0 is returned as missing.
        profile_name: Name of the profile.

    Raises:
        ConfigError: If `seeds` is a number below 1, or a seed is below 0.
    """
    if seeds is not None and min([seeds - 1] if isinstance(seeds, int) else seeds, default=0) < 0:
        raise ConfigError(f"seeds is {seeds}: expected a number of seeds, or seeds of 0 and more")
    stored = {seed: rows for (name, seed), rows in index.items() if name == run}
    has_one = len(stored) < 2 and not has_seeds(run, profile_name)
    if seeds is None or has_one:
        return stored, [] if stored else [0]
    if isinstance(seeds, int):
        new = [seed for seed in range(seeds + len(stored)) if seed not in stored]
        return dict([*stored.items()][:seeds]), new[: max(0, seeds - len(stored))]
    rows = {seed: stored[seed] for seed in seeds if seed in stored}
    return rows, [seed for seed in seeds if seed not in stored]


def not_stored_error(
    table_name: str,
    run: str,
    profile_name: str,
    stored_seeds: Collection[int] = (),
    seeds: int | Collection[int] | None = None,
) -> DataError:
    """Return an error which says that a table lacks a run, or some of its seeds.

    The message names the commands that compute the rows.

    Args:
        table_name: Name of the table.
        run: Name of the run.
        profile_name: Name of the profile.
        stored_seeds: The seeds that are stored.
        seeds: The number of seeds that were requested, or the seeds themselves; None if no
            particular seeds were requested.
    """
    lacking = "nothing is stored"
    if seeds is not None and stored_seeds:
        if isinstance(seeds, int):
            lacking = f"only {len(stored_seeds)} of {seeds} seeds are stored"
        else:
            lacking = f"seeds {[seed for seed in seeds if seed not in stored_seeds]} are not stored"
    return DataError(
        f"{file_of(table_name, profile_name)}: {lacking} for {run!r}. "
        f"{_advice(run, profile_name)}, or `cae reproduce --profile {profile_name}` for all"
    )


def _advice(run: str, profile_name: str, seed: int = 0) -> str:
    """Return a sentence without its full stop that names the commands to measure a run."""
    options = f"--profile {profile_name}" + (f" --seed {seed}" if seed else "")
    train = ""
    if has_seeds(run, profile_name):
        train = f"`cae train {GELU_CONTROLS.get(run, run)} {options}`, then "
    return f"Run {train}`cae evaluate {run} {options}`"


def describe_staleness(rows: StoredRows, profile_name: str) -> str:
    """Return what has changed since rows were stored; empty if they are up to date.

    Compared are the version of the suite and, for a run that is trained, the version of training,
    the versions of what it reads from text, and the settings that the run has in the profile now.
    The data and the first weights are not: `cae reproduce` compares these, which takes the data.
    Rows that do not come from a suite, such as those of a search for settings, have no versions.
    """
    stored = rows.provenance
    changes: list[tuple[str, object, object]] = []
    if "version" in stored:
        suite = stored["suite"]
        changes.append((f"version of {suite}", stored["version"], keys.SUITE_VERSIONS.get(suite)))
    if "text" in stored and has_seeds(rows.run, profile_name):
        run, settings = parse_run_name(rows.run, profile_name)
        config = experiment(GELU_CONTROLS.get(run, run), profile_name, **settings)
        before, now = (
            json.loads(json.dumps(vars(config) | stated))  # a tuple becomes a list
            for stated in (DEFAULTS | stored["settings"], {})
        )
        changes += [(name, before[name], now[name]) for name in SETTINGS]
        changes.append(("version of training", stored["training"], keys.TRAINING_VERSION))
        read, reads = stored["text"], keys.text_versions(config)
        changes += [
            (f"version of {name}", read.get(name), reads.get(name))
            for name in dict.fromkeys([*read, *reads])
        ]
    return ", ".join(f"{name} was {old}, is {new}" for name, old, new in changes if old != new)


def stale_error(table_name: str, rows: StoredRows, profile_name: str) -> DataError | None:
    """Return an error which says what has changed since rows were stored; None if nothing has."""
    changes = describe_staleness(rows, profile_name)
    if not changes:
        return None
    return DataError(
        f"{rows.path}: {table_name} of {rows.run}, seed {rows.seed}, is out of date: {changes}. "
        f"{_advice(rows.run, profile_name, rows.seed)}, or pass compute=True"
    )


def missing_runs(table_name: str, runs: Iterable[str], profile_name: str) -> list[str]:
    """Return those of the `runs` for which a profile has no stored rows of a table."""
    stored = {run for run, _ in index_of(table_name, profile_name)}
    return [run for run in runs if run not in stored]


def table_indexes(profile_name: str, on_request: bool = False) -> dict[str, Index]:
    """Return the index of every table of a profile, by the name of the table.

    With `on_request`, these are the tables that are stored apart from the profile's. After a
    `discard`, an index may be empty.
    """
    names = {path.name for path in _folder(profile_name, on_request).glob("*/")}
    if not on_request:
        names |= {path.stem for path in find_profile(profile_name).records.glob("*.parquet")}
    return {name: index_of(name, profile_name, on_request) for name in sorted(names)}


def provenance_table(profile_name: str) -> pd.DataFrame:
    """Return the provenance of all tables of a profile as a frame.

    Tables that were computed on request are not included. There is one row for each table, run and
    seed. The columns are `table`, `run`, `seed`, `key`, `suite`, `device`, `wall_seconds` and
    `current`. The column `current` says whether the rows are up to date (see
    `describe_staleness`); `current` and `suite` are None for tables that do not come from a suite,
    such as those of a search for settings.
    """
    columns = ("suite", "device", "wall_seconds")
    rows = [
        (
            table,
            run,
            seed,
            rows.key,
            *map(rows.provenance.get, columns),
            None
            if "version" not in rows.provenance
            else not describe_staleness(rows, profile_name),
        )
        for table, index in table_indexes(profile_name).items()
        for (run, seed), rows in index.items()
    ]
    return pd.DataFrame(rows, columns=["table", "run", "seed", "key", *columns, "current"])
