"""The test sets of a profile, each read once: those built here, or the real ones, which have to be
there in their published numbers, unless `allowing` lets them be incomplete: then what is there is
read, and what is left out is printed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from cae_lib.data.benchmarks import FOLDERS, FURTHER, Benchmark, load_benchmark
from cae_lib.data.benchmarks.cola import SINGLE, SOURCES, LabelledPictures, load_single
from cae_lib.data.captions import RETRIEVAL_SETS, Pairs, load_retrieval_set
from cae_lib.data.labelled import LabelledImages, load_labelled_folder
from cae_lib.data.needs import FAMILIES, RETRIEVAL_SOURCES, SIMILARITY_SOURCE
from cae_lib.data.rows import read_json
from cae_lib.data.similarity import FOLDER, SentencePairs, load_similarity, present_sets
from cae_lib.data.similarity import OFFICIAL as OFFICIAL_PAIRS
from cae_lib.data.sources import may_be_incomplete
from cae_lib.data.training_set import training_pairs
from cae_lib.errors import ConfigError, DataError
from cae_lib.profiles import find_profile
from cae_lib.world.files import GRAPHS, read_gold

SAMPLES: Mapping[str, int] = {
    "attribution": 500,
    "phrases": 500,
    "faithfulness": 120,
    "heatmaps": 300,
}
"""How many of COCO's test captions, or pictures, a measurement takes; see `even_rows`."""

MANIFEST = "manifest.json"
LABELLED = "zero-shot"
"""Folder of the user's own sets of labelled pictures."""

WORLD_GRAPHS: Mapping[str, str] = {"coco": GRAPHS, "flickr30k": "flickr30k/scene_graphs_test.json"}


def _counts(root: Path) -> Mapping[str, Mapping[str, int]]:
    """The numbers of items by family, of sets that are built here."""
    return read_json(root / MANIFEST, dict)["counts"]


def even_rows(total: int, limit: int | None) -> np.ndarray:
    """At most `limit` row numbers, spread evenly over all; None takes all."""
    return np.unique(np.linspace(0, total - 1, min(limit or total, total)).astype(int))


@contextmanager
def optional(what: str, may_be_absent: bool) -> Iterator[None]:
    """Where data are missing, and may be, say that `what` is left out, and go on behind."""
    try:
        yield
    except DataError as error:
        if not may_be_absent:
            raise
        print(f"Left out: {what}. {error}", flush=True)


def benchmarks(profile: str, families: Iterable[str] = ()) -> tuple[Benchmark, ...]:
    """All subsets of the choice benchmarks; those beside the paper's where their folder is there.
    Subsets that may be incomplete can have no item at all.

    `families` reads those alone, and needs no files of others. ConfigError for an unknown family;
    DataError if data are malformed, or missing and may not be.
    """
    families, known = tuple(families), find_profile(profile)
    names = [name for name in FOLDERS if known.real or name in _counts(known.root)]
    if unknown := [name for name in families if name not in names]:
        raise ConfigError(f"no benchmark {', '.join(unknown)}. Known: {', '.join(names)}.")
    chosen = families or families_of(profile)
    return tuple(subset for name in names if name in chosen for subset in family(profile, name))


def families_of(profile: str) -> list[str]:
    """The families of benchmarks that a profile has: of real ones the paper's, and those beside
    them whose folder is there."""
    known = find_profile(profile)
    if not known.real:
        return [name for name in FOLDERS if name in _counts(known.root)]
    return [
        name for name in FOLDERS if name not in FURTHER or (known.root / FOLDERS[name]).is_dir()
    ]


@lru_cache(maxsize=64)
def family(profile: str, name: str) -> list[Benchmark]:
    """Its subsets; a real one that may be incomplete has empty ones for what is not there."""
    known = find_profile(profile)
    allowed = known.real and any(map(may_be_incomplete, FAMILIES[name]))
    return load_benchmark(name, known.root, official=known.real, allow_missing=allowed)


@lru_cache(maxsize=4)
def retrieval_pairs(profile: str, name: str) -> Pairs:
    """Pictures and captions of a retrieval set; of a real one the published number is expected.
    DataError if data are malformed, or missing and may not be."""
    root, real = find_profile(profile).root, find_profile(profile).real
    if not (real and may_be_incomplete(RETRIEVAL_SOURCES[name])):
        return load_retrieval_set(name, root, official=real)
    pairs = load_retrieval_set(name, root, missing="drop")
    if not pairs.n_used:
        raise DataError(
            f"{root / name}: captions are there, but no picture of them that can be used. Put the "
            "pictures there to measure anything on this set."
        )
    return replace(pairs, n_expected=RETRIEVAL_SETS[name].n_captions)


def retrieval_sets(profile: str) -> dict[str, Pairs]:
    """The retrieval sets by name; one that may be incomplete may also be absent."""
    known, pairs = find_profile(profile), {}
    for name in RETRIEVAL_SETS if known.real else _counts(known.root)["order"]:
        with optional(f"retrieval on {name}", may_be_incomplete(RETRIEVAL_SOURCES[name])):
            pairs[name] = retrieval_pairs(profile, name)
    return pairs


def training_captions(profile: str) -> Pairs | None:
    """The training captions and pictures; None if they are absent, as those of real data may be."""
    with optional("blind", find_profile(profile).real):
        pairs = training_pairs(profile)
        if pairs.n_used:
            return pairs
        raise DataError("Training captions are there, but no picture of them that can be used.")
    return None


@lru_cache(maxsize=2)
def similarity_pairs(profile: str) -> tuple[SentencePairs, ...]:
    """The test sets of text similarity that a profile has; those that may be incomplete may also be
    absent. DataError if data are malformed, or missing and may not be."""
    real, folder = find_profile(profile).real, find_profile(profile).root / FOLDER
    if not (real and may_be_incomplete(SIMILARITY_SOURCE)):
        names = present_sets(folder)
        return tuple(load_similarity(name, folder, official=real) for name in names)
    pairs = []
    for name, n_expected in OFFICIAL_PAIRS.items():
        with optional(name, True):
            pairs.append(replace(load_similarity(name, folder), n_expected=n_expected))
    return tuple(pairs)


def label_sets(profile: str) -> list[LabelledPictures]:
    """Those of COLA's single-object sets that a profile has; one that may be incomplete needs but a
    picture."""
    root = find_profile(profile).root / FOLDERS["cola"]
    allowed = all(map(may_be_incomplete, FAMILIES["cola"]))
    return [
        load_single(root, name, allow_missing=allowed)
        for name in SOURCES
        if (root / "data" / SINGLE.format(name)).is_file()
    ]


@lru_cache(maxsize=2)
def class_sets(profile: str) -> Mapping[str, LabelledImages]:
    """Pictures with classes: the small world's, none of photographs, or what is in `LABELLED`;
    DataError if there is none, or one is malformed."""
    known = find_profile(profile)
    if known.gold:
        return {name: _with_nouns(profile, name) for name in WORLD_GRAPHS}
    if not known.real:
        return {}
    root = known.root
    folders = sorted(path for path in (root / LABELLED).glob("*") if path.is_dir())
    if not folders:
        raise DataError(
            f"{root / LABELLED}: no set of labelled pictures. Put each set into a folder of its "
            "own there, with one folder of pictures for each class, or with a file labels.csv."
        )
    return {path.name: load_labelled_folder(path) for path in folders}


def _with_nouns(profile: str, name: str) -> LabelledImages:
    """A retrieval set of the small world with the nouns of its gold scene graphs."""
    from cae_lib.world.vocabulary import NOUNS

    paths = retrieval_pairs(profile, name).image_paths
    graphs = read_gold(find_profile(profile).root / WORLD_GRAPHS[name], "images")
    nouns = {entry["file_name"]: [thing["noun"] for thing in entry["things"]] for entry in graphs}
    labels = [tuple(NOUNS.index(noun) for noun in nouns[path.name]) for path in paths]
    return LabelledImages(paths, labels, NOUNS, len(paths))
