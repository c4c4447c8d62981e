"""Benchmarks of composition in their official layouts: one module a family.

A new family is a module with a `FAMILY` and a line in `BENCHMARK_FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cae_lib.data.benchmarks import (
    aro,
    bivlc,
    cola,
    crepe,
    half_truths,
    mmvp_vlm,
    negbench,
    order,
    sugarcrepe,
    svo_probes,
    valse,
    vl_checklist,
    whatsup,
    winoground,
)
from cae_lib.data.benchmarks.base import Average as Average
from cae_lib.data.benchmarks.base import Benchmark as Benchmark
from cae_lib.data.benchmarks.base import Family as Family
from cae_lib.data.benchmarks.base import ImageRef as ImageRef
from cae_lib.data.benchmarks.base import Item as Item
from cae_lib.errors import ConfigError

BENCHMARK_FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        aro.FAMILY,
        order.FAMILY,
        winoground.FAMILY,
        sugarcrepe.FAMILY,
        vl_checklist.FAMILY,
        valse.FAMILY,
        svo_probes.FAMILY,
        crepe.FAMILY,
        whatsup.FAMILY,
        cola.FAMILY,
        crepe.SYSTEMATICITY,
        sugarcrepe.PLUS_PLUS,
        half_truths.FAMILY,
        bivlc.FAMILY,
        negbench.FAMILY,
        mmvp_vlm.FAMILY,
    )
}
"""All benchmarks by name, in the order in which they are read."""

FOLDERS: Mapping[str, str] = {name: family.folder for name, family in BENCHMARK_FAMILIES.items()}
"""Folder of each family below the folder of all datasets."""

BENCHMARKS: tuple[str, ...] = tuple(
    name for name, family in BENCHMARK_FAMILIES.items() if family.in_paper
)
"""Families of the paper's tables, which every profile has."""

FURTHER_BENCHMARKS: tuple[str, ...] = tuple(
    name for name in BENCHMARK_FAMILIES if name not in BENCHMARKS
)
"""Families that are not in the paper, read if their folder is there."""


def load_benchmark(
    name: str, root: str | Path, *, official: bool = False, **options: Any
) -> list[Benchmark]:
    """Load a family of benchmarks: a `Benchmark` for each subset that exists or is expected.

    Of an incomplete dataset the usable items are loaded: items of which an image is missing or
    broken are left out, a printed line says how many and why, and `n_used` is smaller than
    `n_expected`. A subset whose file is missing has no items if its number of items is known, and
    is left out otherwise.

    Args:
        name: One of `BENCHMARK_FAMILIES`.
        root: Folder that holds all datasets.
        official: Expect the published numbers of items; else the `counts` of a `manifest.json` in
            `root`, if it has one, or as many items as the files have.
        options: Further arguments of the family's reader, such as the `seed` of "order".

    Raises:
        ConfigError: If the family is unknown.
        DataError: If a row is malformed, two items have the same key, there are more items than
            expected, or no annotation file is there (unless `official`).
    """
    from cae_lib.data.benchmarks.load import load_family  # needs Pillow, and the names above do not

    if name not in BENCHMARK_FAMILIES:
        raise ConfigError(f"no benchmark {name!r}. Known: {', '.join(BENCHMARK_FAMILIES)}.")
    return load_family(BENCHMARK_FAMILIES[name], Path(root), official=official, **options)


def is_rescored(family: str, subset: str) -> bool:
    """Return whether a subset scores the items of another subset of its family again."""
    return family in BENCHMARK_FAMILIES and BENCHMARK_FAMILIES[family].is_rescored(subset)
