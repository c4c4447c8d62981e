"""Everything that is measured on one set of weights: the records behind the book's pages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from cae_lib.attribution import METHODS
from cae_lib.config import paths
from cae_lib.data.benchmarks import BENCHMARKS, Benchmark, load_benchmark
from cae_lib.data.captions import Pairs, load_caption_list
from cae_lib.data.training_set import data_root, default_tagger
from cae_lib.evaluation.attribution import role_scores
from cae_lib.evaluation.choice import evaluate_all
from cae_lib.evaluation.embed import Encoder, ImageRef
from cae_lib.evaluation.retrieval import retrieval
from cae_lib.words.alignment import token_roles

RETRIEVAL_SETS: Mapping[str, tuple[str, str]] = {
    "coco": ("coco/coco_karpathy_test.json", "coco"),
    "flickr30k": ("flickr30k/flickr30k_test.json", "flickr30k"),
}


@lru_cache(maxsize=2)
def benchmarks(profile: str) -> tuple[Benchmark, ...]:
    """All subsets of the choice benchmarks of a profile, read once."""
    root = data_root(profile)
    return tuple(part for name in BENCHMARKS for part in load_benchmark(name, root))


@lru_cache(maxsize=4)
def retrieval_pairs(profile: str, name: str) -> Pairs:
    """Pictures and captions of a retrieval set, read once."""
    file, folder = RETRIEVAL_SETS[name]
    return load_caption_list(data_root(profile) / file, data_root(profile) / folder)


def choices(encoder: Encoder, profile: str) -> dict[str, Any]:
    """Results on every choice benchmark, by `family/subset`."""
    results = evaluate_all(benchmarks(profile), encoder)
    return {result.key: result.to_record() for result in results}


def retrievals(encoder: Encoder, profile: str) -> dict[str, Any]:
    """Recall on the retrieval sets, both ways."""
    return {name: retrieve(encoder, retrieval_pairs(profile, name)) for name in RETRIEVAL_SETS}


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


SUITES: dict[str, Callable[[Encoder, str], dict[str, Any]]] = {
    "benchmarks": choices,
    "retrieval": retrievals,
    "attribution": attributions,
}


def manifest_path(profile: str) -> Path:
    """The file that says which version of the small world is on disk."""
    return data_root(profile) / "manifest.json"
