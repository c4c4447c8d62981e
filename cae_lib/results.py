"""The store of results: each measurement is a tidy table, kept as Parquet, one file a run and seed.

``pandas.read_parquet("data/records/mini/benchmarks")`` reads what `load` reads. Every file holds
the columns ``run`` and ``seed``, and in its metadata a key, which changes with anything that the
numbers depend on, and their provenance.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cae_lib.config import paths, profile
from cae_lib.errors import DataError
from cae_lib.fingerprint import stamp
from cae_lib.runtime import write_atomic

DATA = "data"
"""The run of tables that belong to the data and to no model."""

WITHOUT_SEEDS = ("base", DATA, "tuning")
"""How the names of runs begin that are not trained, and have one seed."""

META = b"cae"

Tables = Mapping[str, pd.DataFrame]
"""What a measurement returns: tables by name, without the columns run and seed."""


def folder(profile_name: str) -> Path:
    """Where a profile's tables lie; those of smoke mean nothing and stay in the cache."""
    if profile_name == "smoke":
        return paths().cache / "smoke-records"
    return paths().records / profile_name


def file_of(table: str, run: str, seed: int, profile_name: str) -> Path:
    """The file of one run and seed; the file's name says both."""
    return folder(profile_name) / table / f"{run}-{seed}.parquet"


def save(
    table: str,
    run: str,
    seed: int,
    frame: pd.DataFrame,
    profile_name: str,
    *,
    key: str,
    provenance: Mapping[str, Any],
) -> Path:
    """Write one table whole or not at all; returns its file.

    Args:
        table: Name of the table, such as "benchmarks".
        run, seed: What was measured; they become the first two columns.
        frame: The rows.
        profile_name: Profile that the run belongs to.
        key: Hash of all that the numbers depend on.
        provenance: See `cae_lib.fingerprint.stamp`.

    Raises:
        DataError: The frame has no rows, a column that cannot be stored, or cannot be written.
    """
    path = file_of(table, run, seed, profile_name)
    if frame.empty:
        raise DataError(f"{path}: there is no row to store; measure something, or store nothing")
    frame = frame.assign(run=run, seed=np.int8(seed))
    frame = frame[["run", "seed", *frame.columns.difference(["run", "seed"], sort=False)]]
    meta = json.dumps({"key": key, "provenance": dict(provenance)}).encode()
    content = pa.Table.from_pandas(frame, preserve_index=False)
    write_atomic(path, _as_bytes(content.replace_schema_metadata({META: meta})))
    return path


def _as_bytes(content: pa.Table) -> bytes:
    """A table as Parquet, with the encodings that take half of the usual room and lose nothing."""
    encodings = {}
    for field in content.schema:
        if pa.types.is_floating(field.type):
            encodings[field.name] = "BYTE_STREAM_SPLIT"
        elif pa.types.is_integer(field.type) and field.type.bit_width >= 32:
            encodings[field.name] = "DELTA_BINARY_PACKED"
    others = [name for name in content.column_names if name not in encodings]
    stream = pa.BufferOutputStream()
    pq.write_table(content, stream, compression="zstd", compression_level=19,
                   use_dictionary=others, column_encoding=encodings)
    return stream.getvalue().to_pybytes()


def load(
    table: str,
    profile_name: str = "mini",
    runs: Iterable[str] | None = None,
    seeds: int | None = None,
) -> pd.DataFrame:
    """Read a table of several runs as one frame.

    Args:
        table: Name of the table.
        profile_name: Whose results.
        runs: Runs in the order wanted, see `cae_lib.runs`; None reads all that are stored.
        seeds: Number of seeds of each trained run; None reads all that are stored.

    Raises:
        DataError: A run has no such table, or not of so many seeds; the message says which command
            measures it.
    """
    place = folder(profile_name) / table
    stored = stored_files(place)
    files = []
    for run in stored if runs is None else runs:
        if run not in stored:
            raise DataError(_advice(table, run, profile_name))
        found = stored[run]
        few = runs is not None and len(found) < (seeds or 0)
        if few and not run.startswith(WITHOUT_SEEDS):
            raise DataError(f"{len(found)} of {seeds} seeds. {_advice(table, run, profile_name)}")
        files += found[:seeds]
    if not files:
        raise DataError(_advice(table, "base", profile_name))
    parts = [_read(path) for path in files]
    return pa.concat_tables(parts, promote_options="permissive").to_pandas()


def stored_files(place: Path) -> dict[str, list[Path]]:
    """The files of one table by run, those of a run in the order of its seeds."""
    found: dict[str, list[Path]] = {}
    for path in sorted(place.glob("*.parquet"), key=_seed):
        found.setdefault(path.stem.rpartition("-")[0], []).append(path)
    return dict(sorted(found.items()))


def _seed(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])


def _read(path: Path) -> pa.Table:
    try:
        return pq.read_table(path, partitioning=None)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(
            f"{path} cannot be read ({error}): restore it from version control, or delete it and "
            "measure the run again"
        ) from error


def _advice(table: str, run: str, profile_name: str) -> str:
    where = f"{folder(profile_name) / table}: nothing is stored for {run!r}"
    if profile(profile_name).base is not None:
        return f"{where}. `cae reproduce --profile {profile_name}` measures everything"
    untrained = run in ("base", DATA)
    train = "" if untrained else f"`cae train {run} --profile {profile_name}`, then "
    return f"{where}. Run {train}`cae evaluate {run} --profile {profile_name}`"


def missing(table: str, runs: Iterable[str], profile_name: str) -> list[str]:
    """Those of some runs for which a profile holds no such table."""
    stored = stored_files(folder(profile_name) / table)
    return [run for run in runs if run not in stored]


def metadata(path: Path) -> dict[str, Any]:
    """Key and provenance of a stored table; empty where the file is none of ours."""
    try:
        content = (pq.read_schema(path).metadata or {}).get(META)
    except (OSError, pa.ArrowInvalid):
        return {}
    return json.loads(content) if content else {}


def measure(
    suite: str,
    run: str,
    seed: int,
    profile_name: str,
    key: str,
    compute: Callable[[], Tables],
    *,
    fresh: bool = False,
    **settings: Any,
) -> None:
    """Compute and store the tables of one measurement, unless all are stored with this key.

    Args:
        suite: Name of the measurement; tables of the same suite that it no longer gives are
            removed.
        run, seed, profile_name: What is measured.
        key: Hash of all that the numbers depend on, the suite included.
        compute: Measures; a table without rows is not stored.
        fresh: Compute even what is stored, unless this clone has computed it itself.
        **settings: Entries of the provenance.
    """
    marker = paths().cache / profile_name / "done" / f"{suite}-{run}-{seed}.key"
    own = marker.is_file() and marker.read_text(encoding="utf-8") == key
    known = _tables_of(suite, run, seed, profile_name)
    expected = {name for meta in known.values() for name in meta["provenance"]["tables"]}
    current = all(meta["key"] == key for meta in known.values()) and expected == set(known)
    if known and current and (own or not fresh):
        return
    start = time.monotonic()
    found = {name: frame for name, frame in compute().items() if len(frame)}
    seconds = round(time.monotonic() - start, 1)
    entries = {"suite": suite, "tables": sorted(found), "wall_seconds": seconds, **settings}
    provenance = stamp(profile_name, seed, **entries)
    for name, frame in found.items():
        save(name, run, seed, frame, profile_name, key=key, provenance=provenance)
    for name in known.keys() - found.keys():
        file_of(name, run, seed, profile_name).unlink()
    write_atomic(marker, key)


def _tables_of(suite: str, run: str, seed: int, profile_name: str) -> dict[str, dict[str, Any]]:
    """The metadata of the stored tables of one measurement, by table."""
    found = {}
    for path in folder(profile_name).glob(f"*/{run}-{seed}.parquet"):
        meta = metadata(path)
        if meta.get("provenance", {}).get("suite") == suite:
            found[path.parent.name] = meta
    return found
