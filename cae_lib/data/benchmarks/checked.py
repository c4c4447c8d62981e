"""Whether an entry of `table` makes sense, before a file is read by it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cae_lib.data.benchmarks.entry import Layout
from cae_lib.errors import DataError


def check(name: str, layout: Layout) -> None:
    """DataError that names the entry, what is wrong with it, and what was expected. What a `loader`
    reads is its own matter."""
    for problem in () if layout.loader else _problems(layout):
        raise DataError(f"LAYOUTS[{name!r}] in cae_lib/data/benchmarks/table.py: {problem}")


def _problems(layout: Layout) -> Iterator[str]:
    files, texts = map(_values, (layout.file, layout.texts))
    if not all(isinstance(place, str) for place in files):
        yield (f"file is {layout.file!r}: expected one place, in which {{file}} stands for a "
               "subset, or places by patterns of subsets")
    elif len({*files}) == 1 < len(layout.sizes) and "{" not in files[0] and not layout.only:
        yield (f"its {len(layout.sizes)} subsets are all read from {files[0]}: write {{file}} "
               "where their names stand")
    ours = [column.rstrip("?").rpartition("=")[2] for column in layout.columns.split()]
    named = dict.fromkeys([layout.image, *(name for text in texts for name in text.split())])
    if absent := [name for name in named if name not in ours]:
        yield (f"no column is called {', '.join(absent)}, by which its items are read: expected "
               f"FIELD={absent[0]}, where FIELD is the name in your file, among columns = "
               f"{layout.columns!r}")


def _values(given: str | Mapping[str, str]) -> list[str]:
    return list(given.values()) if isinstance(given, Mapping) else [given]
