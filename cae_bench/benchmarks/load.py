"""Load a benchmark: read its items, check their images, and count used and missing items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cae_bench.benchmarks.base import (
    Average,
    Benchmark,
    ExcludedRow,
    Family,
    Item,
    Task,
)
from cae_lib.data.incomplete import image_problem, listed, log_left_out, log_once
from cae_lib.data.rows import EmptyFileError, MissingFileError, read_json
from cae_lib.errors import DataError

MISSING_IMAGES_KEY, BROKEN_IMAGES_KEY = "missing_images", "broken_images"
"""Keys of `Benchmark.property_counts` for items that are left out because of their images."""


def load_subsets(
    family: Family, root: Path, *, is_published: bool = False, **options: Any
) -> list[Benchmark]:
    """Load the subsets of a family; `load_benchmark` explains the arguments."""
    expected = family.published_counts if is_published else _manifest_counts(root, family.name)
    names = list(family.published_counts)
    if expected and not is_published:
        published = [name for name in names if name in expected]
        names = list(dict.fromkeys([*published, *expected]))
    benchmarks, absent = [], []
    for subset in names:
        benchmark, missing_file = _load_subset(
            family, root, subset, expected, is_published, options
        )
        # A published subset of unknown size is there if its file was read.
        is_read = is_published and not missing_file
        if benchmark.n_used or benchmark.n_expected or is_read:
            benchmarks.append(benchmark)
        if missing_file:
            absent.append((subset, missing_file))
    if len(absent) == len(names) and not is_published:
        raise DataError(f"{family.name}: no annotation file is there. {absent[0][1]}")
    if absent and (is_published or expected):
        _log_absent_subsets(family, dict(absent), expected)
    if is_published:
        _log_missing_files(family, root)
        _log_unverified_numbers(family, benchmarks)
    return benchmarks


def _log_absent_subsets(
    family: Family, absent: Mapping[str, str], expected: Mapping[str, int | None]
) -> None:
    """Print which subsets have no annotation file, their number of items, and the first error."""
    # Subsets that score the same items again would count them twice.
    subsets = [name for name in absent if not family.is_rescored(name)]
    unknown = [name for name in subsets if expected.get(name) is None]
    n_items = sum(expected.get(name) or 0 for name in subsets)
    amounts = [f"{n_items:,} items"] if len(unknown) < len(subsets) else []
    if unknown:
        amounts.append(f"an unknown number of items of {len(unknown):,} of these subsets")
    reason = next(iter(absent.values()))
    log_once(f"Left out of {family.name}: {', '.join(subsets)}; {' and '.join(amounts)}. {reason}")


def _log_missing_files(family: Family, root: Path) -> None:
    """Print the names of missing annotation files of a family, unless it has none at all."""
    missing = [file for file in family.files if not any(root.glob(file))]
    # CREPE reads nine files as one subset, which only lacks items if some are missing. If all are
    # missing, the message about absent subsets says so.
    if missing and len(missing) < len(family.files):
        log_once(f"Missing files of {family.name} in {root}: {listed(missing)}")


def _log_unverified_numbers(family: Family, benchmarks: Sequence[Benchmark]) -> None:
    """Print how many items were read of subsets that have no published number of items."""
    parts = [part for part in benchmarks if family.published_counts.get(part.subset) is None]
    if parts:
        log_once(
            f"{family.name}: {sum(part.n_expected for part in parts):,} items read of "
            f"{listed([part.subset for part in parts])}; number published unknown, so nobody can "
            "tell whether they are complete"
        )


def _manifest_counts(root: Path, name: str) -> Mapping[str, int | None]:
    """Return the numbers of items by subset in the manifest of generated datasets, or {}."""
    path = root / "manifest.json"
    return read_json(path, dict).get("counts", {}).get(name, {}) if path.is_file() else {}


def read_all_items(
    family: Family, root: Path, subset: str, excluded: Counter[str], **options: Any
) -> Iterator[Item]:
    """Yield the items of a subset that count, with or without images; count excluded rows."""
    keys: set[str] = set()
    for item in family.read_items(root, subset, **options):
        if isinstance(item, ExcludedRow):
            excluded[item.reason] += 1
            continue
        if item.key in keys:
            file = family.files[0] if len(family.files) == 1 else family.folder
            raise DataError(
                f"{root / file}: two items of {family.name}/{subset} have the key "
                f"{item.key!r}. Fetch the annotation file again."
            )
        keys.add(item.key)
        yield item


def _load_subset(
    family: Family,
    root: Path,
    subset: str,
    expected: Mapping[str, int | None],
    is_published: bool,
    options: Mapping[str, Any],
) -> tuple[Benchmark, str]:
    """Load one subset; also return the error message if its annotation file is missing, else ""."""
    items: list[Item] = []
    numbers: list[int] = []
    left_out: list[tuple[str, str]] = []
    counts: Counter[str] = Counter()
    problem = ""
    n_questions = 0
    try:
        for number, item in enumerate(read_all_items(family, root, subset, counts, **options)):
            # Counted before items are left out, so that an item has one number on all machines.
            n_questions = number + 1
            # A broken image of a published set would else stop a long evaluation later.
            errors = [image_problem(image.path, decode=is_published) for image in item.images]
            if any(errors):
                missing = any(error.endswith("is missing") for error in errors)
                counts[MISSING_IMAGES_KEY if missing else BROKEN_IMAGES_KEY] += 1
                left_out.append((f"item {item.key}", next(filter(None, errors))))
                continue
            items.append(item)
            numbers.append(number)
            if len(item.images) == 1 and len(item.texts) > 1:
                counts["identical"] += _has_repeated_true_text(item, family.task_of(subset))
    except MissingFileError as error:
        problem = str(error)
    except EmptyFileError:
        # A small generated dataset may have no item of a subset.
        if expected.get(subset) != 0:
            raise
    n_expected = expected.get(subset)
    if n_expected is None:
        n_expected = n_questions
    # Surplus items mean another version of the benchmark, whose scores are not comparable.
    if n_questions > n_expected:
        raise DataError(
            f"{root / family.folder}: {n_questions} items of {family.name}/{subset}, {n_expected} "
            "expected. Fetch the published version."
        )
    if not problem and not family.is_rescored(subset):
        where = root / family.folder
        advice = f"Its images are {family.images_advice}" if left_out else ""
        log_left_out(f"{family.name}/{subset}", where, len(items), n_expected, left_out, advice)
    counts.update(family.extra_counts(subset, items) if family.extra_counts else {})
    average = Average("nothing of it is there")
    if items:
        average = family.average_of(subset).of_groups(item.group for item in items)
    benchmark = Benchmark(
        family.name,
        subset,
        tuple(items),
        n_expected,
        average,
        family.task_of(subset),
        dict(counts),
        tuple(numbers),
    )
    return benchmark, problem


def _has_repeated_true_text(item: Item, task: Task) -> bool:
    """Return whether a false text of an item with one image equals a true one."""
    true = (0, 1) if task in ("itt", "tot", "ordered") else (item.truth,)
    false = [text for index, text in enumerate(item.texts) if index not in true]
    return any(item.texts[index] in false for index in true)
