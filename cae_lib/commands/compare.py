"""`cae compare`: how the stored tables differ from those of a commit."""

from __future__ import annotations

import argparse
import io
import subprocess

import pandas as pd

from cae_lib import results
from cae_lib.config import paths
from cae_lib.errors import ConfigError, DataError

ANSWERS = ("correct", "rank")
"""Columns that are an answer; one that differs is an answer that changed."""


def run(parsed: argparse.Namespace) -> None:
    """Compare all tables of a profile, and print a line for each file that differs."""
    commit, root = parsed.commit, paths().root
    folder = results.folder(parsed.profile)
    if parsed.profile == "smoke":
        raise ConfigError("tables of the profile smoke mean nothing, and are in no commit")
    place = f"{folder.relative_to(root).as_posix()}/"
    listed = _git("ls-tree", "-r", "--name-only", commit, "--", place).decode().splitlines()
    old = {name.removeprefix(place) for name in listed if name.endswith(".parquet")}
    new = {path.relative_to(folder).as_posix() for path in folder.rglob("*.parquet")}
    lines = [f"{name}: {'new' if name in new else 'gone'}" for name in sorted(old ^ new)]
    rows = 0
    for name in sorted(old & new):
        then = _read(_git("show", f"{commit}:./{place}{name}"), name)
        now = _read((folder / name).read_bytes(), name)
        compared, text = difference(then, now)
        rows += compared
        if text:
            lines.append(f"{name}: {text}")
    total = f"{len(old & new)} tables, {rows:,} rows compared with {commit}"
    print("\n".join([*lines, f"{len(lines)} differ; {total}"] if lines else [f"same: {total}"]))


def difference(old: pd.DataFrame, new: pd.DataFrame) -> tuple[int, str]:
    """Rows compared, and in words the answers changed and the largest difference of a number."""
    if list(old.columns) != list(new.columns):
        changed = sorted(set(old.columns) ^ set(new.columns)) or ["their order"]
        return 0, f"other columns: {', '.join(changed)}"
    if len(old) != len(new):
        return 0, f"{len(old):,} rows then, {len(new):,} now"
    found, largest = [], (0.0, "")
    for name in old.columns:
        missing = old[name].isna(), new[name].isna()
        differs = int(((old[name] != new[name]) & ~(missing[0] & missing[1])).sum())
        if not differs:
            continue
        if name in ANSWERS:
            found.append(f"{differs:,} answers changed ({name}, {100 * differs / len(old):.2g} %)")
        elif pd.api.types.is_float_dtype(old[name]):
            apart = float((old[name].astype(float) - new[name].astype(float)).abs().max())
            largest = max(largest, (apart, name))
            if missing[0].ne(missing[1]).any():
                found.append(f"{name}: a number here, none there")
        else:
            found.append(f"other items: {name} differs in {differs:,} rows")
    if largest[0]:
        found.append(f"largest difference {largest[0]:.2g} ({largest[1]})")
    return len(old), f"{len(old):,} rows, " + "; ".join(found) if found else ""


def _git(*arguments: str) -> bytes:
    root = paths().root
    try:
        return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True).stdout
    except OSError as error:
        raise ConfigError(f"`cae compare` needs git ({error.strerror})") from error
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode().strip()
        raise ConfigError(f"git {' '.join(arguments[:2])} in {root}: {reason}") from error


def _read(content: bytes, name: str) -> pd.DataFrame:
    try:
        return pd.read_parquet(io.BytesIO(content))
    except (OSError, ValueError) as error:
        raise DataError(f"{name} cannot be read ({error}): restore it with git") from error
