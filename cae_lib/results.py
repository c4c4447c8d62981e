"""The store of results: each measurement is a tidy table, kept as Parquet, one file a run, which
pandas reads as well. Every file holds the columns `run` and `seed`, and in its metadata, for each
seed, a key, which changes with anything that the numbers depend on, and their provenance."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from cae_lib.config import paths, profile
from cae_lib.errors import DataError
from cae_lib.runtime import stamp, whole_file, write_atomic

DATA = "data"
"""The run of tables that belong to the data and to no model."""

WITHOUT_SEEDS = ("base", DATA, "tuning")
"""How the names of runs begin that are not trained, and have one seed."""

META = b"cae"

Tables = Mapping[str, pd.DataFrame]
"""What a measurement returns: tables by name, without the columns run and seed."""

Made = dict[int, dict[str, Any]]
"""For each seed of a file: `key`, and `provenance` (see `cae_lib.runtime.stamp`)."""


def folder(profile_name: str) -> Path:
    """Where a profile's tables lie; those of smoke mean nothing and stay in the cache."""
    if profile_name == "smoke":
        return paths().cache / "smoke-records"
    return paths().records / profile_name


def file_of(table: str, run: str, profile_name: str) -> Path:
    """The file of one run, with all its seeds."""
    return folder(profile_name) / table / f"{run}.parquet"


def save(
    table: str, run: str, seed: int, frame: pd.DataFrame, profile_name: str,
    *, key: str, provenance: Mapping[str, Any],
) -> Path:
    """Write the rows of one seed, beside those of the run's other seeds; returns the file. `key` is
    a hash of all that the numbers depend on; `provenance`: see `cae_lib.runtime.stamp`. DataError
    if the frame has no rows or a column that cannot be stored; errors of `whole_file`."""
    path = file_of(table, run, profile_name)
    if frame.empty:
        raise DataError(f"{path}: there is no row to store; measure something, or store nothing")
    frame = frame.assign(run=run, seed=np.int8(seed))
    frame = frame[["run", "seed", *frame.columns.difference(["run", "seed"], sort=False)]]
    with _alone(path):
        made = {seed: {"key": key, "provenance": dict(provenance)}}
        _write(path, pa.Table.from_pandas(frame, preserve_index=False), made)
    return path


def discard(table: str, run: str, seed: int, profile_name: str) -> None:
    """Remove the rows of one seed, and the file with the last of them."""
    with _alone(path := file_of(table, run, profile_name)):
        _write(path, None, {seed: {}})


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Change a file while no other process does: the seeds of a run are measured side by side."""
    place = paths().cache / "locks"
    place.mkdir(parents=True, exist_ok=True)
    with FileLock(place / f"{path.parent.parent.name}-{path.parent.name}-{path.stem}.lock"):
        yield


def _write(path: Path, rows: pa.Table | None, made: Made) -> None:
    """Put the rows of some seeds in place of what the file has of them; the rest stays."""
    known = metadata(path)
    kept = known.keys() - made.keys()
    parts = []
    if kept:
        old = _read(path)
        parts.append(old.filter(pa.array(np.isin(old["seed"].to_numpy(), list(kept)))))
    if rows is not None:
        parts.append(rows)
    made = {seed: entry for seed, entry in sorted({**known, **made}.items()) if entry}
    if not parts:
        path.unlink(missing_ok=True)
        return
    content = pa.concat_tables(parts, promote_options="permissive")
    if rows is not None:  # a column that only older rows had goes with the last of them
        older = [name for name in content.column_names if name not in rows.column_names]
        content = content.drop_columns(
            [name for name in older if content[name].null_count == len(content)])
    order = np.argsort(content["seed"].to_numpy(), kind="stable")
    content = content.take(pa.array(order)).replace_schema_metadata({META: json.dumps(made)})
    with whole_file(path) as temporary:
        _write_small(content, temporary)


def _write_small(content: pa.Table, path: Path) -> None:
    """Write Parquet with the encodings that take half of the usual room and lose nothing."""
    encodings = {}
    for field in content.schema:
        if pa.types.is_floating(field.type):
            encodings[field.name] = "BYTE_STREAM_SPLIT"
        elif pa.types.is_integer(field.type) and field.type.bit_width >= 32:
            encodings[field.name] = "DELTA_BINARY_PACKED"
    others = [name for name in content.column_names if name not in encodings]
    pq.write_table(content, path, compression="zstd", compression_level=19,
                   use_dictionary=others, column_encoding=encodings)


def load(table: str, profile_name: str = "mini", runs: Iterable[str] | None = None,
         seeds: int | None = None) -> pd.DataFrame:
    """Read a table of several runs as one frame.

    Args:
        table, profile_name: Such as "benchmarks", and whose results.
        runs: Runs in the order wanted, see `cae_lib.runs`; None reads all that are stored.
        seeds: Number of seeds of each trained run; None reads all that are stored.

    DataError, which says what measures it, if a run has no such table, or not of so many seeds.
    """
    known = stored(table, profile_name)
    parts = []
    for run in known if runs is None else runs:
        if run not in known:
            raise DataError(_advice(table, run, profile_name))
        part = _read(known[run])
        present = np.unique(part["seed"].to_numpy())
        few = runs is not None and len(present) < (seeds or 0)
        if few and not run.startswith(WITHOUT_SEEDS):
            raise DataError(f"{len(present)} of {seeds} seeds. {_advice(table, run, profile_name)}")
        wanted = np.isin(part["seed"].to_numpy(), present[:seeds])
        parts.append(part if wanted.all() else part.filter(pa.array(wanted)))
    if not parts:
        raise DataError(_advice(table, "base", profile_name))
    return pa.concat_tables(parts, promote_options="permissive").to_pandas()


def stored(table: str, profile_name: str) -> dict[str, Path]:
    """The files of a table by run."""
    return {path.stem: path for path in sorted((folder(profile_name) / table).glob("*.parquet"))}


def missing(table: str, runs: Iterable[str], profile_name: str) -> list[str]:
    """Those of some runs for which a profile holds no such table."""
    known = stored(table, profile_name)
    return [run for run in runs if run not in known]


def _read(path: Path) -> pa.Table:
    try:
        return pq.read_table(path, partitioning=None)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path} cannot be read ({error}): restore it from version control, or "
                        "delete it and measure the run again") from error


def _advice(table: str, run: str, profile_name: str) -> str:
    where = f"{folder(profile_name) / table}: nothing is stored for {run!r}"
    if profile(profile_name).base is not None:
        return f"{where}. `cae reproduce --profile {profile_name}` measures everything"
    untrained = run in ("base", DATA)
    train = "" if untrained else f"`cae train {run} --profile {profile_name}`, then "
    return f"{where}. Run {train}`cae evaluate {run} --profile {profile_name}`"


def metadata(path: Path) -> Made:
    """Key and provenance of each seed of a file; empty where the file is none of ours."""
    try:
        content = (pq.read_schema(path).metadata or {}).get(META)
    except (OSError, pa.ArrowInvalid):
        return {}
    return {int(seed): entry for seed, entry in json.loads(content or "{}").items()}


def complete(profile_name: str, suite: str, families: Iterable[str] | None = None) -> bool:
    """Whether a measurement used all that there should be, of some families or of all: without it
    there is no verdict."""
    known = load("subsets", profile_name, [DATA])
    known = known[known["suite"] == suite]
    if families is not None:
        known = known[known["family"].isin(list(families))]
    return len(known) > 0 and bool((known["n_used"] == known["n_expected"]).all())


def made(profile_name: str) -> pd.DataFrame:
    """How every stored table was made: a row for each table, run and seed, with `key`, `suite`,
    `code`, `device`, `wall_seconds`."""
    entries = ("suite", "code", "device", "wall_seconds")
    rows = [(path.parent.name, path.stem, seed, meta["key"], *map(meta["provenance"].get, entries))
            for path in sorted(folder(profile_name).glob("*/*.parquet"))
            for seed, meta in metadata(path).items()]
    return pd.DataFrame(rows, columns=["table", "run", "seed", "key", *entries])


def measure(
    suite: str, run: str, seed: int, profile_name: str, key: str, compute: Callable[[], Tables],
    *, fresh: bool = False, **settings: Any,
) -> None:
    """Compute and store the tables of one measurement, unless all are stored with this key.

    Args:
        suite: Name of the measurement; tables of it that it no longer gives are removed.
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
        discard(name, run, seed, profile_name)
    write_atomic(marker, key)


def _tables_of(suite: str, run: str, seed: int, profile_name: str) -> dict[str, dict[str, Any]]:
    """The key and provenance of the stored tables of one measurement, by table."""
    entries = {path.parent.name: metadata(path).get(seed)
               for path in folder(profile_name).glob(f"*/{run}.parquet")}
    return {name: made for name, made in entries.items()
            if made and made["provenance"].get("suite") == suite}
