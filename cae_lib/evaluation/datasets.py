"""Load the test sets of a profile, and cache them.

If a real dataset is incomplete, its usable part is loaded. A printed line then says what is left
out, and the number of used items is smaller than the expected number. Generated datasets and
training data have to be complete.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np

from cae_lib.data.benchmarks import (
    BENCHMARK_FAMILIES,
    FOLDER_OF_FAMILY,
    FURTHER_BENCHMARKS,
    Benchmark,
    family_names,
    load_benchmark,
)
from cae_lib.data.captions import RETRIEVAL_SETS, ImageCaptionPairs, load_retrieval_set
from cae_lib.data.incomplete import log_once
from cae_lib.data.labelled import LabelledImages, load_labelled_folder
from cae_lib.data.needs import require_built_data
from cae_lib.data.rows import read_json
from cae_lib.data.scene_graphs import FLICKR_GRAPHS_FILE, GRAPHS_FILE, NOUNS, read_scene_entries
from cae_lib.data.similarity import (
    SENTEVAL_FOLDER,
    SIMILARITY_SETS,
    SentencePairs,
    available_similarity_sets,
    load_similarity_set,
)
from cae_lib.data.sources import fetch_command
from cae_lib.data.training_set import training_pairs
from cae_lib.errors import ConfigError, DataError, MissingDataError
from cae_lib.profiles import find_profile

SAMPLE_SIZES: Mapping[str, int] = {
    "attribution": 500,
    "phrases": 500,
    "faithfulness": 120,
    "heatmaps": 300,
}
"""Largest number of COCO's test captions, or for "heatmaps" of its test images, that a suite uses.

`evenly_spaced_indices` samples them. The suite "bindings" has the sample of "attribution", and the
suite "sensitivity" that of "faithfulness".
"""

MANIFEST_FILE = "manifest.json"
"""File in the root of generated datasets that lists their numbers of items."""

LABELLED_FOLDER = "zero-shot"
"""Folder of the user's own datasets of labelled images, below the folder of all datasets."""

SCENE_GRAPH_FILES: Mapping[str, str] = {"coco": GRAPHS_FILE, "flickr30k": FLICKR_GRAPHS_FILE}
"""File of scene graphs of each synthetic retrieval set, relative to a profile's folder, by the name
of the set."""


def _manifest_counts(root: Path) -> Mapping[str, Mapping[str, int]]:
    """Return the manifest's numbers of items of generated datasets, by family and subset."""
    return read_json(root / MANIFEST_FILE, dict)["counts"]


def evenly_spaced_indices(total: int, limit: int | None) -> np.ndarray:
    """Return up to `limit` evenly spaced indices below `total`, sorted; all if `limit` is None."""
    return np.unique(
        np.linspace(0, total - 1, total if limit is None else min(limit, total)).astype(int)
    )


@contextmanager
def skip_if_missing(name: str, may_be_missing: bool) -> Iterator[None]:
    """Suppress a MissingDataError that the `with` block raises, and print what is left out.

    The rest of the block is skipped. The same message is printed once in a process.

    Args:
        name: What the block loads or measures, as the message names it.
        may_be_missing: Whether to suppress the error; if False, it is raised.
    """
    try:
        yield
    except MissingDataError as error:
        if not may_be_missing:
            raise
        log_once(f"Left out: {name}. {error}")


def load_benchmarks(profile_name: str, families: Iterable[str] = ()) -> tuple[Benchmark, ...]:
    """Load the benchmarks of a profile, a `Benchmark` for each subset.

    If the annotation file of a real subset is missing, the subset is returned without items, or
    left out if its expected size is unknown.

    Args:
        profile_name: Name of the profile.
        families: Names of the families to load, see `family_names`; by default those of
            `benchmark_families`.

    Raises:
        ConfigError: If the profile is unknown or lacks one of the `families`, or the family "order"
            finds no English spaCy model.
        DataError: If data are malformed, generated data are incomplete, or a family that `families`
            names has no usable item.
    """
    families, profile = family_names(families), find_profile(profile_name)
    root, available = profile.root, [*FOLDER_OF_FAMILY]
    if not profile.is_real:
        available = _built_families(profile_name)
    if unknown := [name for name in families if name not in available]:
        raise ConfigError(f"no benchmark {', '.join(unknown)}. Known: {', '.join(available)}.")
    requested = [
        name for name in available if name in (families or benchmark_families(profile_name))
    ]
    parts = [part for name in requested for part in load_family(profile_name, name)]
    usable = {part.name for part in parts if part.n_used}
    if absent := [name for name in families if name not in usable]:
        sources = (source for name in absent for source in BENCHMARK_FAMILIES[name].source_names)
        raise MissingDataError(
            f"{root}: no item of {', '.join(absent)} can be used. Fetch what is missing: "
            f"{fetch_command(sources)}"
        )
    return tuple(parts)


def _built_families(profile_name: str) -> list[str]:
    require_built_data(profile_name)
    counts = _manifest_counts(find_profile(profile_name).root)
    return [name for name in FOLDER_OF_FAMILY if name in counts]


def benchmark_families(profile_name: str) -> list[str]:
    """Return the names of the benchmark families that a profile has.

    A profile of real data has the paper's benchmarks, even if they are missing, and every other
    benchmark whose folder exists. A profile of generated data has those that its manifest lists.

    Raises:
        ConfigError: If the profile is unknown.
        DataError: If the generated data are not built yet (the message names the command that
            builds them), or their manifest is malformed.
    """
    profile = find_profile(profile_name)
    if not profile.is_real:
        return _built_families(profile_name)
    return [
        name
        for name in FOLDER_OF_FAMILY
        if name not in FURTHER_BENCHMARKS or (profile.root / FOLDER_OF_FAMILY[name]).is_dir()
    ]


@lru_cache(maxsize=64)
def load_family(profile_name: str, name: str) -> list[Benchmark]:
    """Load the subsets of a benchmark family; the result is cached.

    Args:
        profile_name: Name of the profile.
        name: Name of the family.

    Raises:
        ConfigError: If the profile or the family is unknown, or the family "order" finds no English
            spaCy model.
        DataError: If data are malformed, or generated data are incomplete.
    """
    profile = find_profile(profile_name)
    parts = load_benchmark(name, profile.root, is_published=profile.is_real)
    for part in parts if not profile.is_real else ():
        if part.n_used != part.n_expected:
            raise DataError(
                f"{profile.root}: {part.n_used} of {part.n_expected} items of {part.key} are "
                "there. Remove the folder and build it again."
            )
    return parts


@lru_cache(maxsize=4)
def retrieval_pairs(profile_name: str, name: str) -> ImageCaptionPairs:
    """Load the image-caption pairs of a retrieval set; a real one may be incomplete.

    The result is cached.

    Args:
        profile_name: Name of the profile.
        name: "coco" or "flickr30k".

    Raises:
        ConfigError: If the profile or the name is unknown.
        DataError: If the captions are missing or malformed, no image can be used, or a generated
            set is incomplete.
    """
    root, real = find_profile(profile_name).root, find_profile(profile_name).is_real
    pairs = load_retrieval_set(
        name, root, missing_images="drop" if real else "raise", is_published=real
    )
    if not pairs.n_used:
        raise MissingDataError(
            f"{root / name}: captions are there, but no image of them that can be used. Put the "
            "images there to measure anything on this dataset."
        )
    return pairs


def retrieval_sets(profile_name: str) -> dict[str, ImageCaptionPairs]:
    """Load the retrieval sets of a profile by name; real ones that are missing are left out.

    Raises:
        DataError: If a set is malformed, or a generated one is missing or incomplete.
    """
    profile, pairs = find_profile(profile_name), {}
    for name in RETRIEVAL_SETS if profile.is_real else _manifest_counts(profile.root)["order"]:
        with skip_if_missing(f"retrieval on {name}", profile.is_real):
            pairs[name] = retrieval_pairs(profile_name, name)
    return pairs


def available_training_pairs(profile_name: str) -> ImageCaptionPairs | None:
    """Load the training pairs of a profile; return None if real ones are missing or incomplete.

    Raises:
        DataError: If data are malformed, or generated data are missing or incomplete.
    """
    with skip_if_missing("blind", find_profile(profile_name).is_real):
        return training_pairs(profile_name)
    return None


@lru_cache(maxsize=2)
def similarity_sets(profile_name: str) -> tuple[SentencePairs, ...]:
    """Load the text similarity datasets of a profile that are on this machine.

    A message names real datasets that are missing. Of generated data, those datasets are loaded
    that have test files. The result is cached.

    Raises:
        DataError: If a dataset is malformed, or if a profile of generated data has no dataset or
            lacks all score files of one.
    """
    profile, pairs = find_profile(profile_name), []
    folder = profile.root / SENTEVAL_FOLDER
    for name in SIMILARITY_SETS if profile.is_real else available_similarity_sets(folder):
        with skip_if_missing(name, profile.is_real):
            pairs.append(load_similarity_set(name, folder, is_published=profile.is_real))
    return tuple(pairs)


@lru_cache(maxsize=2)
def classification_sets(profile_name: str) -> Mapping[str, LabelledImages]:
    """Load the datasets for zero-shot classification of a profile by name.

    A synthetic profile has its retrieval images, labelled with the nouns of their scene graphs. A
    profile of real data has the user's folders in `LABELLED_FOLDER`. Other profiles have none. The
    result is cached.

    Raises:
        DataError: If the profile has real data and `LABELLED_FOLDER` has no subfolder, or if a
            dataset is missing or malformed.
    """
    profile = find_profile(profile_name)
    if profile.is_synthetic:
        return {name: _images_with_nouns(profile_name, name) for name in SCENE_GRAPH_FILES}
    if not profile.is_real:
        return {}
    root = profile.root / LABELLED_FOLDER
    folders = sorted(path for path in root.glob("*") if path.is_dir())
    if not folders:
        raise MissingDataError(
            f"{root}: no dataset of labelled images. Put each dataset into a folder of its own "
            "there, with one folder of images for each class."
        )
    return {path.name: load_labelled_folder(path) for path in folders}


def _images_with_nouns(profile_name: str, name: str) -> LabelledImages:
    """Return the images of a synthetic retrieval set with the nouns of their scene graphs."""
    paths = retrieval_pairs(profile_name, name).image_paths
    graphs = read_scene_entries(find_profile(profile_name).root / SCENE_GRAPH_FILES[name], "images")
    nouns = {entry["file_name"]: [thing["noun"] for thing in entry["things"]] for entry in graphs}
    labels = [tuple(NOUNS.index(noun) for noun in nouns[path.name]) for path in paths]
    return LabelledImages(paths, labels, NOUNS, len(paths))
