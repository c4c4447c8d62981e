"""Store results as files, and read them.

A result is the table that a suite gives for a run and seed: `runs/PROFILE/RUN/SEED/TABLE.parquet`,
with its key and provenance in the metadata. `pack` makes the published
`data/records/PROFILE/TABLE.parquet` of these files; nothing else writes there. Readers take the
file of a run and seed if there is one, and the packed rows otherwise.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import zlib
from base64 import b64decode, b64encode
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cae_lab.names import DATA_RUN, GELU_CONTROLS, SETTINGS
from cae_lab.runs import Profile, is_run, is_trained_here
from cae_lab.suites import DATA_VERSION, SUITES, Suite
from cae_lib.config import Experiment, paths
from cae_lib.errors import ConfigError, DataError
from cae_lib.runtime import atomic_file
from cae_lib.training.inputs import TRAINING_VERSION, text_versions

# Settings of a run that states none.
DEFAULTS = {
    field.name: field.default for field in dataclasses.fields(Experiment) if field.name in SETTINGS
}

# Options of `ParquetWriter` that lift the limit on the rows of a Parquet page: each page is
# compressed separately, so short pages double the size of some tables. Old versions of pyarrow do
# not have the option.
PARQUET_PAGE_OPTIONS = (
    {"max_rows_per_page": 2**30}
    if "max_rows_per_page" in inspect.signature(pq.ParquetWriter).parameters
    else {}
)

# Binary digits of a rounded number. With 12, one number that a page prints would change.
SIGNIFICANT_BITS = 13

# Key of a Parquet file's metadata that holds its `Index`, as compressed JSON in Base64.
METADATA_KEY = b"cae"

# Tables of a measurement by name, without the columns `run` and `seed`.
Tables = Mapping[str, pd.DataFrame]


class StoredRows(NamedTuple):
    """Location and provenance of the stored rows of one run and seed of a table."""

    path: Path
    run: str
    seed: int
    columns: list[str]  # that these rows have; the file may have more
    key: str  # hash of everything that the numbers depend on
    provenance: dict[str, Any]  # see `cae_lab.provenance.current_provenance`


Index = dict[tuple[str, int], StoredRows]  # by run name and seed


def packed_path(table: str, profile: Profile) -> Path:
    """Return the path of the file that holds the packed rows of a table."""
    return profile.records / f"{table}.parquet"


def result_path(table: str, run: str, seed: int, profile: Profile) -> Path:
    """Return the path of the result of a run and seed; it need not exist."""
    return paths().runs / profile.name / run / str(seed) / f"{table}.parquet"


def save(
    table: str,
    profile: Profile,
    run: str,
    seed: int,
    frame: pd.DataFrame,
    *,
    key: str,
    provenance: Mapping[str, Any],
    suite: Suite | None = None,
) -> Path:
    """Write the result of a run and seed, and return its path; it replaces an earlier one.

    `suite` says which columns and rows of `frame` are stored; None stores all of it.
    """
    path = result_path(table, run, seed, profile)
    if suite is not None and len(frame):
        frame = frame.drop(columns=[*suite.drops], errors="ignore")
        if suite.drops_roles:
            frame = frame[~frame["role"].isin(suite.drops_roles)]
        if suite.is_rounded:
            frame = frame.assign(**_round_numbers(frame.select_dtypes("floating")))
    frame = frame.assign(run=run, seed=np.int8(seed) if seed < 128 else np.int32(seed))
    frame = frame[["run", "seed", *frame.columns.difference(["run", "seed"], sort=False)]]
    # A file without rows says that the run was measured, so it is not measured again.
    columns = list(frame) if len(frame) else []
    rows = StoredRows(path, run, seed, columns, key, dict(provenance))
    _write({(run, seed): rows}, pa.Table.from_pandas(frame, preserve_index=False), path)
    return path


def _round_numbers(numbers: pd.DataFrame) -> pd.DataFrame:
    """Round a frame of floats to `SIGNIFICANT_BITS` binary digits; NaN, infinity and types stay."""
    # Mantissas lie in [0.5, 1), so the relative error is at most 2 ** -SIGNIFICANT_BITS.
    mantissa, exponent = np.frexp(numbers.to_numpy())
    digits = np.round(np.ldexp(mantissa, SIGNIFICANT_BITS))
    rounded = np.ldexp(digits, exponent - SIGNIFICANT_BITS)
    return pd.DataFrame(rounded, numbers.index, numbers.columns).astype(numbers.dtypes)


def pack(profile: Profile, runs: Collection[tuple[str, int]], tables: Collection[str] = ()) -> None:
    """Write results of `runs` into the packed tables of a profile, by default into all.

    Packed rows of other runs and seeds are kept, and so are those of which no file is here.
    """
    for table in tables or table_names(profile):
        packed, path = read_index(packed_path(table, profile)), packed_path(table, profile)
        new = {
            key: rows
            for key, rows in _results(table, profile).items()
            if key in runs and rows.columns
        }
        if new:
            index = dict(sorted((packed | new).items()))
            _write(index, _read([*index.values()]), path)


def table_names(profile: Profile) -> list[str]:
    """Return the names of all tables of a profile, sorted."""
    files = (paths().runs / profile.name).glob("*/*/*.parquet")
    return sorted({path.stem for path in (*files, *profile.records.glob("*.parquet"))})


def _results(table: str, profile: Profile) -> Index:
    """Return the index of the files of results of a table, also of those without rows."""
    index: Index = {}
    for path in (paths().runs / profile.name).glob(f"*/*/{table}.parquet"):
        index |= read_index(path)
    return index


def index_of(table: str, profile: Profile, suites: Mapping[str, Suite] = SUITES) -> Index:
    """Return where the rows of a table are stored, sorted by run and seed."""
    index = read_index(packed_path(table, profile))
    for key, rows in _results(table, profile).items():
        # A file goes before packed rows, unless it alone is out of date, as after an update of the
        # clone with newly packed rows.
        is_older = key in index and describe_changes(rows, profile, suites)
        if not is_older or describe_changes(index[key], profile, suites):
            index[key] = rows
    return {key: rows for key, rows in sorted(index.items()) if rows.columns}


def _write(index: Index, content: pa.Table, path: Path) -> None:
    """Write rows, one run and seed after the other as in `index`, with the index to a file."""
    stored = [[*key, rows.columns, rows.key, rows.provenance] for key, rows in index.items()]
    content = content.take(_order_by_item(content))
    for number, field in enumerate(content.schema):
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            encoded = content.column(number).dictionary_encode()
            content = content.set_column(number, field.name, encoded)
    # Each chunk of a column may have a dictionary of its own.
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
            # A column cannot have both a dictionary and another encoding.
            use_dictionary=[name for name in content.column_names if name not in encodings],
            column_encoding=encodings,
            # With the Arrow schema, pandas would read texts as categories.
            store_schema=False,
            **PARQUET_PAGE_OPTIONS,
        ) as writer,
    ):
        writer.write_table(content, row_group_size=max(1, len(content)))
        writer.add_key_value_metadata(
            {METADATA_KEY: b64encode(zlib.compress(json.dumps(stored).encode()))}
        )


def _order_by_item(content: pa.Table) -> np.ndarray:
    """Return the order of rows that takes the first row of each run and seed, then the second."""
    # The rows of all runs for one item then follow each other. Columns that describe the item then
    # repeat their values, which Parquet stores in almost no space.
    whose = content.select(["run", "seed"]).to_pandas()
    # For each row, the number of its run and seed, a block that begins where `whose` changes.
    number = (whose != whose.shift()).any(axis=1).cumsum().to_numpy() - 1
    sizes = np.bincount(number)
    starts = np.cumsum(sizes) - sizes
    position = np.arange(len(number)) - starts[number]
    # By the last key first. Runs with other numbers of rows have other items and are not mixed.
    return np.lexsort((number, position, sizes[number]))


def read_rows(stored_rows: list[StoredRows]) -> pa.Table:
    """Read rows in the order of `stored_rows`, which must not be empty, with all their columns."""
    return _with_plain_texts(_read(stored_rows))


def read_runs(index: Index) -> Iterator[tuple[str, pa.Table]]:
    """Read each file of an index once, and yield the rows of each run, sorted by run and seed."""
    # By run, the columns of any of its seeds; the mapping serves as an ordered set.
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
    # Texts for pandas, which would make categories of dictionaries.
    plain = [
        pa.field(field.name, pa.large_string()) if pa.types.is_dictionary(field.type) else field
        for field in content.schema
    ]
    return content.cast(pa.schema(plain))


def _read(rows_to_read: list[StoredRows]) -> pa.Table:
    """Do the same as `read_rows`, but keep texts encoded by dictionaries, which saves memory."""
    by_path: dict[Path, dict[tuple[str, int], int]] = {}
    for position, rows in enumerate(rows_to_read):
        by_path.setdefault(rows.path, {})[rows.run, rows.seed] = position
    # Each file is read once, however many of its runs are asked for.
    parts, positions = [], []
    for path, position_of in by_path.items():
        columns = dict.fromkeys(
            name for row in position_of.values() for name in rows_to_read[row].columns
        )
        try:
            part, position = _read_file(path, position_of, list(columns))
        except (OSError, pa.ArrowInvalid) as error:
            raise _broken(path, error) from error
        parts.append(part)
        positions.append(position)
    # "permissive": columns that a part lacks become null, and integers the wider type.
    content = pa.concat_tables(parts, promote_options="permissive").unify_dictionaries()
    return content.take(np.concatenate(positions).argsort(kind="stable"))


def _read_file(
    path: Path, position_of: Mapping[tuple[str, int], int], columns: Sequence[str]
) -> tuple[pa.Table, np.ndarray]:
    """Return the rows of the runs and seeds in `position_of`, and the position of each row."""
    texts = [field.name for field in pq.read_schema(path) if pa.types.is_string(field.type)]
    file = pq.ParquetFile(path, read_dictionary=texts)
    whose = file.read(["run", "seed"]).to_pandas()
    runs, seeds = whose["run"].cat.categories, pd.Index(whose["seed"].unique())
    # (runs, seeds); -1 for those that are not read
    position_by_code = np.full((len(runs), len(seeds)), -1)
    for (run, seed), position in position_of.items():
        position_by_code[runs.get_loc(run), seeds.get_loc(seed)] = position
    positions = position_by_code[whose["run"].cat.codes, seeds.get_indexer(whose["seed"])]
    rows = np.flatnonzero(positions >= 0)
    # One column after the other, because a file has many more rows than are read of it.
    part = pa.table({name: file.read([name]).column(0).take(rows) for name in columns})
    return part, positions[rows]


def read_index(path: Path) -> Index:
    """Return the index of a Parquet file; empty if there is none that this module wrote."""
    try:
        state = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    # A page asks for the index of all files of a table several times. A file that is written anew
    # is another one.
    return dict(_index_of_file(path, state.st_ino, state.st_mtime_ns, state.st_size))


@lru_cache(maxsize=2**14)
def _index_of_file(path: Path, *_: int) -> Index:
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
    table: str,
    profile: Profile,
    runs: Iterable[str] | None = None,
    seeds: int | Collection[int] | None = None,
    suites: Mapping[str, Suite] = SUITES,
) -> pd.DataFrame:
    """Read a table of several runs as one frame; see `cae_lab.results.load`."""
    index, rows_to_read = index_of(table, profile, suites), []
    for run in dict.fromkeys(run for run, _ in index) if runs is None else runs:
        rows, absent = select(index, run, seeds, profile)
        # Of all runs, each has the seeds that it has.
        if absent and runs is not None:
            raise not_stored_error(table, run, profile, rows, seeds)
        for row in rows.values():
            if changes := describe_changes(row, profile, suites):
                raise DataError(
                    f"{row.path}: {table} of {row.run}, seed {row.seed}, is out of date: "
                    f"{changes}. {_advice(row.run, profile, row.seed)}, or pass compute=True"
                )
        rows_to_read += rows.values()
    if not rows_to_read:
        raise not_stored_error(table, "base", profile)
    return read_rows(rows_to_read).to_pandas()


def select(
    index: Index, run: str, seeds: int | Collection[int] | None, profile: Profile
) -> tuple[dict[int, StoredRows], list[int]]:
    """Return the rows of a run by seed, and the requested seeds that are not stored.

    A number n of `seeds` stands for the n smallest stored ones, and None for all.
    """
    if seeds is not None and min([seeds - 1] if isinstance(seeds, int) else seeds, default=0) < 0:
        raise ConfigError(f"seeds is {seeds}: expected a number of seeds, or seeds of 0 and more")
    stored = {seed: rows for (name, seed), rows in index.items() if name == run}
    # A model that is not trained here has one seed, however many are asked for.
    if seeds is None or (len(stored) < 2 and not is_trained_here(run, profile)):
        return stored, [] if stored else [0]
    if isinstance(seeds, int):
        # If fewer are stored, the smallest other seeds are the ones to compute.
        new = [seed for seed in range(seeds + len(stored)) if seed not in stored]
        return dict([*stored.items()][:seeds]), new[: max(0, seeds - len(stored))]
    rows = {seed: stored[seed] for seed in seeds if seed in stored}
    return rows, [seed for seed in seeds if seed not in stored]


def not_stored_error(
    table: str,
    run: str,
    profile: Profile,
    stored_seeds: Collection[int] = (),
    seeds: int | Collection[int] | None = None,
) -> DataError:
    """Return an error that says which rows a table lacks, and which commands compute them."""
    lacking = "nothing is stored"
    if seeds is not None and stored_seeds:
        if isinstance(seeds, int):
            lacking = f"only {len(stored_seeds)} of {seeds} seeds are stored"
        else:
            lacking = f"seeds {[seed for seed in seeds if seed not in stored_seeds]} are not stored"
    return DataError(
        f"{table} of profile {profile.name}: {lacking} for {run!r}. "
        f"{_advice(run, profile)}, or `cae reproduce --profile {profile.name}` for all"
    )


def _advice(run: str, profile: Profile, seed: int = 0) -> str:
    """Return a sentence without its full stop that names the commands to measure a run."""
    options = f"--profile {profile.name}" + (f" --seed {seed}" if seed else "")
    train = ""
    if is_trained_here(run, profile):
        # A control is not trained itself, but reads the weights of another run.
        train = f"`cae train {GELU_CONTROLS.get(run, run)} {options}`, then "
    return f"Run {train}`cae evaluate {run} {options}`"


def describe_changes(
    rows: StoredRows, profile: Profile, suites: Mapping[str, Suite] = SUITES
) -> str:
    """Return which versions and settings have changed since rows were stored; "" for none.

    The data and the first weights are not compared, for which they would have to be here.
    """
    stored = rows.provenance
    changes: list[tuple[str, object, object]] = []
    name = stored.get("suite")
    versions = {DATA_RUN: DATA_VERSION} | {key: suite.version for key, suite in suites.items()}
    # Rows that come from no suite, such as those of a search for settings, have no version.
    if name in versions:
        changes.append((f"version of {name}", stored.get("version"), versions[name]))
    has_text = "text" in stored and is_run(rows.run, profile)
    run = profile.run(rows.run, rows.seed) if has_text else None
    if run and run.is_trained_here:
        now, reads = vars(run.config), text_versions(run.config)
        # The provenance states only the settings that differed from the defaults.
        before, now = (
            json.loads(json.dumps(values))  # a tuple becomes a list
            for values in (now | DEFAULTS | stored["settings"], now)
        )
        changes += [(setting, before[setting], now[setting]) for setting in SETTINGS]
        changes.append(("version of training", stored["training"], TRAINING_VERSION))
        read = stored["text"]
        changes += [
            (f"version of {text}", read.get(text), reads.get(text))
            for text in dict.fromkeys([*read, *reads])
        ]
    return ", ".join(f"{name} was {old}, is {new}" for name, old, new in changes if old != new)


def missing_runs(
    table: str, runs: Iterable[str], profile: Profile, suites: Mapping[str, Suite] = SUITES
) -> list[str]:
    """Return those of the `runs` for which a profile has no stored rows of a table."""
    stored = {run for run, _ in index_of(table, profile, suites)}
    return [run for run in runs if run not in stored]


def provenance_table(profile: Profile, suites: Mapping[str, Suite] = SUITES) -> pd.DataFrame:
    """Return the provenance of all tables as a frame; see `cae_lab.results.provenance_table`."""
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
            else not describe_changes(rows, profile, suites),
        )
        for table in table_names(profile)
        for (run, seed), rows in index_of(table, profile, suites).items()
    ]
    return pd.DataFrame(rows, columns=["table", "run", "seed", "key", *columns, "current"])
