"""Load test sets from a folder, and cache them.

If a published dataset is incomplete, its usable part is loaded, and a printed line says what is
left out. Generated datasets have to be complete.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from cae_bench.benchmarks import (
    BENCHMARK_FAMILIES,
    FOLDER_OF_FAMILY,
    FURTHER_BENCHMARKS,
    Benchmark,
    family_names,
    load_benchmark,
)
from cae_bench.labelled import LabelledImages, load_labelled_folder
from cae_bench.similarity import (
    SENTEVAL_FOLDER,
    SIMILARITY_SETS,
    SentencePairs,
    available_similarity_sets,
    load_similarity_set,
)
from cae_bench.sources import fetch_command
from cae_lib.data.captions import RETRIEVAL_SETS, ImageCaptionPairs, load_retrieval_set
from cae_lib.data.incomplete import log_once
from cae_lib.data.rows import read_json
from cae_lib.errors import ConfigError, DataError, MissingDataError

MANIFEST_FILE = "manifest.json"
"""File in the root of generated datasets that lists their numbers of items."""

LABELLED_FOLDER = "zero-shot"
"""Folder of the user's own datasets of labelled images, below the folder of all datasets."""


@dataclass(frozen=True)
class Datasets:
    """The test sets below one folder, in the layouts in which they are published.

    Attributes:
        root: Folder that contains the folders of all datasets.
        is_published: Whether they are the published datasets, of which any part may be missing.
            Generated datasets have to be complete, and `MANIFEST_FILE` lists them.
        build_command: Shell command that generates the datasets; not used for published ones.
    """

    root: Path
    is_published: bool = True
    build_command: str = ""

    def manifest(self, folder: str = "") -> Path:
        """Return the path of the manifest of generated datasets, which is written last.

        Args:
            folder: Folder of the manifest below `root`.

        Raises:
            DataError: If it is missing; the message names the command that generates the datasets.
        """
        path = self.root / folder / MANIFEST_FILE
        if not path.is_file():
            raise DataError(
                f"{path}: the data are not built here; run `{self.build_command}` in a clone"
            )
        return path

    def counts(self) -> Mapping[str, Mapping[str, int]]:
        """Return the manifest's numbers of items of generated datasets, by family and subset.

        Raises:
            DataError: If the manifest is missing or malformed.
        """
        return read_json(self.manifest(), dict)["counts"]


@contextmanager
def skip_if_missing(name: str, may_be_missing: bool) -> Iterator[None]:
    """Suppress a MissingDataError if allowed, and print once that `name` is left out."""
    try:
        yield
    except MissingDataError as error:
        if not may_be_missing:
            raise
        log_once(f"Left out: {name}. {error}")


def load_benchmarks(datasets: Datasets, families: Iterable[str] = ()) -> tuple[Benchmark, ...]:
    """Load benchmarks, a `Benchmark` for each subset.

    If the annotation file of a published subset is missing, the subset is returned without items,
    or left out if its expected size is unknown.

    Args:
        datasets: The test sets.
        families: Names of the families to load; hyphens may stand for underscores. By default,
            those of `benchmark_families`.

    Raises:
        ConfigError: If a family is unknown or, of generated datasets, missing, or if the family
            "order" finds no English spaCy model.
        DataError: If data are malformed, generated data are incomplete, or a family that `families`
            names has no usable item.
    """
    names = family_names(families)
    # Published families may be named without their folder: the error says how to get them.
    available = [*FOLDER_OF_FAMILY] if datasets.is_published else benchmark_families(datasets)
    if unknown := [name for name in names if name not in available]:
        raise ConfigError(f"no benchmark {', '.join(unknown)}. Known: {', '.join(available)}.")
    requested = [name for name in available if name in (names or benchmark_families(datasets))]
    parts = [part for name in requested for part in load_family(datasets, name)]
    usable = {part.name for part in parts if part.n_used}
    # Only families that the caller names have to be there; of the others any part may be missing.
    if absent := [name for name in names if name not in usable]:
        sources = (source for name in absent for source in BENCHMARK_FAMILIES[name].source_names)
        raise MissingDataError(
            f"{datasets.root}: no item of {', '.join(absent)} can be used. Fetch what is missing: "
            f"{fetch_command(sources)}"
        )
    return tuple(parts)


def benchmark_families(datasets: Datasets) -> list[str]:
    """Return the names of the benchmark families that the datasets have.

    Of published ones: the paper's, even if missing, and every other one whose folder exists.
    """
    if not datasets.is_published:
        counts = datasets.counts()
        return [name for name in FOLDER_OF_FAMILY if name in counts]
    return [
        name
        for name, folder in FOLDER_OF_FAMILY.items()
        if name not in FURTHER_BENCHMARKS or (datasets.root / folder).is_dir()
    ]


@lru_cache(maxsize=64)
def load_family(datasets: Datasets, name: str) -> list[Benchmark]:
    """Load the subsets of a benchmark family; the result is cached."""
    parts = load_benchmark(name, datasets.root, is_published=datasets.is_published)
    for part in parts if not datasets.is_published else ():
        if part.n_used != part.n_expected:
            raise DataError(
                f"{datasets.root}: {part.n_used} of {part.n_expected} items of {part.key} are "
                "there. Remove the folder and build it again."
            )
    return parts


@lru_cache(maxsize=4)
def retrieval_pairs(datasets: Datasets, name: str) -> ImageCaptionPairs:
    """Load the pairs of "coco" or "flickr30k", cached; a published set may be incomplete."""
    root, published = datasets.root, datasets.is_published
    pairs = load_retrieval_set(
        name, root, missing_images="drop" if published else "raise", is_published=published
    )
    if not pairs.n_used:
        raise MissingDataError(
            f"{root / name}: captions are there, but no image of them that can be used. Put the "
            "images there to measure anything on this dataset."
        )
    return pairs


def retrieval_sets(datasets: Datasets) -> dict[str, ImageCaptionPairs]:
    """Load the retrieval sets by name; published ones that are missing are left out."""
    pairs = {}
    # The manifest has no retrieval sets of its own: they are the captions of the family "order".
    for name in RETRIEVAL_SETS if datasets.is_published else datasets.counts()["order"]:
        with skip_if_missing(f"retrieval on {name}", datasets.is_published):
            pairs[name] = retrieval_pairs(datasets, name)
    return pairs


@lru_cache(maxsize=2)
def similarity_sets(datasets: Datasets) -> tuple[SentencePairs, ...]:
    """Load the text similarity datasets that are on this machine; the result is cached."""
    folder, pairs = datasets.root / SENTEVAL_FOLDER, []
    names = SIMILARITY_SETS if datasets.is_published else available_similarity_sets(folder)
    for name in names:
        with skip_if_missing(name, datasets.is_published):
            pairs.append(load_similarity_set(name, folder, is_published=datasets.is_published))
    return tuple(pairs)


@lru_cache(maxsize=2)
def labelled_sets(datasets: Datasets) -> Mapping[str, LabelledImages]:
    """Load the user's own sets for zero-shot classification by folder name; cached."""
    root = datasets.root / LABELLED_FOLDER
    folders = sorted(path for path in root.glob("*") if path.is_dir())
    if not folders:
        raise MissingDataError(
            f"{root}: no dataset of labelled images. Put each dataset into a folder of its own "
            "there, with one folder of images for each class."
        )
    return {path.name: load_labelled_folder(path) for path in folders}
