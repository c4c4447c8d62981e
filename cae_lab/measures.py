"""Measure a model on the test sets of a profile: the tables of most suites."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

import numpy as np
import pandas as pd

from cae_bench.answers import answer_benchmarks
from cae_bench.datasets import (
    labelled_sets,
    load_benchmarks,
    retrieval_pairs,
    retrieval_sets,
    similarity_sets,
)
from cae_bench.encoder import Encoder
from cae_bench.labelled import LabelledImages
from cae_bench.retrieval import class_ranks, retrieval_ranks
from cae_bench.text_similarity import pair_similarities, phrase_cosines
from cae_lab.runs import Profile
from cae_lab.samples import SAMPLE_SIZES, evenly_spaced_indices
from cae_lab.scene_graphs import (
    CAPTIONS_FILE,
    FLICKR_GRAPHS_FILE,
    GRAPHS_FILE,
    NOUNS,
    read_scene_entries,
)
from cae_lab.training_set import default_tagger
from cae_lib.words.phrases import (
    PHRASE_KINDS,
    PhrasesByKind,
    load_ground_truth_phrases,
    parsed_phrases,
)

# By the name of a synthetic retrieval set; paths are relative to a profile's folder.
SCENE_GRAPH_FILES: Mapping[str, str] = {"coco": GRAPHS_FILE, "flickr30k": FLICKR_GRAPHS_FILE}


def concat_tables(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Concatenate the rows of tables; return an empty table if there are none."""
    tables = list(tables)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def benchmark_table(encoder: Encoder, profile: Profile) -> pd.DataFrame:
    """Answer all benchmarks of a profile."""
    return answer_benchmarks(load_benchmarks(profile.datasets), encoder)


def retrieval_table(encoder: Encoder, profile: Profile) -> pd.DataFrame:
    """Rank images and captions on all retrieval sets of a profile."""
    sets = retrieval_sets(profile.datasets)
    return concat_tables(retrieval_ranks(encoder, pairs, name) for name, pairs in sets.items())


def similarity_table(encoder: Encoder, profile: Profile) -> pd.DataFrame:
    """Compare the sentence pairs of all similarity datasets of a profile."""
    return concat_tables(
        pair_similarities(encoder, pairs) for pairs in similarity_sets(profile.datasets)
    )


def zero_shot_table(encoder: Encoder, profile: Profile) -> pd.DataFrame:
    """Rank classes on all `classification_sets` of a profile."""
    tables = []
    for name, images in classification_sets(profile).items():
        table = class_ranks(encoder, images)
        table.insert(0, "set", name)
        tables.append(table)
    return concat_tables(tables)


def classification_sets(profile: Profile) -> Mapping[str, LabelledImages]:
    """Load the zero-shot datasets by name: synthetic scenes, or for real data the user's images."""
    if profile.is_synthetic:
        return {name: _images_with_nouns(profile, name) for name in SCENE_GRAPH_FILES}
    return labelled_sets(profile.datasets) if profile.is_real else {}


# Cached, as all models are measured on the same images.
@lru_cache(maxsize=4)
def _images_with_nouns(profile: Profile, name: str) -> LabelledImages:
    """Return the images of a synthetic retrieval set with the nouns of their scene graphs."""
    paths = retrieval_pairs(profile.datasets, name).image_paths
    graphs = read_scene_entries(profile.root / SCENE_GRAPH_FILES[name], "images")
    nouns = {entry["file_name"]: [thing["noun"] for thing in entry["things"]] for entry in graphs}
    labels = [tuple(NOUNS.index(noun) for noun in nouns[path.name]) for path in paths]
    return LabelledImages(paths, labels, NOUNS, len(paths))


def phrase_table(encoder: Encoder, profile: Profile) -> pd.DataFrame:
    """Return the `phrase_cosines` of each caption of a sample, by kind of phrase."""
    pairs = retrieval_pairs(profile.datasets, "coco")
    rows = evenly_spaced_indices(len(pairs.captions), SAMPLE_SIZES["phrases"]).astype(np.int32)
    captions = [pairs.captions[row] for row in rows]
    image_index = np.asarray(pairs.image_index)[rows].astype(np.int32)
    phrases = _caption_phrases(tuple(captions), profile)
    tables = []
    for kind in PHRASE_KINDS:
        cosines = phrase_cosines(encoder, captions, [by_kind[kind] for by_kind in phrases])
        tables.append(
            pd.DataFrame({"caption": rows, "picture": image_index, "kind": kind, **cosines})
        )
    return concat_tables(tables)


# Cached, as all models are measured on the same captions, which are therefore a tuple.
@lru_cache(maxsize=2)
def _caption_phrases(captions: tuple[str, ...], profile: Profile) -> list[PhrasesByKind]:
    """Return the phrases of captions by kind: of synthetic scenes the ground truth, else parsed."""
    if not profile.is_synthetic:
        return parsed_phrases(default_tagger().graphs(captions))
    phrases = load_ground_truth_phrases(profile.root / CAPTIONS_FILE, profile.root / GRAPHS_FILE)
    return [phrases[caption] for caption in captions]
