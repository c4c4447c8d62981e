"""Everything that is measured, as tables: on a set of weights, on the base alone, on the data."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pandas as pd

from cae_lib.config import paths
from cae_lib.data.captions import Pairs
from cae_lib.data.training_set import data_root, default_tagger, training_pairs
from cae_lib.errors import DataError
from cae_lib.evaluation.attribution import attribution_table
from cae_lib.evaluation.blind import (
    average_picture_answers,
    blind_answers,
    length_choosers,
    likelihood_choosers,
)
from cae_lib.evaluation.choice import answers
from cae_lib.evaluation.embed import Encoder
from cae_lib.evaluation.faithfulness import faithfulness_table
from cae_lib.evaluation.gold import parser_table
from cae_lib.evaluation.heatmaps import heatmap_table
from cae_lib.evaluation.items import captions, items, subsets
from cae_lib.evaluation.labels import label_precisions
from cae_lib.evaluation.phrases import phrase_table
from cae_lib.evaluation.retrieval import retrieval_ranks
from cae_lib.evaluation.sensitivity import sensitivity_table
from cae_lib.evaluation.sets import (
    benchmarks,
    is_official,
    label_sets,
    retrieval_pairs,
    retrieval_sets,
    similarity_pairs,
)
from cae_lib.evaluation.similarity import similarities
from cae_lib.evaluation.zero_shot import zero_shot
from cae_lib.results import Tables
from cae_lib.words.alignment import Alignment, token_roles

Suite = Callable[[Encoder, str], Tables]
"""Measures an encoder on the data of a profile; leaves out a table for which there are none."""


def annotated_captions(encoder: Encoder, profile: str) -> tuple[Pairs, Alignment]:
    """COCO's test captions with their tokens and roles."""
    pairs = retrieval_pairs(profile, "coco")
    cache = paths().cache / "roles"
    return pairs, token_roles(pairs.captions, default_tagger(), encoder.clip.tokenizer, cache)


def _benchmarks(encoder: Encoder, profile: str) -> Tables:
    parts = benchmarks(profile)
    frame = answers(parts, encoder)
    for part in parts:
        cut = sum(ref.path in encoder.truncated for item in part.items for ref in item.images)
        if cut:
            print(f"{part.key}: {cut} pictures end too early, the rest is grey", flush=True)
    return {"benchmarks": frame}


def _blind(encoder: Encoder, profile: str) -> Tables:
    """The average picture; of real data the training pictures may be absent."""
    try:
        pairs = training_pairs(profile)
    except DataError as error:
        if not is_official(data_root(profile)):
            raise
        print(f"Left out: blind. {error}", flush=True)
        return {}
    return {"blind": average_picture_answers(encoder, pairs, benchmarks(profile))}


def _retrieval(encoder: Encoder, profile: str) -> Tables:
    found = retrieval_sets(profile).items()
    return _joined("retrieval", [retrieval_ranks(encoder, pairs, name) for name, pairs in found])


def _similarity(encoder: Encoder, profile: str) -> Tables:
    found = [similarities(pairs, encoder) for pairs in similarity_pairs(profile)]
    return _joined("similarity", found)


def _labels(encoder: Encoder, profile: str) -> Tables:
    return _joined("labels", [label_precisions(found, encoder) for found in label_sets(profile)])


def _joined(name: str, frames: list[pd.DataFrame]) -> Tables:
    return _table(name, pd.concat(frames, ignore_index=True)) if frames else {}


def _table(name: str, frame: pd.DataFrame) -> Tables:
    return {} if frame.empty else {name: frame}


SUITES: Mapping[str, Suite] = {
    "benchmarks": _benchmarks,
    "blind": _blind,
    "retrieval": _retrieval,
    "similarity": _similarity,
    "zero_shot": lambda encoder, profile: {"zero_shot": zero_shot(encoder, profile)},
    "labels": _labels,
    "attribution": lambda encoder, profile: {
        "attribution": attribution_table(encoder, *annotated_captions(encoder, profile))
    },
    "phrases": lambda encoder, profile: {"phrases": phrase_table(encoder, profile)},
    "faithfulness": lambda encoder, profile: {
        "faithfulness": faithfulness_table(encoder, *annotated_captions(encoder, profile))
    },
    "heatmaps": lambda encoder, profile: _table("heatmaps", heatmap_table(encoder, profile)),
}
"""What is measured on every set of weights; each makes the table of its name, or none."""

BASE_SUITES: Mapping[str, Suite] = {
    "sensitivity": lambda encoder, profile: {
        "sensitivity": sensitivity_table(encoder, *annotated_captions(encoder, profile))
    }
}
"""What is measured on the base model alone, beside `SUITES`."""


def data_tables(profile: str) -> Tables:
    """The tables of a profile's data: items, captions, subsets, blind, and in a world parser.

    Raises:
        DataError: Data are missing, and may not be.
    """
    world, tagger = not is_official(data_root(profile)), default_tagger()
    parts, retrieval = benchmarks(profile), retrieval_sets(profile)
    choosers = length_choosers() | likelihood_choosers(training_pairs(profile).captions)
    found = {
        "subsets": subsets(profile),
        "blind": blind_answers(parts, choosers),
        "items": items(parts, tagger, world),
    }
    if "coco" in retrieval:
        found["captions"] = captions("coco", retrieval["coco"], tagger, world)
    return found | ({"parser": parser_table(profile)} if world else {})
