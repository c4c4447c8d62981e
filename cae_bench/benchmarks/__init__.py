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
"""Folder of each family by its name, relative to the folder of all datasets; "" if it has none."""

PAPER_BENCHMARKS: tuple[str, ...] = tuple(
    name for name, family in BENCHMARK_FAMILIES.items() if family.in_paper
)
"""Names of the families that make up the seven benchmarks of the CAE paper.

ARO is two families, "aro" and "order". That SVO-Probes and CREPE are among the seven is inferred.
"""

FURTHER_BENCHMARKS: tuple[str, ...] = tuple(
    name for name in BENCHMARK_FAMILIES if name not in PAPER_BENCHMARKS
)
"""Names of the families that are not in the CAE paper.

With real data, they are used only if their folder exists.
"""


def family_names(names: Iterable[str]) -> list[str]:
    """Return names of families as `BENCHMARK_FAMILIES` has them.

    Args:
        names: The names; hyphens may stand for underscores, as in the names of data sources.

    Raises:
        ConfigError: If there is no such family; the message lists the known names.
    """
    typed = list(names)
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

    If images are missing, their items are left out: a message is printed with the number of these
    items and the reasons, and `n_used` is smaller than `n_expected`. A subset whose annotation file
    is missing is returned without items if its expected number of items is known; otherwise it is
    not returned.

    Args:
        name: Name of the family, a key of `BENCHMARK_FAMILIES`, or this key with hyphens.
        root: Folder of all datasets, such as `data/raw`.
        is_published: Whether the files are the published ones. If True, the published numbers of
            items are expected where they are known, and all images are decoded, so that items with
            a broken image are left out, too. If False, the expected numbers are the `counts` in
            `root/manifest.json`, and only the subsets that they list are loaded; if there are none
            for this family, all subsets are loaded, and the expected numbers are those of the items
            in the files.
        options: Further arguments of the reader, such as `seed` for "order"; most have none.

    Raises:
        ConfigError: If the family is unknown, or if "order" finds no English spaCy model.
        DataError: If a file or a row is malformed, two items of a subset have the same key, a
            subset has more items than expected, or all annotation files are missing and
            `is_published` is False.
        WriteError: If an image that an annotation file contains cannot be written to disk.
    """
    # Imported here, because it needs Pillow, and the names above do not.
    from cae_bench.benchmarks.load import load_subsets

    family = BENCHMARK_FAMILIES[family_names([name])[0]]
    return load_subsets(family, Path(root), is_published=is_published, **options)


def is_size_unknown(family: str, subset: str) -> bool:
    """Return whether no number of items is published for a subset of a family.

    The expected number of its items is then the number in the files, whether complete or not. For
    an unknown family the answer is False.
    """
    return (
        family in BENCHMARK_FAMILIES
        and BENCHMARK_FAMILIES[family].published_counts.get(subset) is None
    )


def is_rescored(family: str, subset: str) -> bool:
    """Return whether a subset only scores items of another subset of its family again.

    Totals of items leave such subsets out. For an unknown family the answer is False.
    """
    return family in BENCHMARK_FAMILIES and BENCHMARK_FAMILIES[family].is_rescored(subset)
