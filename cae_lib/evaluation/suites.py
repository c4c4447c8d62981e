"""Everything that is measured, as tables: on a set of weights, on the base alone, on the data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import pandas as pd

from cae_lib.config import paths
from cae_lib.data.captions import Pairs
from cae_lib.data.training_set import data_root, default_tagger, training_pairs
from cae_lib.errors import DataError
from cae_lib.evaluation import sets
from cae_lib.evaluation.attribution import attribution_table
from cae_lib.evaluation.blind import average_picture_answers, blind_answers, text_choosers
from cae_lib.evaluation.choice import answers
from cae_lib.evaluation.embed import Encoder
from cae_lib.evaluation.faithfulness import faithfulness_table, sensitivity_table
from cae_lib.evaluation.heatmaps import heatmap_table
from cae_lib.evaluation.items import captions, items, parser_table, subsets
from cae_lib.evaluation.retrieval import class_ranks, label_precisions, retrieval_ranks
from cae_lib.evaluation.similarity import phrase_table, similarities
from cae_lib.results import Tables
from cae_lib.words.alignment import Alignment, token_roles

Measure = Callable[[Encoder, str], pd.DataFrame]
"""Measures an encoder on the data of a profile; the table is empty where there are none."""


def annotated_captions(encoder: Encoder, profile: str) -> tuple[Pairs, Alignment]:
    """COCO's test captions with their tokens and roles."""
    pairs = sets.retrieval_pairs(profile, "coco")
    cache = paths().cache / "roles"
    return pairs, token_roles(pairs.captions, default_tagger(), encoder.clip.tokenizer, cache)


def _benchmarks(encoder: Encoder, profile: str) -> pd.DataFrame:
    return answers(sets.benchmarks(profile), encoder)


def _blind(encoder: Encoder, profile: str) -> pd.DataFrame:
    """The average picture."""
    pairs = _training_pairs(profile)
    if pairs is None:
        return pd.DataFrame()
    return average_picture_answers(encoder, pairs, sets.benchmarks(profile))


def _training_pairs(profile: str) -> Pairs | None:
    """The training captions and pictures; None if they are absent, as those of real data may be."""
    try:
        pairs = training_pairs(profile)
        if pairs.n_used:
            return pairs
        why = "Training captions are there, but no picture of them that can be used."
    except DataError as error:
        if not sets.is_official(data_root(profile)):
            raise
        why = str(error)
    print(f"Left out: blind. {why}", flush=True)
    return None


def _retrieval(encoder: Encoder, profile: str) -> pd.DataFrame:
    found = sets.retrieval_sets(profile).items()
    return _joined(retrieval_ranks(encoder, pairs, name) for name, pairs in found)


def _similarity(encoder: Encoder, profile: str) -> pd.DataFrame:
    return _joined(similarities(pairs, encoder) for pairs in sets.similarity_pairs(profile))


def _zero_shot(encoder: Encoder, profile: str) -> pd.DataFrame:
    found = sets.class_sets(profile).items()
    ranks = _joined(class_ranks(encoder, pictures).assign(set=name) for name, pictures in found)
    return ranks[["set", "picture", "label", "rank"]]


def _labels(encoder: Encoder, profile: str) -> pd.DataFrame:
    found = (labels for labels in sets.label_sets(profile) if labels.images)
    return _joined(label_precisions(labels, encoder) for labels in found)


def _joined(frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
    found = [*frames]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def _words(measure: Callable[..., pd.DataFrame], encoder: Encoder, profile: str) -> pd.DataFrame:
    return measure(encoder, *annotated_captions(encoder, profile))


def _named(name: str, measure: Measure, encoder: Encoder, profile: str) -> Tables:
    return {name: measure(encoder, profile)}


_MEASURES: Mapping[str, Measure] = {
    "benchmarks": _benchmarks,
    "blind": _blind,
    "retrieval": _retrieval,
    "similarity": _similarity,
    "zero_shot": _zero_shot,
    "labels": _labels,
    "attribution": partial(_words, attribution_table),
    "bindings": partial(_words, partial(attribution_table, methods=("binding",))),
    "phrases": phrase_table,
    "faithfulness": partial(_words, faithfulness_table),
    "heatmaps": heatmap_table,
}
SUITES = {name: partial(_named, name, measure) for name, measure in _MEASURES.items()}
"""What is measured on every set of weights; each makes the table of its name."""

BASE_SUITES = {"sensitivity": partial(_named, "sensitivity", partial(_words, sensitivity_table))}
"""What is measured on the base model alone, beside `SUITES`."""


def data_tables(profile: str) -> Tables:
    """The tables of a profile's data: items, captions, subsets, blind, and in a world parser;
    DataError if data are missing, and may not be."""
    world, tagger = sets.is_world(data_root(profile)), default_tagger()
    parts, retrieval = sets.benchmarks(profile), sets.retrieval_sets(profile)
    pairs = _training_pairs(profile)
    found = {"subsets": subsets(profile)}
    found["items"] = items(parts, tagger, world, None if pairs is None else pairs.captions)
    if pairs is not None:
        found["blind"] = blind_answers(parts, text_choosers(pairs.captions))
    if "coco" in retrieval:
        found["captions"] = captions("coco", retrieval["coco"], tagger, world)
    return found | ({"parser": parser_table(profile)} if world else {})
