"""Compositionality benchmarks for CLIP, read from the files of their official releases.

Each benchmark has a module, which describes it by a `Family` called `FAMILY`; two modules hold a
second family. To add a benchmark, write such a module and add its family to `BENCHMARK_FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cae_bench.benchmarks import (
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
from cae_bench.benchmarks.base import Average as Average
from cae_bench.benchmarks.base import Benchmark as Benchmark
from cae_bench.benchmarks.base import Family as Family
from cae_bench.benchmarks.base import ImageRef as ImageRef
from cae_bench.benchmarks.base import Item as Item
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
        crepe.SYSTEMATICITY_FAMILY,
        sugarcrepe.PLUS_PLUS_FAMILY,
        half_truths.FAMILY,
        bivlc.FAMILY,
        negbench.FAMILY,
        mmvp_vlm.FAMILY,
    )
}
"""All families of benchmarks by name, in the order in which they are loaded."""

FOLDER_OF_FAMILY: Mapping[str, str] = {
    name: family.folder for name, family in BENCHMARK_FAMILIES.items()
}
"""Folder of each family below that of all datasets; "" if it has none."""

# ARO is two families, "aro" and "order". That SVO-Probes and CREPE are among the seven is inferred.
PAPER_BENCHMARKS: tuple[str, ...] = tuple(
    name for name, family in BENCHMARK_FAMILIES.items() if family.in_paper
)
"""Names of the families that make up the seven benchmarks of the CAE paper."""

FURTHER_BENCHMARKS: tuple[str, ...] = tuple(
    name for name in BENCHMARK_FAMILIES if name not in PAPER_BENCHMARKS
)
"""The other families; with real data, they are used only if their folder exists."""


def family_names(names: Iterable[str]) -> list[str]:
    """Return names of families as `BENCHMARK_FAMILIES` has them."""
    typed = list(names)
    # The names of data sources, which users type as well, have hyphens.
    plain = [name.replace("-", "_") for name in typed]
    unknown = [
        name for name, key in zip(typed, plain, strict=True) if key not in BENCHMARK_FAMILIES
    ]
    if unknown:
        raise ConfigError(
            f"no benchmark {', '.join(unknown)}. Known: {', '.join(BENCHMARK_FAMILIES)}."
        )
    return plain


def load_benchmark(
    name: str, root: str | Path, *, is_published: bool = False, **options: Any
) -> list[Benchmark]:
    """Load the subsets of a family of benchmarks, each as a `Benchmark`.

    Items whose image is missing are left out, with a message. A subset without its annotation file
    has no items; it is returned only if its expected number of items is known.

    Args:
        name: Name of the family, a key of `BENCHMARK_FAMILIES`, or this key with hyphens.
        root: Folder of all datasets, such as `data/raw`.
        is_published: Whether the files are the published ones. If True, the published numbers of
            items are expected where they are known, and items with a broken image are left out. If
            False, the subsets and numbers are the `counts` in `root/manifest.json`; without any for
            this family, those of the files.
        options: Further arguments of the reader, such as `seed` for "order"; most have none.
    """
    # Imported here, because it needs Pillow, which the names above do not.
    from cae_bench.benchmarks.load import load_subsets

    family = BENCHMARK_FAMILIES[family_names([name])[0]]
    return load_subsets(family, Path(root), is_published=is_published, **options)


def is_size_unknown(family: str, subset: str) -> bool:
    """Return whether no number of items is published for a subset of a known family."""
    return (
        family in BENCHMARK_FAMILIES
        and BENCHMARK_FAMILIES[family].published_counts.get(subset) is None
    )


def is_rescored(family: str, subset: str) -> bool:
    """Return whether a subset of a known family only scores items of another subset again."""
    return family in BENCHMARK_FAMILIES and BENCHMARK_FAMILIES[family].is_rescored(subset)
