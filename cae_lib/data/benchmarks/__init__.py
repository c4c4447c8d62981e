"""Benchmarks of composition in their official layouts, all read into the same `Choice` items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cae_lib.data.benchmarks.base import Benchmark, Choice, ImageRef
from cae_lib.data.benchmarks.table import LAYOUTS
from cae_lib.data.rows import read_json
from cae_lib.errors import ConfigError

__all__ = [
    "BENCHMARKS",
    "FOLDERS",
    "FURTHER",
    "LAYOUTS",
    "Benchmark",
    "Choice",
    "ImageRef",
    "load_benchmark",
]

FOLDERS: Mapping[str, str] = {name: layout.folder for name, layout in LAYOUTS.items()}
"""Folder of each family below that of all data sets."""

BENCHMARKS: tuple[str, ...] = tuple(name for name, layout in LAYOUTS.items() if layout.paper)
"""Families of the paper's tables, which every profile has."""

FURTHER: tuple[str, ...] = tuple(name for name in LAYOUTS if name not in BENCHMARKS)
"""Families beside the paper's, read where they are there."""


def load_benchmark(
    name: str,
    root: str | Path,
    *,
    subsets: Sequence[str] | None = None,
    official: bool = False,
    allow_missing: bool = False,
    **more: Any,
) -> list[Benchmark]:
    """Read one family, of `BENCHMARKS` or `FURTHER`, into a benchmark for each of its subsets.

    The numbers of items that are expected are the published ones if the set is `official`; else the
    `counts` of a `manifest.json` in `root`, as the small world's, if it has one; else as many as
    there are rows. A subset that is expected has to be there.

    Args:
        name: One of `LAYOUTS`.
        root: Folder that holds all data sets.
        subsets: Those to read; None for all that are there, or have to be.
        official: Whether it is the published set, whole.
        allow_missing: Read what is there: leave out, tell and count files that cannot be read,
            malformed rows, and rows without their picture, or with one that cannot be decoded. What
            is not there of an `official` set has no items, and so many that are expected.
        more: Further arguments of a family's own loader, as the `seed` of the family "order".

    ConfigError if the name or a subset is unknown; DataError if a file or a picture is missing, a
    row is malformed, or the number of rows is not the expected one.
    """
    from cae_lib.data.benchmarks.read import load  # needs Pillow, and the names above do not

    if name not in LAYOUTS:
        raise ConfigError(f"no benchmark {name!r}. Known: {', '.join(LAYOUTS)}.")
    layout, manifest = LAYOUTS[name], Path(root) / "manifest.json"
    expected = layout.published if official else {}
    if not official and manifest.is_file():
        expected = read_json(manifest, dict).get("counts", {}).get(name, {})
    return load(
        name,
        layout,
        Path(root) / layout.folder,
        expected,
        subsets=subsets,
        official=official,
        allow_missing=allow_missing,
        **more,
    )
