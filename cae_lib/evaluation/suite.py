"""Benchmarks, retrieval, similarity and attribution of one set of weights, as records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from cae_lib.attribution import METHODS
from cae_lib.config import paths
from cae_lib.data.allowance import may_be_incomplete
from cae_lib.data.benchmarks import BENCHMARKS, FOLDERS, FURTHER, Benchmark, load_benchmark
from cae_lib.data.benchmarks.cola import SINGLE, SOURCES, load_single
from cae_lib.data.benchmarks.present import present_parts
from cae_lib.data.benchmarks.winoground import PARTS
from cae_lib.data.captions import Pairs
from cae_lib.data.needs import FAMILIES, RETRIEVAL_SOURCES, SIMILARITY_SOURCE
from cae_lib.data.retrieval_sets import RETRIEVAL_SETS, load_retrieval_set
from cae_lib.data.similarity import FOLDER, SentencePairs, load_similarity, present_sets
from cae_lib.data.similarity import OFFICIAL as OFFICIAL_PAIRS
from cae_lib.data.training_set import data_root, default_tagger
from cae_lib.errors import DataError
from cae_lib.evaluation.attribution import role_scores
from cae_lib.evaluation.choice import evaluate_all
from cae_lib.evaluation.embed import Encoder, ImageRef
from cae_lib.evaluation.labels import evaluate_labels
from cae_lib.evaluation.match import match_metrics
from cae_lib.evaluation.retrieval import retrieval
from cae_lib.evaluation.similarity import evaluate_similarity
from cae_lib.words.alignment import token_roles

OFFICIAL_OPTIONS: Mapping[str, dict[str, Any]] = {"winoground": {"parts": tuple(PARTS)}}


def is_official(root: Path) -> bool:
    """Whether a folder holds the real sets: the small world's has a manifest, which counts them."""
    return not (root / "manifest.json").is_file()


@lru_cache(maxsize=2)
def benchmarks(profile: str) -> tuple[Benchmark, ...]:
    """All subsets of the choice benchmarks of a profile, read once.

    The real sets have to be there in their published numbers, unless `allowing` lets them be
    incomplete: then what is there is read, and what is left out is printed. Families outside the
    paper's tables are read where their folder is there.
    """
    root = data_root(profile)
    if not is_official(root):
        return tuple(part for name in BENCHMARKS for part in load_benchmark(name, root))
    names = (*BENCHMARKS, *(name for name in FURTHER if (root / FOLDERS[name]).is_dir()))
    return tuple(part for name in names for part in _official(name, root))


def _official(name: str, root: Path) -> list[Benchmark]:
    """A real family, or what is there of it if it may be incomplete."""
    options = OFFICIAL_OPTIONS.get(name, {})
    if not any(map(may_be_incomplete, FAMILIES[name])):
        return load_benchmark(name, root, official=True, **options)
    options = options | present_parts(name, root)
    try:
        found = load_benchmark(name, root, official=True, allow_missing=True, **options)
    except DataError as error:
        print(f"Left out: {name}. {error}", flush=True)
        return []
    for part in found:
        if not part.n_used:
            print(f"Left out: {part.key}. None of {part.n_expected} items can be used", flush=True)
    return [part for part in found if part.n_used]


@lru_cache(maxsize=4)
def retrieval_pairs(profile: str, name: str) -> Pairs:
    """Pictures and captions of a retrieval set, read once.

    A real set that may be incomplete is read as far as it is there; `n_expected` is the published
    number of captions all the same.
    """
    root = data_root(profile)
    if not (is_official(root) and may_be_incomplete(RETRIEVAL_SOURCES[name])):
        return load_retrieval_set(name, root, official=is_official(root))
    pairs = load_retrieval_set(name, root, missing="drop")
    return replace(pairs, n_expected=RETRIEVAL_SETS[name].n_captions)


@lru_cache(maxsize=2)
def similarity_pairs(profile: str) -> tuple[SentencePairs, ...]:
    """The test sets of text similarity that a profile has, read once."""
    root = data_root(profile)
    folder = root / FOLDER
    names = present_sets(folder)
    if not (is_official(root) and may_be_incomplete(SIMILARITY_SOURCE)):
        return tuple(load_similarity(name, folder, official=is_official(root)) for name in names)
    found = (load_similarity(name, folder) for name in names)
    return tuple(replace(pairs, n_expected=OFFICIAL_PAIRS[pairs.name]) for pairs in found)


def choices(encoder: Encoder, profile: str) -> dict[str, Any]:
    """Results on every choice benchmark, by `family/subset`."""
    parts = benchmarks(profile)
    records = {r.key: r.to_record() for r in evaluate_all(parts, encoder)}
    for part in parts:
        if part.name == "svo_probes" and part.n_used:
            records[part.key]["metrics"] |= match_metrics(part, encoder)
        cut = sum(ref.path in encoder.truncated for item in part.items for ref in item.images)
        if cut:
            records[part.key]["counts"]["truncated_images"] = cut
    return records


def similarities(encoder: Encoder, profile: str) -> dict[str, Any]:
    """Correlations on every set of text similarity."""
    results = (evaluate_similarity(pairs, encoder) for pairs in similarity_pairs(profile))
    return {result.name: result.to_record() for result in results}


def labels(encoder: Encoder, profile: str) -> dict[str, Any]:
    """Average precision on those of COLA's single-object sets that a profile has."""
    root = data_root(profile) / FOLDERS["cola"]
    found = [name for name in SOURCES if (root / "data" / SINGLE.format(name)).is_file()]
    return {name: evaluate_labels(load_single(root, name), encoder).to_record() for name in found}


def retrievals(encoder: Encoder, profile: str) -> dict[str, Any]:
    """Recall on the retrieval sets, both ways; one that may be incomplete may also be absent."""
    found = {}
    for name in RETRIEVAL_SETS:
        try:
            pairs = retrieval_pairs(profile, name)
        except DataError as error:
            if not may_be_incomplete(RETRIEVAL_SOURCES[name]):
                raise
            print(f"Left out: retrieval on {name}. {error}", flush=True)
        else:
            found[name] = retrieve(encoder, pairs)
    return found


def retrieve(encoder: Encoder, pairs: Pairs) -> dict[str, Any]:
    """Recall at 1, 5, 10 on one set, with the numbers of captions used and expected."""
    images = encoder.images([ImageRef(path) for path in pairs.image_paths])
    texts = encoder.texts(pairs.captions)
    result = retrieval(images, texts, np.asarray(pairs.image_index)).to_record()
    return result | {"n_used": pairs.n_used, "n_expected": pairs.n_expected}


def attributions(
    encoder: Encoder, profile: str, methods: Iterable[str] = METHODS, limit: int = 500
) -> dict[str, Any]:
    """Attribution by role on the COCO test captions, for every method."""
    pairs = retrieval_pairs(profile, "coco")
    cache = paths().cache / "roles"
    alignment = token_roles(pairs.captions, default_tagger(), encoder.clip.tokenizer, cache)
    return {
        method: role_scores(encoder, pairs, alignment, method, limit).to_record()
        for method in methods
    }


def manifest_path(profile: str) -> Path:
    """The file that says which version of the small world is on disk."""
    return data_root(profile) / "manifest.json"
